import hypothesis
from hypothesis import strategies as st
import numpy as np
import pytest
from sklearn import metrics as sk

from model.metrics import classification

# Made by hand: in descending order of probability the labels are 1 1 0 1 0 0 1 0.
PROBABILITIES = np.array([0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.1])
LABELS = np.array([1, 1, 0, 1, 0, 0, 1, 0])


@st.composite
def classified(draw):
  """(labels, probabilities) of both classes, with ties and the values 0 and 1."""
  n = draw(st.integers(2, 40))
  labels = draw(st.lists(st.integers(0, 1), min_size=n, max_size=n))
  hypothesis.assume(0 < sum(labels) < n)
  steps = st.integers(0, 12).map(lambda k: k / 12)
  p = draw(st.lists(st.one_of(steps, st.floats(0, 1)), min_size=n, max_size=n))
  return np.array(labels), np.array(p)


def test_metrics_of_a_case_made_by_hand():
  found = classification.classification_metrics(
    LABELS, PROBABILITIES, PROBABILITIES >= 0.55
  )
  assert found.confusion_matrix == classification.ConfusionMatrix(
    true_positives=3, false_positives=1, false_negatives=1, true_negatives=3
  )
  assert (found.records, found.nodules) == (8, 4)
  for name in classification.RATES:
    assert found.value(name) == 0.75, name
  # 4 + 4 + 3 + 1 of 16 pairs are in the right order.
  assert found.roc_auc == 12 / 16
  assert found.pr_auc == pytest.approx((1 + 1 + 3 / 4 + 4 / 7) / 4)
  errors = [0.1, 0.2, 0.7, 0.4, 0.5, 0.4, 0.7, 0.1]
  assert found.brier == pytest.approx(sum(e * e for e in errors) / 8)


@hypothesis.given(classified(), st.floats(0, 1))
def test_metrics_equal_scikit_learns(records, threshold):
  labels, p = records
  predicted = p >= threshold
  found = classification.classification_metrics(labels, p, predicted)
  tn, fp, fn, tp = sk.confusion_matrix(labels, predicted, labels=[0, 1]).ravel()
  assert found.confusion_matrix == classification.ConfusionMatrix(tp, fp, fn, tn)
  assert found.roc_auc == pytest.approx(sk.roc_auc_score(labels, p))
  assert found.pr_auc == pytest.approx(sk.average_precision_score(labels, p))
  assert found.brier == pytest.approx(sk.brier_score_loss(labels, p))
  assert found.accuracy == pytest.approx(sk.accuracy_score(labels, predicted))
  assert found.recall == pytest.approx(sk.recall_score(labels, predicted))
  specificity = sk.recall_score(labels, predicted, pos_label=0)
  assert found.specificity == pytest.approx(specificity)
  assert found.f1 == pytest.approx(sk.f1_score(labels, predicted))
  precision = sk.precision_score(labels, predicted, zero_division=np.nan)
  assert found.precision == pytest.approx(precision, nan_ok=True)


@pytest.mark.parametrize('label', [0, 1])
def test_metrics_that_need_both_classes_are_nan_with_one_class(label):
  labels = np.full(4, label)
  p = np.array([0.1, 0.2, 0.3, 0.9])
  found = classification.classification_metrics(labels, p, p >= 0.5)
  assert np.isnan([found.roc_auc, found.pr_auc]).all()
  assert found.recall == pytest.approx(0.25 if label else np.nan, nan_ok=True)
  assert found.specificity == pytest.approx(np.nan if label else 0.75, nan_ok=True)
  assert found.accuracy == (0.25 if label else 0.75)


def test_json_has_the_keys_of_metrics_json_in_their_order():
  found = classification.classification_metrics(
    LABELS, PROBABILITIES, PROBABILITIES >= 0.55
  ).to_json()
  assert list(found) == [
    'records',
    'nodules',
    'accuracy',
    'precision',
    'recall',
    'specificity',
    'f1',
    'roc_auc',
    'pr_auc',
    'brier',
    'ece',
    'confusion_matrix',
  ]
  assert found['confusion_matrix'] == {
    'true_positives': 3,
    'false_positives': 1,
    'false_negatives': 1,
    'true_negatives': 3,
  }
  assert {type(value) for value in found.values()} == {int, float, dict}


def test_each_metric_has_a_label():
  assert tuple(classification.METRIC_LABELS) == classification.METRICS
  assert tuple(classification.LONG_METRIC_LABELS) == classification.METRICS


def test_value_takes_metric_names_only():
  rates = classification.ConfusionMatrix(3, 1, 1, 3).rates()
  assert rates.value('precision') == 0.75
  for name in ('roc_auc', 'to_json', 'unknown'):
    with pytest.raises(KeyError, match=name):
      rates.value(name)


def test_rates_of_several_confusion_matrices():
  # Columns: an ordinary one, no nodule, no record.
  counts = np.array([[6, 0, 0], [2, 1, 0], [3, 0, 0], [9, 4, 0]])
  found = classification.rates_of_counts(counts)
  nan = np.nan
  np.testing.assert_allclose(found['accuracy'], [15 / 20, 4 / 5, nan])
  np.testing.assert_allclose(found['precision'], [6 / 8, 0, nan])
  np.testing.assert_allclose(found['recall'], [6 / 9, nan, nan])
  np.testing.assert_allclose(found['specificity'], [9 / 11, 4 / 5, nan])
  np.testing.assert_allclose(found['f1'], [12 / 17, 0, nan])


def test_confusion_counts_of_groups():
  counts = classification.confusion_counts(
    labels=np.array([1, 0, 1, 0, 1]),
    predicted=np.array([True, True, False, False, True]),
    group=np.array([2, 0, 0, 0, 2]),
    num_groups=3,
  )
  np.testing.assert_array_equal(counts, [[0, 1, 1, 1], [0, 0, 0, 0], [2, 0, 0, 0]])


def test_calibration_of_a_case_made_by_hand():
  labels = np.array([0, 1, 1, 1])
  p = np.array([0.1, 0.2, 0.6, 1.0])
  found = classification.calibration_bins(labels, p, bins=2)
  np.testing.assert_allclose(found.mean_probability, [0.15, 0.8])
  np.testing.assert_allclose(found.nodule_fraction, [0.5, 1.0])
  np.testing.assert_array_equal(found.records, [2, 2])
  error = classification.expected_calibration_error(labels, p, bins=2)
  assert error == pytest.approx(0.5 * 0.35 + 0.5 * 0.2)


def test_empty_calibration_bins_are_left_out():
  found = classification.calibration_bins(np.array([0, 1]), np.array([0.0, 1.0]))
  np.testing.assert_array_equal(found.records, [1, 1])


def test_metrics_of_no_record_are_undefined():
  none = np.zeros(0)
  found = classification.classification_metrics(none, none, none.astype(bool))
  assert all(np.isnan(found.value(name)) for name in classification.METRICS)
  assert (found.records, found.nodules) == (0, 0)
