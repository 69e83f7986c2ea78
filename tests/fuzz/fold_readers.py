"""Readers of the files of a fold of a cross-validation."""

import json

import fake_scores
import input_files
import mutations
import numpy as np
from readers import Reader
from readers import mutate_one

from model.metrics.classification import METRICS
from trainer.crossvalidation import folds
from trainer.scoring import scored_records

_METRICS = {
  'records': 20,
  'nodules': 5,
  **dict.fromkeys(METRICS, 0.5),
  'warnings': ['few nodules'],
}


def _plan(folder):
  fields = dict.fromkeys(('config', 'train_fingerprint', 'test_dataset'))
  return folds.FoldPlan(
    number=1, path=folder, test_dataset_argument='', test_split='', **fields
  )


def _fold_seeds(folder):
  folder.mkdir()
  plan = _plan(folder)
  plan.write_state(trained={'config': {}}, scored={'format': 3, 'dataset': 'x'})
  plan.metrics_file.write_text(json.dumps(_METRICS))
  return [input_files.read(folder)]


def _read_fold(folder):
  plan = _plan(folder)
  plan.read_state().get('trained')
  plan.read_metrics()


def _scores_seeds(folder):
  folder.mkdir()
  records = fake_scores.random_records(0, count=20)
  folds.write_scores(folder / 'scores.npz', records, records.probability > 0.5)
  return [input_files.read(folder)]


def _mutate_scores(data, rng):
  return mutations.mutate_zip(
    data, rng, lambda name, content, rng: mutations.mutate_npy(content, rng)
  )


def _read_scores(folder):
  records, predicted = folds.read_scores(folder / 'scores.npz')
  merged = scored_records.concatenate([records, records])
  assert len(merged.groups) == 2 * len(predicted)
  assert np.isfinite(records.probability).all()


_ALL = (
  Reader(
    'fold',
    _fold_seeds,
    mutate_one(_json=mutations.mutate_json),
    _read_fold,
    ('trainer.crossvalidation.folds',),
  ),
  Reader(
    'scores',
    _scores_seeds,
    mutate_one(_npz=_mutate_scores),
    _read_scores,
    ('trainer.crossvalidation.folds', 'trainer.scoring.scored_records'),
  ),
)
READERS = {reader.name: reader for reader in _ALL}
