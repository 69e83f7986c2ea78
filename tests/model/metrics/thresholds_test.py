import itertools

import hypothesis
from hypothesis import strategies as st
import numpy as np
import pytest
from sklearn import metrics as sk

from model.metrics import thresholds
from model.metrics.threshold_rule import ThresholdRule

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


def choose(labels, probabilities, text):
  return thresholds.choose_threshold(
    np.array(labels), np.array(probabilities), ThresholdRule.parse(text)
  )


@pytest.mark.parametrize(
  ('text', 'threshold'),
  [
    ('max_f1', 0.55),  # F1 is 6/8; at 0.2 it is 8/11
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
def test_thresholds_of_a_case_made_by_hand(text, threshold):
  order = np.random.default_rng(0).permutation(len(LABELS))
  found = choose(LABELS[order], PROBABILITIES[order], text)
  assert found == pytest.approx(threshold)


def test_threshold_does_not_separate_equal_probabilities():
  labels, p = [1, 0, 1, 0], [0.7, 0.7, 0.7, 0.2]
  assert choose(labels, p, 'recall:0.1') == pytest.approx(0.45)
  # No threshold reaches this precision; predicting the three comes closest.
  assert choose(labels, p, 'precision:0.9') == pytest.approx(0.45)


def test_specificity_that_no_threshold_reaches():
  # Predicting the highest record already is one false positive of three.
  labels, p = [0, 1, 0, 0], [0.9, 0.8, 0.3, 0.2]
  assert choose(labels, p, 'specificity:0.9') == pytest.approx(0.85)


def test_target_that_is_reached_exactly():
  # 1 - 9 / 10 is less than 0.1 in floating point, (10 - 9) / 10 is not.
  p = np.linspace(1, 0.1, 11)
  assert np.sum(p[1:] >= choose([1] + [0] * 10, p, 'specificity:0.1')) == 9


def test_threshold_between_adjacent_numbers_separates_them():
  lower = 0.5
  upper = np.nextafter(lower, 1)
  assert lower < choose([1, 0], [upper, lower], 'max_f1') <= upper


@pytest.mark.parametrize(
  ('label', 'text', 'threshold'),
  [
    (0, 'recall:0.5', 0.15),  # not reached: the lowest
    (0, 'max_f1', 0.85),
    (1, 'specificity:0.5', 0.15),  # no false positive anywhere: the lowest
    (1, 'precision:0.5', 0.15),
  ],
)
def test_records_of_one_class(label, text, threshold):
  assert choose([label] * 3, [0.9, 0.8, 0.3], text) == pytest.approx(threshold)


@hypothesis.given(classified(), st.floats(0, 1))
def test_no_threshold_has_a_higher_f1_than_max_f1(records, other):
  labels, p = records
  best = sk.f1_score(labels, p >= choose(labels, p, 'max_f1'))
  assert best >= sk.f1_score(labels, p >= other, zero_division=0) - 1e-12


@hypothesis.given(
  classified(),
  st.sampled_from(['precision', 'recall', 'specificity']),
  st.integers(0, 20).map(lambda k: k / 20),
)
def test_target_is_reached_if_a_threshold_reaches_it(records, target, value):
  labels, p = records

  def rate_at(threshold):
    tn, fp, fn, tp = sk.confusion_matrix(labels, p >= threshold).ravel()
    rates = {'precision': (tp, fp), 'recall': (tp, fn), 'specificity': (tn, fp)}
    part, rest = rates[target]
    return part / (part + rest)

  rates = {threshold: rate_at(threshold) for threshold in np.unique(p)}
  found = thresholds.rates_at_target(labels, p, ThresholdRule(target, value))
  assert found.rates.value(target) == rate_at(found.threshold)
  reaching = [threshold for threshold, rate in rates.items() if rate >= value]
  if not reaching:
    assert found.rates.value(target) == max(rates.values())
    return
  assert found.rates.value(target) >= value
  extreme = max(reaching) if target == 'recall' else min(reaching)
  np.testing.assert_array_equal(p >= found.threshold, p >= extreme)


def test_rates_at_a_target_as_json():
  found = thresholds.rates_at_target(
    LABELS, PROBABILITIES, ThresholdRule('recall', 0.5)
  )
  assert found.to_json() == {
    'threshold': 0.75,
    'accuracy': 0.75,
    'precision': 1.0,
    'recall': 0.5,
    'specificity': 1.0,
    'f1': pytest.approx(2 / 3),
  }


def test_threshold_cannot_be_chosen_without_records():
  with pytest.raises(ValueError, match='without records'):
    choose([], [], 'max_f1')
  assert choose([], [], '0.5') == 0.5


def test_each_labelling_of_three_records_gives_a_threshold_with_a_predicted_nodule():
  p = np.array([0.2, 0.4, 0.6])
  for labels in itertools.product((0, 1), repeat=3):
    for text in ('max_f1', 'precision:0.9', 'recall:0.9', 'specificity:0.9'):
      assert (p >= choose(labels, p, text)).any()
