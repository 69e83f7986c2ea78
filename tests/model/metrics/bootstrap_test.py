import hypothesis
from hypothesis import strategies as st
import numpy as np
import pytest
from sklearn import metrics as sk

from model.metrics import bootstrap
from model.metrics import classification
from model.metrics.resampling import Difference
from model.metrics.resampling import Interval
from model.metrics.resampling import Resampling
from model.metrics.resampling import ScanIndex
from model.metrics.resampling import draw_scan_weights


def make_records(seed=0, n=300, scans=12, ties=True):
  """(labels, probabilities, predicted, scan ids); scans differ in size."""
  rng = np.random.default_rng(seed)
  labels = (rng.random(n) < 0.3).astype(int)
  p = np.clip(0.3 * labels + 0.7 * rng.random(n), 0, 1)
  if ties:
    p = np.round(p, 1)
  scan_ids = [f'scan{k}' for k in rng.integers(0, scans, n) ** 2 % scans]
  return labels, p, p >= 0.5, np.array(scan_ids, object)


def resampled_metrics(labels, p, predicted, scan_ids):
  return bootstrap.ResampledMetrics(labels, p, predicted, ScanIndex.from_ids(scan_ids))


def metrics_by_scikit_learn(labels, p, predicted, weights):
  w = {'sample_weight': weights}
  return {
    'accuracy': sk.accuracy_score(labels, predicted, **w),
    'precision': sk.precision_score(labels, predicted, **w),
    'recall': sk.recall_score(labels, predicted, **w),
    'specificity': sk.recall_score(labels, predicted, pos_label=0, **w),
    'f1': sk.f1_score(labels, predicted, **w),
    'roc_auc': sk.roc_auc_score(labels, p, **w),
    'pr_auc': sk.average_precision_score(labels, p, **w),
    'brier': sk.brier_score_loss(labels, p, **w),
  }


@hypothesis.given(st.integers(0, 2**32 - 1), st.booleans())
def test_metrics_equal_scikit_learns_with_weights(seed, ties):
  labels, p, predicted, scan_ids = make_records(seed, n=60, scans=8, ties=ties)
  scans = ScanIndex.from_ids(scan_ids)
  scan_weights = np.random.default_rng(seed).integers(0, 4, scans.num_scans)
  weights = scan_weights[scans.of_record].astype(float)
  drawn = weights > 0
  hypothesis.assume(len(np.unique(labels[drawn])) == 2)
  hypothesis.assume((drawn & predicted).any())
  found = bootstrap.ResampledMetrics(labels, p, predicted, scans).compute(scan_weights)
  for name, value in metrics_by_scikit_learn(labels, p, predicted, weights).items():
    assert found.value(name) == pytest.approx(value, abs=1e-12), name


@pytest.mark.parametrize('ties', [True, False])
def test_weight_of_two_equals_records_that_are_there_twice(ties):
  labels, p, predicted, scan_ids = make_records(3, ties=ties)
  scans = ScanIndex.from_ids(scan_ids)
  resampled = bootstrap.ResampledMetrics(labels, p, predicted, scans)
  for scan_weights in draw_scan_weights(scans.num_scans, Resampling(20, seed=5)):
    rows = np.repeat(np.arange(len(labels)), scan_weights[scans.of_record])
    expected = classification.classification_metrics(
      labels[rows], p[rows], predicted[rows]
    )
    found = resampled.compute(scan_weights)
    for name in classification.METRICS:
      assert found.value(name) == pytest.approx(expected.value(name), abs=1e-12), name


def test_intervals_are_percentiles_of_explicit_resamples():
  labels, p, predicted, scan_ids = make_records(7)
  names = np.unique(scan_ids)
  rows_of = [np.flatnonzero(scan_ids == name) for name in names]
  rng = np.random.default_rng(11)
  resampled = []
  for _ in range(100):
    picks = rng.integers(len(names), size=len(names))
    rows = np.concatenate([rows_of[k] for k in picks])
    resampled.append(
      classification.classification_metrics(labels[rows], p[rows], predicted[rows])
    )
  found = bootstrap.metric_intervals(
    labels, p, predicted, scan_ids, Resampling(100, seed=11)
  )
  assert tuple(found) == classification.METRICS
  for name, interval in found.items():
    values = [metrics.value(name) for metrics in resampled]
    expected = np.quantile(values, [0.025, 0.975])
    np.testing.assert_allclose(interval.to_json(), expected, err_msg=name)


def test_rate_intervals_equal_the_metric_intervals():
  labels, p, predicted, scan_ids = make_records(2)
  resampling = Resampling(50, seed=4)
  all_metrics = bootstrap.metric_intervals(labels, p, predicted, scan_ids, resampling)
  rates = bootstrap.rate_intervals(labels, predicted, scan_ids, resampling)
  assert tuple(rates) == classification.RATES
  for name, interval in rates.items():
    np.testing.assert_allclose(interval.to_json(), all_metrics[name].to_json())


def test_mean_interval_of_detections_is_that_of_the_recall():
  labels, _, predicted, scan_ids = make_records(9)
  nodules = labels == 1
  resampling = Resampling(80, seed=1)
  found = bootstrap.mean_interval(predicted[nodules], scan_ids[nodules], resampling)
  recall = bootstrap.rate_intervals(
    labels[nodules], predicted[nodules], scan_ids[nodules], resampling
  )['recall']
  np.testing.assert_allclose(found.to_json(), recall.to_json())
  assert found.lower < predicted[nodules].mean() < found.upper


def test_seed_determines_the_intervals():
  records = make_records()
  first = bootstrap.metric_intervals(*records, Resampling(20, seed=1))
  assert first == bootstrap.metric_intervals(*records, Resampling(20, seed=1))
  assert first != bootstrap.metric_intervals(*records, Resampling(20, seed=2))


def test_records_of_a_scan_are_drawn_together():
  # All records of one scan are right, all of the other are wrong. When scans are drawn,
  # the accuracy is 0, 1/2 or 1; when records are drawn, it is close to 1/2.
  labels = np.tile([0, 1], 50)
  scan_ids = np.repeat(['a', 'b'], 50)
  predicted = np.where(scan_ids == 'a', labels, 1 - labels).astype(bool)
  records = (labels, predicted.astype(float), predicted)
  by_scan = bootstrap.metric_intervals(*records, scan_ids, Resampling(200))
  assert by_scan['accuracy'] == Interval(0, 1)
  by_record = bootstrap.metric_intervals(*records, np.arange(100), Resampling(200))
  assert 0.3 < by_record['accuracy'].lower < 0.5 < by_record['accuracy'].upper < 0.7


def test_interval_is_nan_if_the_metric_is_undefined_in_all_resamples():
  p = np.array([0.1, 0.8, 0.3])
  found = bootstrap.metric_intervals(
    np.zeros(3, int), p, p > 0.9, np.arange(3), Resampling(10)
  )
  for name in ('precision', 'recall', 'roc_auc', 'pr_auc'):
    assert np.isnan(found[name].to_json()).all(), name
  assert found['specificity'] == found['accuracy'] == Interval(1, 1)
  assert np.isfinite([found['brier'].to_json(), found['ece'].to_json()]).all()


def test_intervals_without_resamples_are_nan():
  labels, p, predicted, scan_ids = make_records()
  found = bootstrap.metric_intervals(labels, p, predicted, scan_ids, Resampling(0))
  rates = bootstrap.rate_intervals(labels, predicted, scan_ids, Resampling(0))
  for interval in (*found.values(), *rates.values()):
    assert np.isnan(interval.to_json()).all()


def test_resamples_of_one_class_are_left_out():
  # Half of the resamples of two scans hold one class only.
  labels, p = np.array([0, 0, 1, 1]), np.array([0.1, 0.2, 0.8, 0.9])
  scan_ids = np.array(['a', 'a', 'b', 'b'])
  found = bootstrap.metric_intervals(labels, p, p > 0.5, scan_ids, Resampling(50))
  assert found['roc_auc'] == Interval(1, 1)


def test_classifier_does_not_differ_from_itself():
  metrics = resampled_metrics(*make_records())
  found = bootstrap.paired_differences(
    metrics, metrics, ('pr_auc', 'f1'), Resampling(20)
  )
  no_difference = Difference(0.0, Interval(0.0, 0.0), 1.0)
  assert found == {'pr_auc': no_difference, 'f1': no_difference}


def test_both_classifiers_are_measured_in_the_same_resamples():
  labels, p, predicted, scan_ids = make_records(4)
  worse = np.round(np.random.default_rng(0).random(len(p)), 1)
  found = bootstrap.paired_differences(
    resampled_metrics(labels, p, predicted, scan_ids),
    resampled_metrics(labels, worse, worse > 0.5, scan_ids),
    ('pr_auc',),
    Resampling(60, seed=2),
  )['pr_auc']

  def difference(weights):
    return sk.average_precision_score(
      labels, p, sample_weight=weights
    ) - sk.average_precision_score(labels, worse, sample_weight=weights)

  scans = ScanIndex.from_ids(scan_ids)
  resampled = [
    difference(weights[scans.of_record])
    for weights in draw_scan_weights(scans.num_scans, Resampling(60, seed=2))
  ]
  lower, upper = np.quantile(resampled, [0.025, 0.975])
  assert found.to_json() == {
    'difference': pytest.approx(difference(np.ones(len(p)))),
    'lower': pytest.approx(lower),
    'upper': pytest.approx(upper),
    'p_value': found.p_value,
  }
  assert found.interval.lower > 0


def test_undefined_difference_is_nan():
  labels = np.zeros(4, int)
  metrics = resampled_metrics(labels, np.full(4, 0.2), labels > 0, np.arange(4))
  found = bootstrap.paired_differences(metrics, metrics, ('roc_auc',), Resampling(5))
  assert np.isnan(list(found['roc_auc'].to_json().values())).all()


def test_classifiers_on_different_scans_are_not_compared():
  a = resampled_metrics(*make_records(scans=5))
  b = resampled_metrics(*make_records(scans=12))
  with pytest.raises(ValueError, match='same scans'):
    bootstrap.paired_differences(a, b, ('f1',), Resampling(5))
