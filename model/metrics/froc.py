"""FROC curve and CPM as LUNA16's official script computes them.

matched = froc_matching.match_marks(marks, nodules, excluded, scans=888)
curve = froc_curve(matched.entries)
band = confidence_band(matched.entries, Resampling())
curve.sensitivity_at(FPS_PER_SCAN), curve.cpm
"""

from __future__ import annotations

from collections.abc import Sequence
import dataclasses

import numpy as np

from model.metrics.froc_matching import MISSED
from model.metrics.froc_matching import Entries
from model.metrics.resampling import LOWER_QUANTILE
from model.metrics.resampling import UPPER_QUANTILE
from model.metrics.resampling import Difference
from model.metrics.resampling import Interval
from model.metrics.resampling import Resampling
from model.metrics.resampling import draw_scan_weights

# Where the sensitivity is reported; the CPM is its mean over these.
FPS_PER_SCAN = (0.125, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0)

_POINTS_PER_OCTAVE = 32


@dataclasses.dataclass(frozen=True)
class FrocCurve:
  """A FROC curve, from the highest threshold to the lowest.

  Attributes:
    fps_per_scan: [k] float64, false positives per scan.
    sensitivity: [k] float64.
    threshold: [k] float64; the marks with this score or more give the point. The first
      is infinite: no mark.
  """

  fps_per_scan: np.ndarray
  sensitivity: np.ndarray
  threshold: np.ndarray

  def sensitivity_at(self, fps_per_scan: Sequence[float] | np.ndarray) -> np.ndarray:
    """Interpolates the sensitivity linearly; beyond the curve its last value holds."""
    return np.asarray(np.interp(fps_per_scan, self.fps_per_scan, self.sensitivity))

  @property
  def cpm(self) -> float:
    """Competition performance metric: the mean sensitivity at `FPS_PER_SCAN`.

    Niemeijer et al., "On Combining Computer-Aided Detection Systems", IEEE TMI 30,
    2011.
    """
    return float(np.mean(self.sensitivity_at(FPS_PER_SCAN)))


@dataclasses.dataclass(frozen=True)
class SensitivityBand:
  """Mean and interval of the sensitivity over resamples; NaN where undefined.

  Attributes:
    fps_per_scan: [g] float64, false positives per scan.
    mean: [g] float64.
    lower: [g] float64.
    upper: [g] float64.
  """

  fps_per_scan: np.ndarray
  mean: np.ndarray
  lower: np.ndarray
  upper: np.ndarray


@dataclasses.dataclass(frozen=True)
class ResampledCpm:
  """Mean and interval of the CPM over resamples; NaN where undefined."""

  mean: float
  interval: Interval


@dataclasses.dataclass(frozen=True)
class ConfidenceBand:
  """Confidence band of a FROC curve.

  Attributes:
    curve: at 1/8 to 8 false positives per scan, in equal steps of the logarithm.
    at_points: at the 7 `FPS_PER_SCAN`.
    cpm: mean and interval of the CPM over the resamples.
  """

  curve: SensitivityBand
  at_points: SensitivityBand
  cpm: ResampledCpm

  def to_json(self) -> dict[str, float | list[float]]:
    """Returns mean, lower and upper of the sensitivity at the points and of the CPM."""
    return {
      'sensitivity_mean': self.at_points.mean.tolist(),
      'sensitivity_lower': self.at_points.lower.tolist(),
      'sensitivity_upper': self.at_points.upper.tolist(),
      'cpm_mean': self.cpm.mean,
      'cpm_lower': self.cpm.interval.lower,
      'cpm_upper': self.cpm.interval.upper,
    }


def froc_curve(entries: Entries) -> FrocCurve:
  """Computes the fraction of nodules found over the false positives per scan.

  A missed nodule lowers the sensitivity and adds no point. As in scikit-learn's
  `roc_curve`, which the official script uses, a point is left out if it lies half-way
  between its neighbours on a straight line.

  Args:
    entries: the entries of `froc_matching.MatchedMarks`.

  Raises:
    ValueError: there is no nodule, so the sensitivity is undefined.
  """
  if not entries.is_nodule.any():
    raise ValueError('there is no nodule in the scans: sensitivity is undefined')
  ranked = _RankedEntries(entries)
  tp, fp, nodules = ranked.cumulative_counts(np.ones(entries.scans, int))
  threshold = ranked.threshold
  if len(tp) > 2:
    bends = (np.diff(fp, 2) != 0) | (np.diff(tp, 2) != 0)
    kept = np.concatenate([[True], bends, [True]])
    tp, fp, threshold = tp[kept], fp[kept], threshold[kept]
  return FrocCurve(
    *_curve_points(tp, fp, nodules, entries.scans), np.append(np.inf, threshold)
  )


def confidence_band(entries: Entries, resampling: Resampling) -> ConfidenceBand:
  """Computes how much the curve and the CPM vary when scans are resampled.

  Args:
    entries: the entries of `froc_matching.MatchedMarks`.
    resampling: number of resamples and seed.

  Returns:
    The band; NaN if no resample has a nodule.

  Raises:
    ValueError: the number of resamples is 0.
  """
  octaves = np.log2(FPS_PER_SCAN[-1] / FPS_PER_SCAN[0])
  exponents = np.arange(octaves * _POINTS_PER_OCTAVE + 1) / _POINTS_PER_OCTAVE
  fps_per_scan = FPS_PER_SCAN[0] * np.exp2(exponents)
  sensitivity = resampled_sensitivity(entries, fps_per_scan, resampling)
  at_points = sensitivity[:, ::_POINTS_PER_OCTAVE]
  mean, lower, upper = _mean_lower_upper(at_points.mean(axis=1))
  return ConfidenceBand(
    curve=SensitivityBand(fps_per_scan, *_mean_lower_upper(sensitivity)),
    at_points=SensitivityBand(np.array(FPS_PER_SCAN), *_mean_lower_upper(at_points)),
    cpm=ResampledCpm(float(mean), Interval(float(lower), float(upper))),
  )


def resampled_sensitivity(
  entries: Entries, fps_per_scan: np.ndarray, resampling: Resampling
) -> np.ndarray:
  """Computes the sensitivity in each resample.

  Args:
    entries: the entries of `froc_matching.MatchedMarks`.
    fps_per_scan: [g] false positives per scan.
    resampling: number of resamples and seed.

  Returns:
    [resamples, g] float64; NaN in a resample without nodules.

  Raises:
    ValueError: the number of resamples is 0.
  """
  if not resampling.resamples:
    raise ValueError('resamples must be 1 or more. Received: 0')
  ranked = _RankedEntries(entries)
  sensitivity = np.full((resampling.resamples, len(fps_per_scan)), np.nan)
  for weights, row in zip(draw_scan_weights(entries.scans, resampling), sensitivity):
    tp, fp, nodules = ranked.cumulative_counts(weights)
    if nodules:
      row[:] = np.interp(fps_per_scan, *_curve_points(tp, fp, nodules, entries.scans))
  return sensitivity


def paired_cpm_difference(a: Entries, b: Entries, resampling: Resampling) -> Difference:
  """Compares the CPM of two detectors on the same scans, in the same resamples.

  Args:
    a: nodules and false positives of the first detector, from
      `froc_matching.match_marks`.
    b: those of the second detector, with the scans numbered as in `a`.
    resampling: number of resamples and seed.

  Returns:
    The difference a - b.

  Raises:
    ValueError: the numbers of scans differ, there is no nodule, or the number of
      resamples is 0.
  """
  if a.scans != b.scans:
    raise ValueError(
      f'the detectors must be measured on the same scans. Received: {a.scans} and '
      f'{b.scans} scans'
    )
  cpm_a, cpm_b = (
    # The scans that are drawn depend on their number and the seed alone.
    resampled_sensitivity(entries, np.array(FPS_PER_SCAN), resampling).mean(axis=1)
    for entries in (a, b)
  )
  return Difference.from_resamples(froc_curve(a).cpm - froc_curve(b).cpm, cpm_a - cpm_b)


class _RankedEntries:
  """Entries with a mark by descending score, sorted once for all resamples.

  Attributes:
    threshold: [k] float64, the different scores.
  """

  def __init__(self, entries: Entries):
    marked = np.flatnonzero(entries.score != MISSED)
    order = marked[np.argsort(-entries.score[marked], kind='stable')]
    score = entries.score[order]
    # Entries of equal score share a point of the curve, counted at the last of them.
    self._last_of_equals = np.flatnonzero(np.diff(score, append=-np.inf))
    self._scan = entries.scan[order]
    self._is_nodule = entries.is_nodule[order]
    self._nodules_per_scan = np.bincount(
      entries.scan[entries.is_nodule], minlength=entries.scans
    )
    self.threshold = score[self._last_of_equals]

  def cumulative_counts(
    self, scan_weights: np.ndarray
  ) -> tuple[np.ndarray, np.ndarray, int]:
    """Counts nodules and false positives from each threshold on.

    Args:
      scan_weights: [scans] int, how many times each scan counts.

    Returns:
      ([k] int64 nodules found, [k] int64 false positives, number of nodules).
    """
    weights = scan_weights[self._scan]
    entries = np.cumsum(weights)[self._last_of_equals]
    found = np.cumsum(weights * self._is_nodule)[self._last_of_equals]
    return found, entries - found, int(scan_weights @ self._nodules_per_scan)


def _curve_points(
  tp: np.ndarray, fp: np.ndarray, nodules: int, scans: int
) -> tuple[np.ndarray, np.ndarray]:
  """Returns [k + 1] false positives per scan and [k + 1] sensitivities.

  The first point is that without marks. The official script divides by the last count
  and multiplies by it again. This can change the last bit, which decides about the
  interpolation where the curve rises vertically at exactly 1/8 false positives per scan,
  as with 111 false positives in 888 scans.
  """
  tp, fp = np.append(0.0, tp), np.append(0.0, fp)
  fps_per_scan = fp / max(fp[-1], 1) * fp[-1] / scans
  sensitivity = tp / max(tp[-1], 1) * tp[-1] / nodules
  return fps_per_scan, sensitivity


def _mean_lower_upper(
  values: np.ndarray,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Summarises the resamples in which all values are defined.

  The bounds are the order statistics that the official script takes, not interpolated
  quantiles as in `resampling.percentile_interval`.

  Args:
    values: [resamples, ...].

  Returns:
    Mean, lower and upper bound, [...] each.
  """
  defined = ~np.isnan(values).reshape(len(values), -1).any(axis=1)
  if not defined.any():
    undefined = np.full(values.shape[1:], np.nan)
    return undefined, undefined, undefined
  ordered = np.sort(values[defined], axis=0)
  return (
    ordered.mean(axis=0),
    ordered[int(LOWER_QUANTILE * len(ordered))],
    ordered[int(UPPER_QUANTILE * len(ordered))],
  )
