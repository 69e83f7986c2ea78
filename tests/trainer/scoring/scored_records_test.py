import dataclasses

import fake_scores
import numpy as np
import pytest
import tensorflow_datasets as tfds

import luna_tfds  # noqa: F401, registers the dataset
from luna_tfds.command_line import progress
from trainer.scoring import inference
from trainer.scoring import scored_records

SPLIT = 'validation+test'


@pytest.fixture(scope='module')
def stored(data_dir):
  """The records of `SPLIT` as TFDS reads them."""
  dataset = tfds.load(
    'luna16_patches/axial_50px_all', data_dir=str(data_dir), split=SPLIT
  )
  return list(tfds.as_numpy(dataset))


@pytest.fixture(scope='module')
def source(opened_dataset):
  return opened_dataset.open_split(SPLIT)


@pytest.fixture(scope='module')
def model(trained):
  return inference.load_model(trained / 'model.keras')


@pytest.fixture(scope='module')
def records(model, source):
  return scored_records.score_split([model], source, batch_size=7)


def test_every_record_is_scored_once_with_its_features(records, stored, model):
  key_of = {
    f'{r["seriesuid"].decode()}/{r["candidate_id"]}': number
    for number, r in enumerate(stored)
  }
  assert len(records) == len(stored)
  assert set(records.keys) == set(key_of)
  in_order = [stored[key_of[key]] for key in records.keys]
  for field in dataclasses.fields(records):
    found = getattr(records, field.name)
    if field.name == 'probability':
      expected = model.probabilities(np.stack([r['image'] for r in in_order]))
      np.testing.assert_allclose(found, expected, rtol=1e-5)
    else:
      expected = np.array([r[field.name] for r in in_order])
      if field.name == 'seriesuid':
        expected = expected.astype(str)
      np.testing.assert_array_equal(found, expected, err_msg=field.name)


def test_records_are_grouped_by_scan():
  records = fake_scores.make_records(
    [{'scan': 'b', 'label': 1}, {'scan': 'a'}, {'scan': 'b'}]
  )
  assert records.groups.tolist() == ['b', 'a', 'b']
  assert records.scans_known
  assert records.num_scans == 2
  assert records.has_both_classes


def test_a_record_of_an_unknown_scan_is_a_group_of_its_own():
  records = fake_scores.make_records([{}, {}, {}])
  assert len(set(records.groups)) == 3
  assert not records.scans_known
  assert records.num_scans is None
  assert not records.has_both_classes


def test_concatenated_records_keep_their_order():
  parts = [fake_scores.random_records(seed, count=5) for seed in (1, 2)]
  joined = scored_records.concatenate(parts)
  for field in dataclasses.fields(joined):
    first, second = (getattr(part, field.name) for part in parts)
    np.testing.assert_array_equal(
      getattr(joined, field.name), np.concatenate([first, second])
    )


def test_progress_of_scoring_is_displayed(model, source, monkeypatch, capsys):
  monkeypatch.setattr(progress, '_LINE_SECS', 0.0)
  scored_records.score_split([model], source, batch_size=7)
  last = capsys.readouterr().err.splitlines()[-1]
  count = source.num_records
  assert last.startswith(f'scoring {SPLIT}: {count}/{count} records, ')
