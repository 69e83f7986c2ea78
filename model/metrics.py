"""Figures of a binary classifier from labels and probabilities."""

from __future__ import annotations

import re
from typing import Any

import numpy as np

THRESHOLD_RULES = 'max_f1, precision:P, recall:R, specificity:S, or a number in 0..1'
_TARGETS = ('precision', 'recall', 'specificity')
CALIBRATION_BINS = 15


def confusion(labels: np.ndarray, called: np.ndarray) -> dict[str, int]:
  """Counts hits and misses.

  Args:
    labels: [n], 1 for nodules.
    called: [n] bool, what the classifier calls a nodule.

  Returns:
    true_positives, false_positives, false_negatives, true_negatives.
  """
  positive, called = np.asarray(labels) == 1, np.asarray(called, bool)
  return {
    'true_positives': int(np.sum(positive & called)),
    'false_positives': int(np.sum(~positive & called)),
    'false_negatives': int(np.sum(positive & ~called)),
    'true_negatives': int(np.sum(~positive & ~called)),
  }


def rates(counts: dict[str, int]) -> dict[str, float | None]:
  """Accuracy, precision, recall, specificity and F1; None where undefined."""
  tp, fp = counts['true_positives'], counts['false_positives']
  fn, tn = counts['false_negatives'], counts['true_negatives']
  return {
    'accuracy': _ratio(tp + tn, tp + fp + fn + tn),
    'precision': _ratio(tp, tp + fp),
    'recall': _ratio(tp, tp + fn),
    'specificity': _ratio(tn, tn + fp),
    'f1': _ratio(2 * tp, 2 * tp + fp + fn),
  }


def areas(labels: np.ndarray, probabilities: np.ndarray) -> dict[str, float | None]:
  """Areas under the ROC and the precision-recall curve; None with one class only."""
  from sklearn import metrics

  if len(np.unique(labels)) < 2:
    return {'roc_auc': None, 'pr_auc': None}
  return {
    'roc_auc': float(metrics.roc_auc_score(labels, probabilities)),
    'pr_auc': float(metrics.average_precision_score(labels, probabilities)),
  }


def summary(
  labels: np.ndarray, probabilities: np.ndarray, called: np.ndarray
) -> dict[str, Any]:
  """All figures: rates, areas, calibration, counts.

  Args:
    labels: [n], 1 for nodules.
    probabilities: [n].
    called: [n] bool, what the classifier calls a nodule.

  Returns:
    Plain numbers by name, with the counts under 'confusion_matrix'.
  """
  counts = confusion(labels, called)
  return {
    'records': len(labels),
    'nodules': int(np.sum(np.asarray(labels) == 1)),
    **rates(counts),
    **areas(labels, probabilities),
    'brier': float(np.mean((np.asarray(probabilities) - labels) ** 2)),
    'ece': expected_calibration_error(labels, probabilities),
    'confusion_matrix': counts,
  }


def calibration_bin(
  probabilities: np.ndarray, bins: int = CALIBRATION_BINS
) -> np.ndarray:
  """Returns which of `bins` bins of equal width each probability lies in."""
  return np.minimum((np.asarray(probabilities, float) * bins).astype(int), bins - 1)


def calibration_bins(
  labels: np.ndarray, probabilities: np.ndarray, bins: int = CALIBRATION_BINS
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Bins probabilities by equal width.

  Args:
    labels: [n], 1 for nodules.
    probabilities: [n].
    bins: how many.

  Returns:
    (mean probability, share of nodules, records) of each bin that is not empty.
  """
  labels, probabilities = np.asarray(labels, float), np.asarray(probabilities, float)
  which = calibration_bin(probabilities, bins)
  counts = np.bincount(which, minlength=bins)
  filled = counts > 0
  mean = np.bincount(which, probabilities, bins)[filled] / counts[filled]
  share = np.bincount(which, labels, bins)[filled] / counts[filled]
  return mean, share, counts[filled]


def expected_calibration_error(
  labels: np.ndarray, probabilities: np.ndarray, bins: int = CALIBRATION_BINS
) -> float:
  """Mean distance of probability and frequency over bins, weighted by their records.

  Guo et al., "On Calibration of Modern Neural Networks", ICML 2017.
  """
  mean, share, counts = calibration_bins(labels, probabilities, bins)
  return float(np.sum(np.abs(mean - share) * counts) / max(counts.sum(), 1))


def parse_threshold_rule(rule: str) -> tuple[str, float | None]:
  """Parses `max_f1`, `precision:0.893` or `0.5` to (name, value).

  Raises:
    ValueError: it is none of these.
  """
  if rule == 'max_f1':
    return rule, None
  match = re.fullmatch(rf'(?:({"|".join(_TARGETS)}):)?([0-9.]+)', rule)
  try:
    value = float(match[2]) if match else -1.0
  except ValueError:
    value = -1.0
  if not match or not 0 <= value <= 1:
    raise ValueError(f'threshold must be {THRESHOLD_RULES}. Received: {rule!r}')
  return match[1] or 'fixed', value


def choose_threshold(labels: np.ndarray, probabilities: np.ndarray, rule: str) -> float:
  """Chooses the threshold by a named rule.

  Args:
    labels: [n], 1 for nodules; of records that are not scored with it.
    probabilities: [n].
    rule: `max_f1`; `precision:P` or `specificity:S`, the least threshold that reaches
      it; `recall:R`, the greatest; or a number. Between two records the threshold
      lies half-way.

  Returns:
    The threshold; for a target that no threshold reaches, the one that comes nearest.

  Raises:
    ValueError: the rule is unknown, or there are no records.
  """
  name, value = parse_threshold_rule(rule)
  if value is not None and name == 'fixed':
    return value
  if not len(labels):
    raise ValueError('a threshold cannot be chosen without records')
  order = np.argsort(probabilities, kind='stable')[::-1]
  p, y = np.asarray(probabilities, float)[order], np.asarray(labels)[order] == 1
  # After the last of equal probabilities a threshold can lie.
  ends = np.flatnonzero(np.append(p[1:] != p[:-1], True))
  tp, fp = np.cumsum(y)[ends], np.cumsum(~y)[ends]
  positives, negatives = max(y.sum(), 1), max((~y).sum(), 1)
  curves = {
    'precision': tp / (tp + fp),
    'recall': tp / positives,
    # Not 1 - fp / negatives: the last bit would miss a target that is just reached.
    'specificity': (negatives - fp) / negatives,
    'max_f1': 2 * tp / (tp + fp + positives),
  }
  curve = curves[name]
  if name == 'max_f1':
    pick = int(np.argmax(curve))
  elif name == 'recall':
    reached = np.flatnonzero(curve >= value)
    pick = int(reached[0]) if len(reached) else len(curve) - 1
  else:
    reached = np.flatnonzero(curve >= value)
    pick = int(reached[-1]) if len(reached) else int(np.argmax(curve))
  last = ends[pick]
  below = p[last + 1] if last + 1 < len(p) else 0.0
  middle = (p[last] + below) / 2
  # Between two neighbouring numbers there is none, and the half may round down.
  return float(middle if middle > below else p[last])


def _ratio(part: float, whole: float) -> float | None:
  return float(part / whole) if whole else None


def at_target(
  labels: np.ndarray, probabilities: np.ndarray, target: str, value: float
) -> dict[str, float | None]:
  """The operating point at a wanted precision, recall or specificity.

  Args:
    labels: [n], 1 for nodules.
    probabilities: [n].
    target: 'precision', 'recall' or 'specificity'.
    value: what it must reach at least.

  Returns:
    `threshold` and `rates` there. It is read off the very records it describes.
  """
  threshold = choose_threshold(labels, probabilities, f'{target}:{value}')
  called = np.asarray(probabilities) >= threshold
  return {'threshold': threshold, **rates(confusion(labels, called))}
