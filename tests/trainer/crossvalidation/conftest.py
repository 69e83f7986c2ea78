"""Folds that no network has scored: their records are made at random."""

import dataclasses

import fake_data
import fake_scores
import numpy as np
import pytest

from luna_tfds.files import atomic_files
from model.metrics import classification
from model.metrics.resampling import Resampling
from trainer import config as config_lib
from trainer.crossvalidation import folds as folds_lib
from trainer.evaluation import split_metrics
from trainer.scoring import froc_submission

NUMBERS = (2, 5, 7)


def make_fold(number):
  """Makes 30 records of the three scans of a subset; some of them are nodules."""
  rng = np.random.default_rng(number)
  rows = []
  for k in range(30):
    label = int(k % 5 == 0)
    rows.append(
      {
        'scan': f'scan{number}.{k % 3}',
        'label': label,
        'probability': rng.random() * 0.6 + 0.4 * label,
        'subset': number,
        # Far apart, so that no mark hits the nodule of another one.
        'center_xyz_mm': (100.0 * k, 0.0, 0.0),
      }
    )
  records = fake_scores.make_records(rows)
  return records, records.probability >= 0.3 + 0.05 * number


@pytest.fixture(scope='module')
def fold_results():
  return [make_fold(number) for number in NUMBERS]


@pytest.fixture
def plans(opened_dataset, fold_results, tmp_path):
  """Plans of folds that are trained and scored, with their files."""
  made = []
  config = config_lib.TrainConfig(
    dataset='luna16_patches/axial_50px_all',
    data_dir='/data',
    model='nodule_net',
    recipe=config_lib.Recipe(),
    input=config_lib.InputConfig(batch_size=96),
  )
  for number, (records, predicted) in zip(NUMBERS, fold_results):
    plan = folds_lib.FoldPlan(
      number=number,
      config=config,
      path=tmp_path / f'fold{number}',
      train_fingerprint='f',
      test_dataset=opened_dataset,
      test_dataset_argument='luna16_patches/axial_50px_all',
      test_split=f'train[{number}shard:{number + 1}shard]',
    )
    plan.path.mkdir()
    folds_lib.write_scores(plan.scores_file, records, predicted)
    metrics = classification.classification_metrics(
      records.label, records.probability, predicted
    )
    fields = {**metrics.to_json(), 'by_subset': [], 'article': {}, 'split': 'train'}
    atomic_files.write_json(plan.metrics_file, fields)
    made.append(plan)
  return made


@pytest.fixture
def reference(fold_results, tmp_path):
  """The nodules are the records with label 1, and one that no record hits."""
  nodules = [
    (seriesuid, *center, 6.0)
    for records, _ in fold_results
    for seriesuid, center, label in zip(
      records.seriesuid, records.center_xyz_mm.tolist(), records.label
    )
    if label
  ]
  nodules.append((nodules[0][0], -500.0, 0.0, 0.0, 6.0))
  path = fake_data.write_findings(tmp_path / 'annotations.csv', nodules)
  return froc_submission.read_reference(path, None, None)


@pytest.fixture
def first_fold_excluded(plans, fold_results):
  """Makes all records of the first fold excluded findings."""
  records, predicted = fold_results[0]
  only = dataclasses.replace(records, excluded=np.ones(len(records), bool))
  folds_lib.write_scores(plans[0].scores_file, only, predicted)
  pooled = split_metrics.compute(only, predicted, None, Resampling(resamples=0))
  atomic_files.write_json(plans[0].metrics_file, pooled.to_json())
