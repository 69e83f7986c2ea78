"""Confidence intervals of a classifier's figures by resampling scans.

Records of one scan are not independent, so scans are drawn, with replacement, and all
their records come along; drawn twice they count twice. Intervals are percentiles of
the resamples (Efron and Tibshirani, "An Introduction to the Bootstrap", 1993, chapter
13).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from model import metrics

RATES = ('accuracy', 'precision', 'recall', 'specificity', 'f1')

# Noise adds to a calibration error, so its resamples lie above it by tendency, and its
# interval with them.
INTERVAL_METRICS = (*RATES, 'roc_auc', 'pr_auc', 'brier', 'ece')

_COUNTS = ('true_positives', 'false_positives', 'false_negatives', 'true_negatives')


def number_groups(groups: np.ndarray) -> tuple[np.ndarray, int]:
  """Numbers the scans.

  Args:
    groups: [n] scan of each record, as text or any other kind.

  Returns:
    ([n] int64 number of each record's scan from 0, how many scans there are).
  """
  names, number = np.unique(np.asarray(groups), return_inverse=True)
  return number.reshape(-1), len(names)


def draws(count: int, resamples: int, seed: int) -> Iterator[np.ndarray]:
  """Yields how often each of `count` scans is drawn in each resample, [count] int64."""
  rng = np.random.default_rng(seed)
  for _ in range(resamples):
    yield np.bincount(rng.integers(count, size=count), minlength=count)


class Figures:
  """A classifier's figures when scan i counts `times[i]` times.

  What no resample changes is worked out once: sums over records are kept for each scan,
  and of the order by probability only as many points as the curves have corners.
  """

  def __init__(
    self,
    labels: np.ndarray,
    probabilities: np.ndarray,
    called: np.ndarray,
    scan: np.ndarray,
    scans: int,
  ):
    """Sorts and sums the records.

    Args:
      labels: [n], 1 for nodules.
      probabilities: [n].
      called: [n] bool, what the classifier calls a nodule.
      scan: [n] int, from `number_groups`.
      scans: how many there are.
    """
    positive = np.asarray(labels) == 1
    p = np.asarray(probabilities, np.float64)
    self._counts = _counts_of_scans(positive, called, scan, scans)
    self._squared_error = np.bincount(scan, (p - positive) ** 2, scans)
    bins = metrics.calibration_bin(p)
    self._residuals = np.zeros((scans, metrics.CALIBRATION_BINS))
    np.add.at(self._residuals, (scan, bins), p - positive)
    self._corner, self._corners = _corners(positive, p)
    self._scan, self._positive = scan, positive

  def __call__(self, times: np.ndarray) -> dict[str, float]:
    """Returns the figures of `INTERVAL_METRICS`; NaN where undefined."""
    times = np.asarray(times, np.float64)
    code = 2 * self._corner + self._positive
    weight = np.bincount(code, times[self._scan], 2 * self._corners)
    negatives, positives = weight.reshape(-1, 2).T
    tp, fp = np.cumsum(positives), np.cumsum(negatives)
    counts = times @ self._counts
    total = counts.sum()
    with np.errstate(invalid='ignore', divide='ignore'):
      # A leading stretch of weight 0 has no precision, and no step either.
      pr_auc = np.nansum(positives / tp[-1] * (tp / (tp + fp))) if tp[-1] else np.nan
      roc_auc = negatives @ (tp - positives / 2) / (tp[-1] * fp[-1])
      return {
        **dict(zip(RATES, _rates(counts))),
        'roc_auc': roc_auc,
        'pr_auc': pr_auc,
        'brier': times @ self._squared_error / total,
        'ece': np.abs(times @ self._residuals).sum() / total,
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
  scan, scans = number_groups(groups)
  figures = Figures(labels, probabilities, called, scan, scans)
  drawn = [figures(times) for times in draws(scans, resamples, seed)]
  return {
    name: percentile_interval(np.array([d[name] for d in drawn]), level)
    for name in INTERVAL_METRICS
  }


def rate_intervals(
  labels: np.ndarray,
  called: np.ndarray,
  groups: np.ndarray,
  resamples: int = 1000,
  seed: int = 0,
  level: float = 0.95,
) -> dict[str, list[float | None]]:
  """Like `intervals`, of `RATES` alone, which needs no pass over the records."""
  scan, scans = number_groups(groups)
  counts = _counts_of_scans(np.asarray(labels) == 1, called, scan, scans)
  drawn = np.array([times @ counts for times in draws(scans, resamples, seed)])
  with np.errstate(invalid='ignore', divide='ignore'):
    rates = _rates(drawn.reshape(-1, len(_COUNTS)).T)
  return {n: percentile_interval(rate, level) for n, rate in zip(RATES, rates)}


def mean_interval(
  values: np.ndarray,
  groups: np.ndarray,
  resamples: int = 1000,
  seed: int = 0,
  level: float = 0.95,
) -> list[float | None]:
  """The percentile interval of a mean over records.

  Args:
    values: [n], e.g. whether each nodule is found.
    groups: [n] scan of each.
    resamples: how many resamples.
    seed: of the draws.
    level: of the interval.
  """
  scan, scans = number_groups(groups)
  sums = np.bincount(scan, np.asarray(values, np.float64), scans)
  sizes = np.bincount(scan, minlength=scans)
  drawn = draws(scans, resamples, seed)
  means = [times @ sums / (times @ sizes) for times in drawn]
  return percentile_interval(np.array(means), level)


def paired_intervals(
  a: Figures,
  b: Figures,
  scans: int,
  names: Sequence[str],
  resamples: int = 1000,
  seed: int = 0,
  level: float = 0.95,
) -> dict[str, dict[str, Any]]:
  """The differences of two classifiers on the same records, resampled together.

  Args:
    a: figures of one classifier.
    b: of the other, over the same numbers of scans.
    scans: how many there are.
    names: of `INTERVAL_METRICS`.
    resamples: how many resamples.
    seed: of the draws.
    level: of the intervals.

  Returns:
    For each name `difference` (a - b), `lower` and `upper`; None where undefined.
  """
  whole_a, whole_b = a(np.ones(scans)), b(np.ones(scans))
  drawn = [(a(times), b(times)) for times in draws(scans, resamples, seed)]
  result = {}
  for name in names:
    differences = np.array([one[name] - other[name] for one, other in drawn])
    lower, upper = percentile_interval(differences, level)
    whole = float(whole_a[name] - whole_b[name])
    result[name] = {
      'difference': whole if np.isfinite(whole) else None,
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


def _counts_of_scans(
  positive: np.ndarray, called: np.ndarray, scan: np.ndarray, scans: int
) -> np.ndarray:
  """Returns [scans, 4] float64, `_COUNTS` of each scan."""
  called = np.asarray(called, bool)
  # In the order of the counts: hit, false alarm, miss, rightly passed over.
  kind = np.where(called, ~positive, 2 + ~positive)
  table = np.bincount(len(_COUNTS) * scan + kind, minlength=len(_COUNTS) * scans)
  return table.reshape(scans, len(_COUNTS)).astype(np.float64)


def _rates(counts: np.ndarray) -> tuple[Any, ...]:
  """`RATES` from `_COUNTS` [4, ...]; NaN where undefined."""
  tp, fp, fn, tn = counts
  return (
    (tp + tn) / (tp + fp + fn + tn),
    tp / (tp + fp),
    tp / (tp + fn),
    tn / (tn + fp),
    2 * tp / (2 * tp + fp + fn),
  )


def _corners(positive: np.ndarray, p: np.ndarray) -> tuple[np.ndarray, int]:
  """Numbers, by falling probability, the stretches between corners of the curves.

  Records of equal probability share a point of the curves. Between two points that bring
  positives the curves run straight whatever the weights, as only negatives come in; so
  all negatives between them are one stretch.

  Returns:
    ([n] int64 stretch of each record, how many there are).
  """
  if not len(p):
    return np.zeros(0, np.int64), 1
  order = np.argsort(-p, kind='stable')
  block = np.cumsum(np.diff(p[order], prepend=np.inf) != 0) - 1
  brings = np.bincount(block, positive[order]) > 0
  # A block starts a stretch if it brings positives, or if the one before does.
  starts = brings | np.append(False, brings[:-1])
  stretch = np.cumsum(starts)
  corner = np.empty(len(p), np.int64)
  corner[order] = stretch[block]
  return corner, int(stretch[-1]) + 1
