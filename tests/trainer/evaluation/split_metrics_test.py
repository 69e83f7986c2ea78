import dataclasses

import fake_scores
import numpy as np
import pytest
from sklearn import metrics as sklearn_metrics

from luna_tfds import patches
from model.metrics.classification import METRICS
from model.metrics.resampling import Resampling
from trainer.evaluation import split_metrics

NO_INTERVALS = Resampling(resamples=0)
STORED_SPACING = patches.PatchSpec()
RESAMPLED = patches.PatchSpec(spacing_mm=1.0)


@pytest.fixture(scope='module')
def records():
  return fake_scores.random_records(
    1, subset=4, thickness_mm=1.25, nodule_id=3, diameter_mm=6.0
  )


def compute(records, resampling=NO_INTERVALS, patch=STORED_SPACING):
  return split_metrics.compute(records, records.probability >= 0.5, patch, resampling)


def test_metrics_are_those_of_scikit_learn(records):
  found = compute(records)
  labels, probabilities = records.label, records.probability
  predicted = probabilities >= 0.5
  for name, function in (
    ('accuracy', sklearn_metrics.accuracy_score),
    ('precision', sklearn_metrics.precision_score),
    ('recall', sklearn_metrics.recall_score),
    ('f1', sklearn_metrics.f1_score),
  ):
    assert found.classification.value(name) == pytest.approx(
      function(labels, predicted)
    )
  expected = sklearn_metrics.average_precision_score(labels, probabilities)
  assert found.classification.pr_auc == pytest.approx(expected)
  assert found.scans == 40
  assert found.classification.records == 400


def test_rates_at_the_target_are_those_of_its_threshold(records):
  found = compute(records)
  assert [row.target for row in found.targets] == [
    'precision >= 0.893',
    'specificity >= 0.982',
    'recall >= 0.8',
    'recall >= 0.9',
    'recall >= 0.95',
    'recall >= 0.99',
  ]
  for row in found.targets[1:]:
    name, _, value = row.target.partition(' >= ')
    predicted = records.probability >= row.result.threshold
    recall = sklearn_metrics.recall_score(records.label, predicted)
    assert row.result.rates.recall == pytest.approx(recall)
    assert row.result.rates.value(name) >= float(value)
    assert row.intervals == {}


def test_every_metric_has_an_interval(records):
  found = compute(records, Resampling(resamples=40, seed=2))
  fields = found.to_json()
  assert set(fields['intervals']) == set(METRICS)
  assert fields['bootstrap'] == {'resamples': 40, 'seed': 2, 'unit': 'scans'}
  for name in ('pr_auc', 'recall', 'brier'):
    lower, upper = fields['intervals'][name]
    assert lower < fields[name] < upper
  for row in fields['operating_points']:
    assert set(row['intervals']) == {
      'accuracy',
      'precision',
      'recall',
      'specificity',
      'f1',
    }
  for table in ('by_diameter', 'by_subset', 'by_slice_thickness'):
    assert all(set(row['intervals']) < set(row) for row in fields[table])


def test_without_resamples_there_are_no_intervals(records):
  fields = compute(records).to_json()
  assert not {'intervals', 'bootstrap'} & set(fields)
  assert all('intervals' not in row for row in fields['by_subset'])


def test_records_are_resampled_where_scans_are_unknown():
  records = fake_scores.make_records(
    [{'label': k % 2, 'probability': k / 10} for k in range(10)]
  )
  found = compute(records, Resampling(resamples=10))
  assert found.resampled_unit == 'records'
  assert found.scans is None
  fields = found.to_json()
  assert fields['bootstrap']['unit'] == 'records'
  # Tables without rows are left out.
  assert not {'by_diameter', 'by_subset', 'by_slice_thickness'} & set(fields)


@pytest.mark.parametrize(
  ('patch', 'has_table'), [(STORED_SPACING, True), (None, True), (RESAMPLED, False)]
)
def test_resampled_images_do_not_tell_the_slice_thickness(records, patch, has_table):
  found = compute(records, patch=patch)
  assert bool(found.by_slice_thickness) is has_table
  assert found.by_diameter
  assert found.by_subset


def test_one_class_has_no_targets_and_no_areas():
  records = fake_scores.make_records([{'scan': 'a'}, {'scan': 'b'}])
  found = compute(records, Resampling(resamples=5))
  assert found.targets == ()
  assert np.isnan(found.classification.pr_auc)
  assert np.isnan(found.intervals['roc_auc'].lower)


def with_excluded(records, seed=4):
  """The records, of which a third of the non-nodules hit an excluded finding."""
  some = np.random.default_rng(seed).random(len(records)) < 1 / 3
  return dataclasses.replace(records, excluded=some & (records.label == 0))


def test_excluded_findings_do_not_count(records):
  excluded = with_excluded(records)
  resampling = Resampling(resamples=30)
  found = compute(excluded, resampling)
  expected = compute(records.select(~excluded.excluded), resampling)
  fields, of_expected = found.to_json(), expected.to_json()
  count = int(excluded.excluded.sum())
  assert fields.pop('excluded_records') == count > 50
  assert of_expected.pop('excluded_records') == 0
  del fields['all_candidates'], of_expected['all_candidates']
  assert fields == of_expected


def test_all_candidates_count_excluded_findings_as_non_nodules(records):
  resampling = Resampling(resamples=30)
  found = compute(with_excluded(records), resampling).to_json()['all_candidates']
  everything = compute(records, resampling).to_json()
  assert found == {name: everything[name] for name in found}
  assert found == everything['all_candidates']
  assert found['records'] == 400
  assert set(found['intervals']) == set(METRICS)


@pytest.mark.parametrize('resamples', [0, 3])
def test_metrics_of_excluded_findings_only_are_undefined(records, resamples):
  only = dataclasses.replace(records, excluded=np.ones(len(records), bool))
  found = compute(only, Resampling(resamples=resamples))
  assert all(np.isnan(found.classification.value(name)) for name in METRICS)
  assert all(np.isnan(interval.lower) for interval in found.intervals.values())
  assert (found.classification.records, found.num_excluded, found.scans) == (0, 400, 0)
  assert found.all_candidates == compute(records, found.resampling).all_candidates
  assert found.warnings == []
  assert split_metrics.only_excluded_warnings(records) == []
  (warning,) = split_metrics.only_excluded_warnings(only)
  assert 'all 400 records hit excluded findings' in warning
