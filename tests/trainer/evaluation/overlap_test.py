import dataclasses
import json
import shutil

import fake_scores
import numpy as np
import pytest

from trainer.evaluation import overlap
from trainer.evaluation import trained_run
from trainer.scoring import scored_records


@pytest.fixture(scope='module')
def score_source(opened_dataset, trained):
  """Returns a function: split -> its records, as after scoring."""
  (run,) = trained_run.open_runs([str(trained)])

  def make(split):
    source = opened_dataset.open_split(split)
    records = scored_records.score_split([run.model], source)
    return overlap.ScoredSource(opened_dataset, source, records)

  return make


def open_changed(folder, to, **fields):
  """Opens a copy of a run with other fields in its config."""
  shutil.copytree(folder, to)
  content = json.loads((to / 'config.json').read_text())
  content['config'] |= fields
  (to / 'config.json').write_text(json.dumps(content))
  return trained_run.open_runs([str(to)])


def test_other_records_of_a_scan_that_was_trained_on_count(
  trained, score_source, tmp_path
):
  runs = open_changed(trained, tmp_path / 'run', train_split='train[:5]')
  scored = score_source('train[5:]+test')
  uids = scored.records.seriesuid
  first = score_source('train[:5]').records.seriesuid
  expected = int(np.isin(uids, first).sum())
  assert 0 < expected < len(uids)
  assert overlap.num_trained_on(runs, scored) == expected


def test_members_of_an_ensemble_are_all_compared(
  trained, trained_on_part, score_source, tmp_path
):
  runs = open_changed(trained, tmp_path / 'run', train_split='test')
  scored = score_source('test+train')
  assert overlap.num_trained_on(runs, scored) == np.sum(scored.records.subset == 9)
  other = trained_run.open_runs([str(trained_on_part)])
  assert overlap.num_trained_on([*runs, *other], scored) == len(scored.records)


def test_it_is_not_known_without_the_dataset_of_the_training(
  trained_on_part, score_source, tmp_path
):
  runs = open_changed(trained_on_part, tmp_path / 'run', data_dir='/nowhere')
  assert overlap.num_trained_on(runs, score_source('test')) is None


def test_it_is_not_known_if_the_dataset_was_replaced(
  trained_on_part, score_source, tmp_path
):
  # Another dataset than the fingerprint says.
  dataset = 'luna16_patches/axial_50px_all'
  runs = open_changed(trained_on_part, tmp_path / 'run', dataset=dataset)
  assert overlap.num_trained_on(runs, score_source('test')) is None


def test_without_scans_the_records_of_one_dataset_are_compared(trained, score_source):
  runs = trained_run.open_runs([str(trained)])
  scored = score_source('test+train[:7]')
  unknown = dataclasses.replace(
    scored.records, seriesuid=np.full(len(scored.records), '', object)
  )
  scored = dataclasses.replace(scored, records=unknown)
  assert overlap.num_trained_on(runs, scored) == 7


def test_without_scans_another_dataset_cannot_be_compared(
  trained_on_part, score_source
):
  runs = trained_run.open_runs([str(trained_on_part)])
  scored = score_source('test')
  unknown = fake_scores.make_records([{}] * len(scored.records))
  scored = dataclasses.replace(scored, records=unknown)
  assert overlap.num_trained_on(runs, scored) is None
