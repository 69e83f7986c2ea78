"""Confidence intervals of a classifier's figures by resampling scans.

Records of one scan are not independent, so scans are drawn, with replacement, and all
their records come along.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

INTERVAL_METRICS = (
  'accuracy',
  'precision',
  'recall',
  'specificity',
  'f1',
  'roc_auc',
  'pr_auc',
  'brier',
)


def resampled_weights(
  groups: np.ndarray, resamples: int, seed: int
) -> Iterator[np.ndarray]:
  """Yields how often each record is drawn in each resample.

  Args:
    groups: [n] scan of each record.
    resamples: how many resamples.
    seed: of the draws.

  Yields:
    [n] float64.
  """
  _, group = np.unique(np.asarray(groups), return_inverse=True)
  count = group.max(initial=-1) + 1
  rng = np.random.default_rng(seed)
  for _ in range(resamples):
    drawn = np.bincount(rng.integers(count, size=count), minlength=count)
    yield drawn[group].astype(np.float64)


class WeightedFigures:
  """A classifier's figures when record i counts w[i] times.

  What does not depend on the weights, the order by probability, is worked out once.
  """

  def __init__(self, labels: np.ndarray, probabilities: np.ndarray, called: np.ndarray):
    """Sorts the records.

    Args:
      labels: [n], 1 for nodules.
      probabilities: [n].
      called: [n] bool, what the classifier calls a nodule.
    """
    probabilities = np.asarray(probabilities, np.float64)
    self._order = np.argsort(-probabilities, kind='stable')
    p = probabilities[self._order]
    self._positive = (np.asarray(labels) == 1)[self._order]
    self._called = np.asarray(called, bool)[self._order]
    self._squared_error = (p - self._positive) ** 2
    # Records of equal probability share one point of the curves.
    self._ends = np.flatnonzero(np.append(p[1:] != p[:-1], True))

  def __call__(self, weights: np.ndarray) -> dict[str, float]:
    """Returns the figures of `INTERVAL_METRICS`; NaN where undefined."""
    w = np.asarray(weights, np.float64)[self._order]
    positives, negatives = w * self._positive, w * ~self._positive
    tp, fp = positives @ self._called, negatives @ self._called
    total_p, total_n = positives.sum(), negatives.sum()
    curve_tp = np.cumsum(positives)[self._ends]
    curve_fp = np.cumsum(negatives)[self._ends]
    with np.errstate(invalid='ignore', divide='ignore'):
      precision = curve_tp / (curve_tp + curve_fp)
      recall_steps = np.diff(curve_tp, prepend=0.0) / total_p
      # A leading stretch of weight 0 has no precision and no step either.
      pr_auc = np.nansum(recall_steps * precision) if total_p else np.nan
      mean_tp = (curve_tp + np.append(0.0, curve_tp[:-1])) / 2
      roc_auc = np.diff(curve_fp, prepend=0.0) @ mean_tp / (total_p * total_n)
      return {
        'accuracy': (tp + total_n - fp) / w.sum(),
        'precision': tp / (tp + fp),
        'recall': tp / total_p,
        'specificity': 1 - fp / total_n,
        'f1': 2 * tp / (total_p + tp + fp),
        'roc_auc': roc_auc,
        'pr_auc': pr_auc,
        'brier': w @ self._squared_error / w.sum(),
      }


def intervals(
  labels: np.ndarray,
  probabilities: np.ndarray,
  called: np.ndarray,
  groups: np.ndarray,
  resamples: int = 1000,
  seed: int = 0,
  level: float = 0.95,
) -> dict[str, list[float | None]]:
  """Percentile intervals of a classifier's figures.

  Args:
    labels: [n], 1 for nodules.
    probabilities: [n].
    called: [n] bool.
    groups: [n] scan of each record.
    resamples: how many resamples.
    seed: of the draws.
    level: of the intervals.

  Returns:
    [lower, upper] of each of `INTERVAL_METRICS`; None where no resample defines it.
  """
  figures = WeightedFigures(labels, probabilities, called)
  drawn = [figures(w) for w in resampled_weights(groups, resamples, seed)]
  return {
    name: percentile_interval(np.array([d[name] for d in drawn]), level)
    for name in INTERVAL_METRICS
  }


def paired_intervals(
  figures_a: Callable[[np.ndarray], dict[str, float]],
  figures_b: Callable[[np.ndarray], dict[str, float]],
  groups: np.ndarray,
  names: tuple[str, ...],
  resamples: int = 1000,
  seed: int = 0,
  level: float = 0.95,
) -> dict[str, dict[str, float | None]]:
  """The differences of two classifiers on the same records, resampled together.

  Returns:
    For each name: `difference` (a - b), `lower`, `upper`.
  """
  everything = np.ones(len(groups))
  whole_a, whole_b = figures_a(everything), figures_b(everything)
  draws: dict[str, list[float]] = {name: [] for name in names}
  for weights in resampled_weights(groups, resamples, seed):
    a, b = figures_a(weights), figures_b(weights)
    for name in names:
      draws[name].append(a[name] - b[name])
  result = {}
  for name in names:
    lower, upper = percentile_interval(np.array(draws[name]), level)
    result[name] = {
      'difference': float(whole_a[name] - whole_b[name]),
      'lower': lower,
      'upper': upper,
    }
  return result


def percentile_interval(values: np.ndarray, level: float) -> list[float | None]:
  """The middle `level` of the values that are numbers; [None, None] if none is."""
  values = values[np.isfinite(values)]
  if not len(values):
    return [None, None]
  tail = (1 - level) / 2
  return [float(v) for v in np.quantile(values, [tail, 1 - tail])]
