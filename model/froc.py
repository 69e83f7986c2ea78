"""FROC analysis as LUNA16's official script, noduleCADEvaluationLUNA16.py, does it.

    entries, counts = evaluate(marks, nodules, excluded, scans=888)
    curve, band = froc_curve(entries), bootstrap_band(entries)
    curve.sensitivity_at(FPS_PER_SCAN), cpm(curve)

NumPy only. Scans are numbers from 0, points are world mm, and a finding is a sphere.

Setio et al., "Validation, comparison, and combination of algorithms for automatic
detection of pulmonary nodules in computed tomography images: The LUNA16 challenge",
Medical Image Analysis 42, 2017.
"""

from __future__ import annotations

from collections.abc import Sequence
import dataclasses

import numpy as np

MAX_MARKS_PER_SCAN = 100

# Where the sensitivity is reported; the CPM is its mean over these.
FPS_PER_SCAN = (0.125, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0)

# Score of a nodule without a mark: below every threshold.
MISSED = -np.inf

_POINTS_PER_OCTAVE = 32


@dataclasses.dataclass(frozen=True)
class Marks:
  """What a system reports.

  Attributes:
    scan: [n] int, number of the scan, from 0.
    xyz_mm: [n, 3] float64 world points.
    score: [n] float64, higher for surer; any finite number.
  """

  scan: np.ndarray
  xyz_mm: np.ndarray
  score: np.ndarray


@dataclasses.dataclass(frozen=True)
class Findings:
  """Nodules to be found, or findings a mark may lie on unpunished.

  Attributes:
    scan: [n] int, number of the scan, from 0.
    xyz_mm: [n, 3] float64 world points.
    radius_mm: [n] float64; a mark hits when it lies nearer than this.
  """

  scan: np.ndarray
  xyz_mm: np.ndarray
  radius_mm: np.ndarray


@dataclasses.dataclass(frozen=True)
class Entries:
  """What enters the curve: each nodule once, and each false positive.

  Attributes:
    scan: [n] int64.
    score: [n] float64: of a nodule that of its highest mark, `MISSED` if it has none.
    is_nodule: [n] bool.
    scans: how many scans there are, those without an entry included.
  """

  scan: np.ndarray
  score: np.ndarray
  is_nodule: np.ndarray
  scans: int


@dataclasses.dataclass(frozen=True)
class Counts:
  """What became of nodules and marks.

  Attributes:
    scans: scans evaluated.
    nodules: nodules in them.
    true_positives: nodules with a mark.
    false_positives: marks that hit nothing.
    false_negatives: nodules without a mark.
    candidates: marks within the cap.
    ignored_on_excluded: marks that hit excluded findings only.
    ignored_double: marks beyond the first on a nodule, summed over nodules.
    nodules_reachable: nodules with a mark when no mark is capped away.
    marks_lost_to_ties: marks that the cap had room for, lost since they tie at it.
    scans_with_lost_ties: scans they lie in.
    scans_without_marks: scans for which the system reports nothing.
  """

  scans: int
  nodules: int
  true_positives: int
  false_positives: int
  false_negatives: int
  candidates: int
  ignored_on_excluded: int
  ignored_double: int
  nodules_reachable: int
  marks_lost_to_ties: int
  scans_with_lost_ties: int
  scans_without_marks: int


@dataclasses.dataclass(frozen=True)
class Curve:
  """A FROC curve, from the highest threshold to the lowest.

  Attributes:
    fps_per_scan: [k] float64, false positives per scan.
    sensitivity: [k] float64.
    threshold: [k] float64; marks of this score and above give the point, the first is
      infinite.
  """

  fps_per_scan: np.ndarray
  sensitivity: np.ndarray
  threshold: np.ndarray

  def sensitivity_at(self, fps_per_scan: Sequence[float] | np.ndarray) -> np.ndarray:
    """Interpolates linearly; after the curve's end its last sensitivity holds."""
    return np.interp(fps_per_scan, self.fps_per_scan, self.sensitivity)


@dataclasses.dataclass(frozen=True)
class Interval:
  """Mean and percentiles over resamples; floats, or arrays of one shape."""

  mean: np.ndarray
  lower: np.ndarray
  upper: np.ndarray


@dataclasses.dataclass(frozen=True)
class Band:
  """Confidence band of a curve.

  Attributes:
    fps_per_scan: [g] float64, 1/8 to 8 in equal steps of the logarithm.
    sensitivity: [g] at these.
    sensitivity_at_points: [7] at `FPS_PER_SCAN`.
    cpm: of the resamples' CPMs.
  """

  fps_per_scan: np.ndarray
  sensitivity: Interval
  sensitivity_at_points: Interval
  cpm: Interval


def evaluate(
  marks: Marks,
  nodules: Findings,
  excluded: Findings | None,
  scans: int,
  max_marks_per_scan: int = MAX_MARKS_PER_SCAN,
) -> tuple[Entries, Counts]:
  """Tells nodules found and missed, false positives and marks to ignore.

  Args:
    marks: the system's.
    nodules: that it should find.
    excluded: findings that are neither nodule nor error. They count only for marks that
      hit no nodule: each nodule's centre also lies in one.
    scans: how many scans there are; all points' scan numbers are below.
    max_marks_per_scan: of a scan with more, only the marks above the score of the first
      too many are kept; marks that tie with it go.

  Returns:
    The entries, of each scan its nodules and then its false positives; and the counts.

  Raises:
    ValueError: a score is not finite, or there is no scan, or the cap is below 1.
  """
  _check(marks, scans, max_marks_per_scan)
  if excluded is None:
    excluded = Findings(np.empty(0, int), np.empty((0, 3)), np.empty(0))
  rows_by_scan = (_rows_by_scan(p.scan, scans) for p in (marks, nodules, excluded))
  scores, is_nodule, counts = zip(
    *(
      _evaluate_scan(
        Marks(marks.scan[m], marks.xyz_mm[m], marks.score[m]),
        Findings(nodules.scan[n], nodules.xyz_mm[n], nodules.radius_mm[n]),
        Findings(excluded.scan[e], excluded.xyz_mm[e], excluded.radius_mm[e]),
        max_marks_per_scan,
      )
      for m, n, e in zip(*rows_by_scan)
    )
  )
  entries = Entries(
    scan=np.repeat(np.arange(scans), [len(s) for s in scores]),
    score=np.concatenate(scores),
    is_nodule=np.concatenate(is_nodule),
    scans=scans,
  )
  totals = np.sum([dataclasses.astuple(c) for c in counts], axis=0)
  return entries, Counts(*totals.tolist())


def froc_curve(entries: Entries) -> Curve:
  """Draws the curve of nodules found over false positives per scan.

  A missed nodule lowers the sensitivity and gives no point. As in scikit-learn's
  `roc_curve`, on which the official script rests, a point half-way between its
  neighbours on a straight line is left out.

  Args:
    entries: of `evaluate`.

  Returns:
    The curve; it begins at no mark at all.

  Raises:
    ValueError: there is no nodule, so no sensitivity.
  """
  if not entries.is_nodule.any():
    raise ValueError('there is no nodule in the scans: sensitivity is undefined')
  ranking = _Ranking(entries)
  tp, fp, nodules = ranking.counts(np.ones(entries.scans, int))
  threshold = ranking.threshold
  if len(tp) > 2:
    bends = (np.diff(fp, 2) != 0) | (np.diff(tp, 2) != 0)
    kept = np.concatenate([[True], bends, [True]])
    tp, fp, threshold = tp[kept], fp[kept], threshold[kept]
  return Curve(*_rates(tp, fp, nodules, entries.scans), np.append(np.inf, threshold))


def cpm(curve: Curve) -> float:
  """Returns the competition performance metric, the mean over `FPS_PER_SCAN`.

  Niemeijer et al., "On Combining Computer-Aided Detection Systems", IEEE TMI 30,
  2011.
  """
  return float(np.mean(curve.sensitivity_at(FPS_PER_SCAN)))


def bootstrap_band(
  entries: Entries, resamples: int = 1000, seed: int = 0, level: float = 0.95
) -> Band:
  """Draws scans with replacement and tells how far the curve moves.

  Marks of one scan are not independent, so a scan comes with all its entries; drawn
  twice it counts twice.

  Args:
    entries: of `evaluate`.
    resamples: how many times.
    seed: of the draws.
    level: share of the resamples within the band.

  Returns:
    The band; NaN where no resample has a nodule.
  """
  octaves = np.log2(FPS_PER_SCAN[-1] / FPS_PER_SCAN[0])
  exponents = np.arange(octaves * _POINTS_PER_OCTAVE + 1) / _POINTS_PER_OCTAVE
  fps_per_scan = FPS_PER_SCAN[0] * np.exp2(exponents)
  drawn = resampled_sensitivity(entries, fps_per_scan, resamples, seed)
  at_points = drawn[:, ::_POINTS_PER_OCTAVE]
  return Band(
    fps_per_scan=fps_per_scan,
    sensitivity=_interval(drawn, level),
    sensitivity_at_points=_interval(at_points, level),
    cpm=_interval(at_points.mean(axis=1), level),
  )


def resampled_sensitivity(
  entries: Entries, fps_per_scan: np.ndarray, resamples: int, seed: int
) -> np.ndarray:
  """Reads the sensitivity off the curves of resampled scans.

  Args:
    entries: of `evaluate`.
    fps_per_scan: [g] where.
    resamples: how many times as many scans as there are are drawn.
    seed: of the draws.

  Returns:
    [resamples, g] float64; NaN in a resample without nodules.

  Raises:
    ValueError: `resamples` is below 1.
  """
  if resamples < 1:
    raise ValueError(f'resamples must be 1 or more. Received: {resamples}')
  ranking = _Ranking(entries)
  rng = np.random.default_rng(seed)
  sensitivity = np.full((resamples, len(fps_per_scan)), np.nan)
  for row in sensitivity:
    drawn = rng.integers(entries.scans, size=entries.scans)
    times_drawn = np.bincount(drawn, minlength=entries.scans)
    tp, fp, nodules = ranking.counts(times_drawn)
    if nodules:
      row[:] = np.interp(fps_per_scan, *_rates(tp, fp, nodules, entries.scans))
  return sensitivity


class _Ranking:
  """Entries with a mark, by falling score: what no resample changes."""

  def __init__(self, entries: Entries):
    marked = np.flatnonzero(entries.score != MISSED)
    order = marked[np.argsort(-entries.score[marked], kind='stable')]
    score = entries.score[order]
    # Of equal scores only the last is a point of the curve.
    self._ends = np.flatnonzero(np.diff(score, append=-np.inf))
    self._scan = entries.scan[order]
    self._is_nodule = entries.is_nodule[order]
    self._nodules_per_scan = np.bincount(
      entries.scan[entries.is_nodule], minlength=entries.scans
    )
    self.threshold = score[self._ends]

  def counts(self, times_drawn: np.ndarray) -> tuple[np.ndarray, np.ndarray, int]:
    """Counts what each threshold lets through.

    Args:
      times_drawn: [scans] int, how often each scan counts.

    Returns:
      ([k] int64 nodules found, [k] int64 false positives, nodules in all).
    """
    times = times_drawn[self._scan]
    passed = np.cumsum(times)[self._ends]
    found = np.cumsum(times * self._is_nodule)[self._ends]
    return found, passed - found, int(times_drawn @ self._nodules_per_scan)


def _rates(
  tp: np.ndarray, fp: np.ndarray, nodules: int, scans: int
) -> tuple[np.ndarray, np.ndarray]:
  """Returns [k + 1] false positives per scan and sensitivities, from no mark at all.

  Dividing by the last count and multiplying by it again is what the official script
  does. It may cost the last bit, and that bit decides the interpolation where the
  curve rises exactly at 1/8 a scan, as 111 false positives in 888 scans do.
  """
  tp, fp = np.append(0.0, tp), np.append(0.0, fp)
  fps_per_scan = fp / max(fp[-1], 1) * fp[-1] / scans
  sensitivity = tp / max(tp[-1], 1) * tp[-1] / nodules
  return fps_per_scan, sensitivity


def _interval(values: np.ndarray, level: float) -> Interval:
  """Summarises [resamples, ...] values by the order statistics the script takes."""
  defined = ~np.isnan(values).reshape(len(values), -1).any(axis=1)
  if not defined.any():
    nothing = np.full(values.shape[1:], np.nan)
    return Interval(nothing, nothing, nothing)
  ordered = np.sort(values[defined], axis=0)
  tail = (1 - level) / 2
  return Interval(
    mean=ordered.mean(axis=0),
    lower=ordered[int(tail * len(ordered))],
    upper=ordered[int((1 - tail) * len(ordered))],
  )


def _rows_by_scan(scan: np.ndarray, scans: int) -> list[np.ndarray]:
  """Returns the rows of each scan, in their order."""
  order = np.argsort(scan, kind='stable')
  return np.split(order, np.searchsorted(scan[order], np.arange(1, scans)))


def _evaluate_scan(
  marks: Marks, nodules: Findings, excluded: Findings, max_marks: int
) -> tuple[np.ndarray, np.ndarray, Counts]:
  """Evaluates one scan.

  Returns:
    ([n] scores, [n] whether a nodule's, counts): nodules, then false positives.
  """
  on_nodule = _hits(marks, nodules)
  reachable = int(on_nodule.any(axis=0).sum())
  kept = _within_cap(marks.score, max_marks)
  lost = min(len(kept), max_marks) - int(kept.sum())
  score, on_nodule = marks.score[kept], on_nodule[kept]
  on_excluded = _hits(marks, excluded)[kept].any(axis=1)
  best = np.where(on_nodule, score[:, None], MISSED).max(axis=0, initial=MISSED)
  # A mark on two nodules finds both, and leaves the pool once.
  pool = ~on_nodule.any(axis=1)
  false_positives = score[pool & ~on_excluded]
  found = int((best != MISSED).sum())
  counts = Counts(
    scans=1,
    nodules=len(best),
    true_positives=found,
    false_positives=len(false_positives),
    false_negatives=len(best) - found,
    candidates=len(score),
    ignored_on_excluded=int((pool & on_excluded).sum()),
    ignored_double=int(on_nodule.sum()) - found,
    nodules_reachable=reachable,
    marks_lost_to_ties=lost,
    scans_with_lost_ties=int(lost > 0),
    scans_without_marks=int(not len(marks.score)),
  )
  is_nodule = np.repeat([True, False], [len(best), len(false_positives)])
  return np.append(best, false_positives), is_nodule, counts


def _within_cap(score: np.ndarray, max_marks: int) -> np.ndarray:
  """Returns [n] bool, which marks of a scan are kept."""
  if len(score) <= max_marks:
    return np.ones(len(score), bool)
  first_too_many = np.sort(score)[-max_marks - 1]
  return score > first_too_many


def _hits(marks: Marks, findings: Findings) -> np.ndarray:
  """Returns [marks, findings] bool, which mark lies in which finding of a scan."""
  x, y, z = np.moveaxis(marks.xyz_mm[:, None] - findings.xyz_mm[None], -1, 0)
  # In the official script's order of addition: the comparison is strict.
  return x * x + y * y + z * z < findings.radius_mm**2


def _check(marks: Marks, scans: int, max_marks: int) -> None:
  if scans < 1 or max_marks < 1:
    raise ValueError(
      'scans and max_marks_per_scan must be 1 or more. '
      f'Received: {scans} and {max_marks}'
    )
  wrong = np.flatnonzero(~np.isfinite(marks.score))
  if len(wrong):
    raise ValueError(
      f'scores must be finite. Received: {marks.score[wrong[0]]} for mark {wrong[0]}'
    )
