"""Chooses the decision threshold of a classifier by a rule."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from model.metrics import classification
from model.metrics.threshold_rule import ThresholdRule


@dataclasses.dataclass(frozen=True)
class RatesAtThreshold:
  """A threshold, and the rates of the records that it was chosen on."""

  threshold: float
  rates: classification.Rates

  def to_json(self) -> dict[str, Any]:
    """Returns the threshold and the rates in one dict."""
    return {'threshold': self.threshold, **self.rates.to_json()}


def choose_threshold(
  labels: np.ndarray, probabilities: np.ndarray, rule: ThresholdRule
) -> float:
  """Chooses the threshold from which on a record is predicted to be a nodule.

  Args:
    labels: [n], 1 for nodules. To avoid bias, not of the records that are evaluated
      with the threshold.
    probabilities: [n].
    rule: for a precision or a specificity the lowest threshold that reaches it is
      chosen, for a recall the highest. The threshold lies half-way between the
      probabilities of two records.

  Returns:
    The threshold. If no threshold reaches the value of the rule, the one that comes
    closest.

  Raises:
    ValueError: there are no records, and the rule needs them.
  """
  if rule.fixed_threshold is not None:
    return rule.fixed_threshold
  if not len(labels):
    raise ValueError('a threshold cannot be chosen without records')
  order = np.argsort(probabilities, kind='stable')[::-1]
  p = np.asarray(probabilities, float)[order]
  is_nodule = np.asarray(labels)[order] == 1
  # No threshold separates records of equal probability; each candidate threshold lies
  # below the last of them.
  last_of_equals = np.flatnonzero(np.append(p[1:] != p[:-1], True))
  tp = np.cumsum(is_nodule)[last_of_equals]
  fp = np.cumsum(~is_nodule)[last_of_equals]
  counts = np.stack([tp, fp, is_nodule.sum() - tp, (~is_nodule).sum() - fp])
  last = last_of_equals[_choose_candidate(classification.rates_of_counts(counts), rule)]
  next_lower = p[last + 1] if last + 1 < len(p) else 0.0
  middle = (p[last] + next_lower) / 2
  # Between two adjacent floating-point numbers the middle may be rounded down.
  return float(middle if middle > next_lower else p[last])


def rates_at_target(
  labels: np.ndarray, probabilities: np.ndarray, rule: ThresholdRule
) -> RatesAtThreshold:
  """Chooses a threshold and measures the rates of the same records with it.

  Args:
    labels: [n], 1 for nodules.
    probabilities: [n].
    rule: e.g. `ThresholdRule('recall', 0.9)`.
  """
  threshold = choose_threshold(labels, probabilities, rule)
  predicted = np.asarray(probabilities) >= threshold
  matrix = classification.ConfusionMatrix.from_predictions(labels, predicted)
  return RatesAtThreshold(threshold, matrix.rates())


def _choose_candidate(rates: dict[str, np.ndarray], rule: ThresholdRule) -> int:
  """Returns the index of the candidate threshold; they are in descending order."""
  if rule.value is None:
    return int(np.argmax(rates['f1']))
  # Without nodules no threshold reaches a recall; without non-nodules every threshold
  # reaches a specificity, as there is no false positive.
  if_undefined = 1.0 if rule.name == 'specificity' else 0.0
  values = np.nan_to_num(rates[rule.name], nan=if_undefined)
  reached = np.flatnonzero(values >= rule.value)
  if rule.name == 'recall':
    return int(reached[0]) if len(reached) else len(values) - 1
  return int(reached[-1]) if len(reached) else int(np.argmax(values))
