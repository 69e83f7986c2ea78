import hypothesis
from hypothesis import strategies as st
import numpy as np
import pytest
from sklearn import metrics as sk

from model import bootstrap
from model import metrics


def make_records(seed=0, n=300, scans=12, ties=True):
  """(labels, probabilities, called, scan names); scans differ in size."""
  rng = np.random.default_rng(seed)
  labels = (rng.random(n) < 0.3).astype(int)
  p = np.clip(0.3 * labels + 0.7 * rng.random(n), 0, 1)
  if ties:
    p = np.round(p, 1)
  groups = np.array([f'scan{k}' for k in rng.integers(0, scans, n) ** 2 % scans])
  return labels, p, p >= 0.5, groups.astype(object)


def by_sklearn(labels, p, called, weights):
  """The figures by scikit-learn's `sample_weight`."""
  w = {'sample_weight': weights}
  return {
    'accuracy': sk.accuracy_score(labels, called, **w),
    'precision': sk.precision_score(labels, called, **w),
    'recall': sk.recall_score(labels, called, **w),
    'specificity': sk.recall_score(labels, called, pos_label=0, **w),
    'f1': sk.f1_score(labels, called, **w),
    'roc_auc': sk.roc_auc_score(labels, p, **w),
    'pr_auc': sk.average_precision_score(labels, p, **w),
    'brier': sk.brier_score_loss(labels, p, **w),
  }


@hypothesis.given(st.integers(0, 2**32 - 1), st.booleans())
def test_figures_are_those_of_scikit_learn_with_weights(seed, ties):
  labels, p, called, groups = make_records(seed, n=60, scans=8, ties=ties)
  scan, scans = bootstrap.number_groups(groups)
  times = np.random.default_rng(seed).integers(0, 4, scans)
  weights = times[scan].astype(float)
  drawn = weights > 0
  hypothesis.assume(len(np.unique(labels[drawn])) == 2)
  hypothesis.assume((drawn & called).any())
  found = bootstrap.Figures(labels, p, called, scan, scans)(times)
  for name, value in by_sklearn(labels, p, called, weights).items():
    assert found[name] == pytest.approx(value, abs=1e-12), name


@pytest.mark.parametrize('ties', [True, False])
def test_drawing_a_scan_twice_is_having_its_records_twice(ties):
  labels, p, called, groups = make_records(3, ties=ties)
  scan, scans = bootstrap.number_groups(groups)
  for times in bootstrap.draws(scans, 20, seed=5):
    rows = np.repeat(np.arange(len(labels)), times[scan])
    expected = metrics.summary(labels[rows], p[rows], called[rows])
    found = bootstrap.Figures(labels, p, called, scan, scans)(times)
    for name in bootstrap.INTERVAL_METRICS:
      assert found[name] == pytest.approx(expected[name], abs=1e-12), name


def test_every_figure_of_the_summary_has_an_interval():
  labels, p, called, groups = make_records()
  counts = {'records', 'nodules', 'confusion_matrix'}
  figures = set(metrics.summary(labels, p, called)) - counts
  assert set(bootstrap.intervals(labels, p, called, groups, resamples=3)) == figures


def test_intervals_are_percentiles_of_explicit_resamples():
  labels, p, called, groups = make_records(7)
  names = np.unique(groups)
  rows_of = [np.flatnonzero(groups == name) for name in names]
  rng = np.random.default_rng(11)
  drawn = []
  for _ in range(100):
    picks = rng.integers(len(names), size=len(names))
    rows = np.concatenate([rows_of[k] for k in picks])
    drawn.append(metrics.summary(labels[rows], p[rows], called[rows]))
  found = bootstrap.intervals(labels, p, called, groups, resamples=100, seed=11)
  for name in bootstrap.INTERVAL_METRICS:
    values = [d[name] for d in drawn]
    expected = np.quantile(values, [0.025, 0.975])
    np.testing.assert_allclose(found[name], expected, err_msg=name)


def test_rate_intervals_are_those_of_the_figures():
  labels, p, called, groups = make_records(2)
  whole = bootstrap.intervals(labels, p, called, groups, resamples=50, seed=4)
  rates = bootstrap.rate_intervals(labels, called, groups, resamples=50, seed=4)
  assert set(rates) == set(bootstrap.RATES)
  for name, bounds in rates.items():
    np.testing.assert_allclose(bounds, whole[name])


def test_mean_interval_is_that_of_a_recall():
  labels, _, called, groups = make_records(9)
  positive = labels == 1
  found = bootstrap.mean_interval(
    called[positive], groups[positive], resamples=80, seed=1
  )
  recall = bootstrap.rate_intervals(
    labels[positive], called[positive], groups[positive], resamples=80, seed=1
  )['recall']
  np.testing.assert_allclose(found, recall)
  assert found[0] < called[positive].mean() < found[1]


def test_seed_decides():
  records = make_records()
  one = bootstrap.intervals(*records, resamples=20, seed=1)
  assert one == bootstrap.intervals(*records, resamples=20, seed=1)
  assert one != bootstrap.intervals(*records, resamples=20, seed=2)


def test_records_of_a_scan_come_together():
  # One scan is all right, one all wrong: by scans the accuracy can be 0, 1/2 or 1, by
  # records it would stay near 1/2.
  labels = np.tile([0, 1], 50)
  groups = np.repeat(['a', 'b'], 50)
  called = np.where(groups == 'a', labels, 1 - labels).astype(bool)
  p = called.astype(float)
  found = bootstrap.intervals(labels, p, called, groups, resamples=200)
  assert found['accuracy'] == [0, 1]
  alone = np.arange(100)
  low, high = bootstrap.intervals(labels, p, called, alone, resamples=200)['accuracy']
  assert 0.3 < low < 0.5 < high < 0.7


def test_what_no_resample_defines_is_none():
  p = np.array([0.1, 0.8, 0.3])
  found = bootstrap.intervals(np.zeros(3, int), p, p > 0.9, np.arange(3), resamples=10)
  for name in ('precision', 'recall', 'roc_auc', 'pr_auc'):
    assert found[name] == [None, None], name
  assert found['specificity'] == [1, 1]
  assert found['accuracy'] == [1, 1]
  assert None not in found['brier'] + found['ece']


def test_resamples_that_lack_a_class_are_left_out():
  # Half of the resamples of two scans hold one class only.
  labels, p = np.array([0, 0, 1, 1]), np.array([0.1, 0.2, 0.8, 0.9])
  groups = np.array(['a', 'a', 'b', 'b'])
  found = bootstrap.intervals(labels, p, p > 0.5, groups, resamples=50)
  assert found['roc_auc'] == [1, 1]


def test_a_model_does_not_differ_from_itself():
  labels, p, called, groups = make_records()
  scan, scans = bootstrap.number_groups(groups)
  figures = bootstrap.Figures(labels, p, called, scan, scans)
  names = ('pr_auc', 'f1')
  found = bootstrap.paired_intervals(figures, figures, scans, names, resamples=20)
  nothing = {'difference': 0.0, 'lower': 0.0, 'upper': 0.0}
  assert found == {'pr_auc': nothing, 'f1': nothing}


def test_differences_are_of_the_same_resamples():
  labels, p, called, groups = make_records(4)
  worse = np.round(np.random.default_rng(0).random(len(p)), 1)
  scan, scans = bootstrap.number_groups(groups)
  a = bootstrap.Figures(labels, p, called, scan, scans)
  b = bootstrap.Figures(labels, worse, worse > 0.5, scan, scans)
  found = bootstrap.paired_intervals(a, b, scans, ('pr_auc',), resamples=60, seed=2)
  differences = [
    sk.average_precision_score(labels, p, sample_weight=times[scan])
    - sk.average_precision_score(labels, worse, sample_weight=times[scan])
    for times in bootstrap.draws(scans, 60, seed=2)
  ]
  low, high = np.quantile(differences, [0.025, 0.975])
  whole = sk.average_precision_score(labels, p) - sk.average_precision_score(
    labels, worse
  )
  assert found['pr_auc']['difference'] == pytest.approx(whole)
  assert found['pr_auc']['lower'] == pytest.approx(low)
  assert found['pr_auc']['upper'] == pytest.approx(high)
  assert found['pr_auc']['lower'] > 0


def test_undefined_differences_are_none():
  labels, scan = np.zeros(4, int), np.arange(4)
  figures = bootstrap.Figures(labels, np.full(4, 0.2), labels > 0, scan, 4)
  found = bootstrap.paired_intervals(figures, figures, 4, ('roc_auc',), resamples=5)
  assert found['roc_auc'] == {'difference': None, 'lower': None, 'upper': None}
