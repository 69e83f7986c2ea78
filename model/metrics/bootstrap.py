"""Confidence intervals of a classifier's metrics, by resampling scans."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from model.metrics import classification
from model.metrics.classification import METRICS
from model.metrics.classification import Metrics
from model.metrics.resampling import Difference
from model.metrics.resampling import Interval
from model.metrics.resampling import Resampling
from model.metrics.resampling import ScanIndex
from model.metrics.resampling import draw_scan_weights
from model.metrics.resampling import percentile_interval


class ResampledMetrics:
  """Computes the metrics of a classifier for any weights of the scans.

  The records are sorted and summed once, so that a resample needs little work: the rates,
  the Brier score and the calibration error follow from sums over each scan, the areas
  from the weights of the segments of the curves.
  """

  def __init__(
    self,
    labels: np.ndarray,
    probabilities: np.ndarray,
    predicted: np.ndarray,
    scans: ScanIndex,
  ):
    """Sorts and sums the records.

    Args:
      labels: [n], 1 for nodules.
      probabilities: [n].
      predicted: [n] bool, whether the classifier predicts a nodule.
      scans: the scan of each record.
    """
    self.num_scans = scans.num_scans
    self._scan = scans.of_record
    self._positive = np.asarray(labels) == 1
    p = np.asarray(probabilities, np.float64)
    error = p - self._positive
    self._counts = _confusion_counts_of_scans(labels, predicted, scans)
    self._squared_error = np.bincount(self._scan, error**2, self.num_scans)
    self._residuals = np.zeros((self.num_scans, classification.CALIBRATION_BINS))
    calibration_bin = classification.calibration_bin_of(p)
    np.add.at(self._residuals, (self._scan, calibration_bin), error)
    self._segment, self._num_segments = _curve_segments(self._positive, p)

  def compute(self, scan_weights: np.ndarray) -> Metrics:
    """Computes the metrics when all records of scan i have the weight scan_weights[i].

    Args:
      scan_weights: [num_scans], e.g. how many times each scan was drawn.
    """
    weights = np.asarray(scan_weights, np.float64)
    counts = weights @ self._counts
    total = counts.sum()
    rates = classification.rates_of_counts(counts)
    roc_auc, pr_auc = self._areas(weights)
    with np.errstate(invalid='ignore', divide='ignore'):
      return Metrics(
        **{name: float(rate) for name, rate in rates.items()},
        roc_auc=roc_auc,
        pr_auc=pr_auc,
        brier=float(weights @ self._squared_error / total),
        ece=float(np.abs(weights @ self._residuals).sum() / total),
      )

  def _areas(self, scan_weights: np.ndarray) -> tuple[float, float]:
    """Returns the areas under the ROC and the precision-recall curve."""
    segment_and_class = 2 * self._segment + self._positive
    weight = np.bincount(
      segment_and_class, scan_weights[self._scan], 2 * self._num_segments
    )
    negatives, positives = weight.reshape(-1, 2).T
    tp, fp = np.cumsum(positives), np.cumsum(negatives)
    with np.errstate(invalid='ignore', divide='ignore'):
      roc_auc = negatives @ (tp - positives / 2) / (tp[-1] * fp[-1])
      if not tp[-1]:
        return float(roc_auc), np.nan
      # The precision is undefined (NaN) in leading segments of weight 0, which add
      # nothing to the area.
      pr_auc = np.nansum(positives / tp[-1] * (tp / (tp + fp)))
      return float(roc_auc), float(pr_auc)


def metric_intervals(
  labels: np.ndarray,
  probabilities: np.ndarray,
  predicted: np.ndarray,
  scan_ids: np.ndarray,
  resampling: Resampling,
) -> dict[str, Interval]:
  """Computes an interval of each of `classification.METRICS`.

  The calibration error is biased upwards under resampling; so is its interval.

  Args:
    labels: [n], 1 for nodules.
    probabilities: [n].
    predicted: [n] bool, whether the classifier predicts a nodule.
    scan_ids: [n] id of each record's scan.
    resampling: number of resamples and seed.
  """
  scans = ScanIndex.from_ids(scan_ids)
  resampled = ResampledMetrics(labels, probabilities, predicted, scans)
  metrics = [
    resampled.compute(weights)
    for weights in draw_scan_weights(scans.num_scans, resampling)
  ]
  return {
    name: percentile_interval(np.array([m.value(name) for m in metrics]))
    for name in METRICS
  }


def rate_intervals(
  labels: np.ndarray,
  predicted: np.ndarray,
  scan_ids: np.ndarray,
  resampling: Resampling,
) -> dict[str, Interval]:
  """Computes an interval of each of `classification.RATES`.

  Equal to those of `metric_intervals`, and faster.
  """
  scans = ScanIndex.from_ids(scan_ids)
  counts = _confusion_counts_of_scans(labels, predicted, scans)
  resampled = [w @ counts for w in draw_scan_weights(scans.num_scans, resampling)]
  rates = classification.rates_of_counts(np.reshape(resampled, (-1, 4)).T)
  return {name: percentile_interval(rate) for name, rate in rates.items()}


def mean_interval(
  values: np.ndarray, scan_ids: np.ndarray, resampling: Resampling
) -> Interval:
  """Computes an interval of the mean over records.

  Args:
    values: [n], e.g. whether each nodule is found.
    scan_ids: [n] id of the scan that each value belongs to.
    resampling: number of resamples and seed.
  """
  scans = ScanIndex.from_ids(scan_ids)
  sums = np.bincount(scans.of_record, np.asarray(values, np.float64), scans.num_scans)
  sizes = np.bincount(scans.of_record, minlength=scans.num_scans)
  means = [
    weights @ sums / (weights @ sizes)
    for weights in draw_scan_weights(scans.num_scans, resampling)
  ]
  return percentile_interval(np.array(means))


def paired_differences(
  a: ResampledMetrics,
  b: ResampledMetrics,
  names: Sequence[str],
  resampling: Resampling,
) -> dict[str, Difference]:
  """Compares two classifiers on the same records, in the same resamples.

  Args:
    a: metrics of the first classifier.
    b: metrics of the second classifier, with the scans numbered as in `a`.
    names: metrics to compare, of `classification.METRICS`.
    resampling: number of resamples and seed.

  Returns:
    The difference a - b of each metric.

  Raises:
    ValueError: the numbers of scans differ.
  """
  if a.num_scans != b.num_scans:
    raise ValueError(
      'the classifiers must be measured on the same scans. '
      f'Received: {a.num_scans} and {b.num_scans} scans'
    )
  each_scan_once = np.ones(a.num_scans)
  whole_a, whole_b = a.compute(each_scan_once), b.compute(each_scan_once)
  resampled = [
    (a.compute(weights), b.compute(weights))
    for weights in draw_scan_weights(a.num_scans, resampling)
  ]
  return {
    name: Difference.from_resamples(
      whole_a.value(name) - whole_b.value(name),
      np.array([of_a.value(name) - of_b.value(name) for of_a, of_b in resampled]),
    )
    for name in names
  }


def _confusion_counts_of_scans(
  labels: np.ndarray, predicted: np.ndarray, scans: ScanIndex
) -> np.ndarray:
  """Returns [num_scans, 4] float64, as `classification.confusion_counts`."""
  counts = classification.confusion_counts(
    labels, predicted, scans.of_record, scans.num_scans
  )
  # The product with weights is faster for floating-point numbers.
  return counts.astype(np.float64)


def _curve_segments(positive: np.ndarray, p: np.ndarray) -> tuple[np.ndarray, int]:
  """Divides the records, by descending probability, into segments of the curves.

  Records of equal probability share a point of the ROC and precision-recall curves. The
  points of negatives without a positive between them can be merged whatever the weights
  are: the ROC curve is straight there, and the recall does not change.

  Args:
    positive: [n] bool.
    p: [n] float64 probability.

  Returns:
    ([n] int64 segment of each record, number of segments).
  """
  if not len(p):
    return np.zeros(0, np.int64), 1
  order = np.argsort(-p, kind='stable')
  point = np.cumsum(np.diff(p[order], prepend=np.inf) != 0) - 1
  has_positive = np.bincount(point, positive[order]) > 0
  # A segment starts at a point with a positive, and at the point after it.
  starts = has_positive | np.append(False, has_positive[:-1])
  segment_of_point = np.cumsum(starts)
  segment = np.empty(len(p), np.int64)
  segment[order] = segment_of_point[point]
  return segment, int(segment_of_point[-1]) + 1
