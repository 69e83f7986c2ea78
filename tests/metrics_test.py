import itertools

import hypothesis
from hypothesis import strategies as st
import numpy as np
import pytest
from sklearn import metrics as sk

from model import metrics

# Hand-made: sorted by probability the labels are 1 1 0 1 0 0 1 0.
PROBABILITIES = np.array([0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.1])
LABELS = np.array([1, 1, 0, 1, 0, 0, 1, 0])


@st.composite
def classified(draw, both=True):
  """(labels, probabilities) with ties, probabilities 0 and 1, any order."""
  n = draw(st.integers(2, 40))
  labels = draw(st.lists(st.integers(0, 1), min_size=n, max_size=n))
  if both:
    hypothesis.assume(0 < sum(labels) < n)
  steps = st.integers(0, 12).map(lambda k: k / 12)
  anything = st.floats(0, 1, allow_nan=False)
  p = draw(st.lists(st.one_of(steps, anything), min_size=n, max_size=n))
  return np.array(labels), np.array(p)


def test_figures_by_hand():
  found = metrics.summary(LABELS, PROBABILITIES, PROBABILITIES >= 0.55)
  assert found['confusion_matrix'] == {
    'true_positives': 3,
    'false_positives': 1,
    'false_negatives': 1,
    'true_negatives': 3,
  }
  assert (found['records'], found['nodules']) == (8, 4)
  for name in ('accuracy', 'precision', 'recall', 'specificity', 'f1'):
    assert found[name] == 0.75, name
  # Pairs in the right order: 4 + 4 + 3 + 1 of 16.
  assert found['roc_auc'] == 12 / 16
  assert found['pr_auc'] == pytest.approx((1 + 1 + 3 / 4 + 4 / 7) / 4)
  assert found['brier'] == pytest.approx(np.mean((PROBABILITIES - LABELS) ** 2))


@hypothesis.given(classified(), st.floats(0, 1))
def test_figures_are_those_of_scikit_learn(records, threshold):
  labels, p = records
  called = p >= threshold
  found = metrics.summary(labels, p, called)
  assert found['roc_auc'] == pytest.approx(sk.roc_auc_score(labels, p))
  assert found['pr_auc'] == pytest.approx(sk.average_precision_score(labels, p))
  assert found['brier'] == pytest.approx(sk.brier_score_loss(labels, p))
  assert found['accuracy'] == pytest.approx(sk.accuracy_score(labels, called))
  assert found['recall'] == pytest.approx(sk.recall_score(labels, called))
  specificity = sk.recall_score(labels, called, pos_label=0)
  assert found['specificity'] == pytest.approx(specificity)
  assert found['f1'] == pytest.approx(sk.f1_score(labels, called))
  if called.any():
    assert found['precision'] == pytest.approx(sk.precision_score(labels, called))
  else:
    assert found['precision'] is None


@pytest.mark.parametrize('label', [0, 1])
def test_what_needs_both_classes_is_none_with_one(label):
  labels = np.full(4, label)
  p = np.array([0.1, 0.2, 0.3, 0.9])
  found = metrics.summary(labels, p, p >= 0.5)
  assert found['roc_auc'] is None
  assert found['pr_auc'] is None
  assert found['recall'] == (0.25 if label else None)
  assert found['specificity'] == (None if label else 0.75)
  assert found['brier'] == pytest.approx(np.mean((p - label) ** 2))


def test_calibration_by_hand():
  labels = np.array([0, 1, 1, 1])
  p = np.array([0.1, 0.2, 0.6, 1.0])
  mean, share, counts = metrics.calibration_bins(labels, p, bins=2)
  np.testing.assert_allclose(mean, [0.15, 0.8])
  np.testing.assert_allclose(share, [0.5, 1.0])
  np.testing.assert_array_equal(counts, [2, 2])
  error = metrics.expected_calibration_error(labels, p, bins=2)
  assert error == pytest.approx(0.5 * 0.35 + 0.5 * 0.2)


def test_calibration_has_no_empty_bin():
  _, _, counts = metrics.calibration_bins(np.array([0, 1]), np.array([0.0, 1.0]))
  np.testing.assert_array_equal(counts, [1, 1])


@pytest.mark.parametrize(
  ('rule', 'threshold'),
  [
    ('max_f1', 0.55),  # F1 6/8; at 0.2 it is 8/11
    ('precision:0.75', 0.55),
    ('precision:0.57', 0.2),
    ('precision:1', 0.75),
    ('recall:0.5', 0.75),
    ('recall:0.51', 0.55),
    ('recall:1', 0.2),
    ('recall:0', 0.85),
    ('specificity:1', 0.75),
    ('specificity:0.75', 0.55),
    ('specificity:0.5', 0.45),
    ('specificity:0', 0.05),
    ('0.4', 0.4),
    ('1', 1.0),
  ],
)
def test_threshold_by_hand(rule, threshold):
  order = np.random.default_rng(0).permutation(len(LABELS))
  found = metrics.choose_threshold(LABELS[order], PROBABILITIES[order], rule)
  assert found == pytest.approx(threshold)


def test_threshold_does_not_part_equal_probabilities():
  labels = np.array([1, 0, 1, 0])
  p = np.array([0.7, 0.7, 0.7, 0.2])
  assert metrics.choose_threshold(labels, p, 'recall:0.1') == pytest.approx(0.45)
  # No threshold reaches it; calling the three is nearest.
  assert metrics.choose_threshold(labels, p, 'precision:0.9') == pytest.approx(0.45)


def test_specificity_that_no_threshold_reaches():
  labels, p = np.array([0, 1, 0, 0]), np.array([0.9, 0.8, 0.3, 0.2])
  # Calling the uppermost already costs a third.
  assert metrics.choose_threshold(labels, p, 'specificity:0.9') == pytest.approx(0.85)


def test_a_target_that_is_just_reached_is_reached():
  # 1 - 9 / 10 is less than 0.1 in floating point, (10 - 9) / 10 is not.
  labels, p = np.array([1] + [0] * 10), np.linspace(1, 0.1, 11)
  threshold = metrics.choose_threshold(labels, p, 'specificity:0.1')
  assert np.sum(p[1:] >= threshold) == 9


def test_threshold_between_neighbouring_numbers_calls_the_upper_only():
  lower = 0.5
  upper = np.nextafter(lower, 1)
  threshold = metrics.choose_threshold(
    np.array([1, 0]), np.array([upper, lower]), 'max_f1'
  )
  assert lower < threshold <= upper


@hypothesis.given(classified(), st.floats(0, 1))
def test_max_f1_is_the_best_there_is(records, other):
  labels, p = records
  threshold = metrics.choose_threshold(labels, p, 'max_f1')
  best = sk.f1_score(labels, p >= threshold)
  assert best >= sk.f1_score(labels, p >= other, zero_division=0) - 1e-12


@hypothesis.given(
  classified(),
  st.sampled_from(['precision', 'recall', 'specificity']),
  st.integers(0, 20).map(lambda k: k / 20),
)
def test_target_is_reached_where_it_can_be(records, target, value):
  labels, p = records
  # A threshold above all calls nothing; no rule chooses it.
  of = {t: rates_at(labels, p, t)[target] for t in np.unique(p)}
  chosen = metrics.at_target(labels, p, target, value)
  reaching = [t for t, rate in of.items() if rate >= value]
  if not reaching:
    assert chosen[target] == pytest.approx(max(of.values()))
    return
  assert chosen[target] >= value
  extreme = max(reaching) if target == 'recall' else min(reaching)
  np.testing.assert_array_equal(p >= chosen['threshold'], p >= extreme)


def rates_at(labels, p, threshold):
  return metrics.rates(metrics.confusion(labels, p >= threshold))


@pytest.mark.parametrize(
  'rule',
  ['', 'best', 'recall', 'recall:', 'recall:1.1', 'f1:0.5', '-0.5', '1.2.3', '2'],
)
def test_unknown_rules_are_refused(rule):
  with pytest.raises(ValueError, match=r'max_f1.*Received'):
    metrics.parse_threshold_rule(rule)


def test_no_threshold_without_records():
  with pytest.raises(ValueError, match='without records'):
    metrics.choose_threshold(np.array([]), np.array([]), 'max_f1')


def test_all_labellings_of_three_records_give_a_threshold_that_calls_something():
  p = np.array([0.2, 0.4, 0.6])
  for labels in itertools.product((0, 1), repeat=3):
    for rule in ('max_f1', 'precision:0.9', 'recall:0.9', 'specificity:0.9'):
      threshold = metrics.choose_threshold(np.array(labels), p, rule)
      assert (p >= threshold).any()
