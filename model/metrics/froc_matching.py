"""Matches the marks of a detector with nodules by the protocol of LUNA16.

Follows LUNA16's official script, noduleCADEvaluationLUNA16.py. Scans are numbers from 0,
points are world coordinates in mm, and a finding is a sphere.

Setio et al., "Validation, comparison, and combination of algorithms for automatic
detection of pulmonary nodules in computed tomography images: The LUNA16 challenge",
Medical Image Analysis 42, 2017.
"""

from __future__ import annotations

from collections.abc import Sequence
import dataclasses

import numpy as np

MAX_MARKS_PER_SCAN = 100

# Score of a nodule without a mark: below every threshold.
MISSED = -np.inf


@dataclasses.dataclass(frozen=True)
class Marks:
  """Points at which a detector reports nodules.

  Attributes:
    scan: [n] int, number of the scan, from 0.
    xyz_mm: [n, 3] float64 world coordinates.
    score: [n] float64, finite; the higher, the more certain.
  """

  scan: np.ndarray
  xyz_mm: np.ndarray
  score: np.ndarray


@dataclasses.dataclass(frozen=True)
class MatchedCandidates:
  """Marks of which it is known what they hit, e.g. records of the dataset.

  Attributes:
    scan: [n] int, number of the scan, from 0.
    score: [n] float64, finite; the higher, the more certain.
    nodule_id: [n] int, the nodule that a mark hits, -1 for none.
    excluded: [n] bool, whether it hits an excluded finding.
  """

  scan: np.ndarray
  score: np.ndarray
  nodule_id: np.ndarray
  excluded: np.ndarray


@dataclasses.dataclass(frozen=True)
class Findings:
  """Nodules to be found, or excluded findings, on which marks are ignored.

  Attributes:
    scan: [n] int, number of the scan, from 0.
    xyz_mm: [n, 3] float64 world coordinates of the centre.
    radius_mm: [n] float64; a mark hits if its distance to the centre is less.
  """

  scan: np.ndarray
  xyz_mm: np.ndarray
  radius_mm: np.ndarray


@dataclasses.dataclass(frozen=True)
class Entries:
  """The input of the FROC curve: all nodules and all false positives.

  Attributes:
    scan: [n] int64, number of the scan.
    score: [n] float64; for a nodule the score of its highest mark, or `MISSED`.
    is_nodule: [n] bool, else a false positive.
    scans: number of scans, those without entries included.
  """

  scan: np.ndarray
  score: np.ndarray
  is_nodule: np.ndarray
  scans: int


@dataclasses.dataclass(frozen=True)
class MatchCounts:
  """Numbers of nodules and marks by the result of the matching.

  Attributes:
    scans: scans evaluated.
    nodules: nodules in them.
    true_positives: nodules that a mark hits.
    false_positives: marks that hit no finding.
    false_negatives: nodules that no mark hits.
    candidates: marks that are kept under the limit of marks per scan.
    ignored_on_excluded: marks that hit excluded findings only.
    ignored_double: marks beyond the first on a nodule, summed over nodules.
    nodules_reachable: nodules that a mark hits if all marks are kept.
    marks_lost_to_ties: marks dropped, although the limit has room for them, because
      their score is equal to that of the first mark beyond it.
    scans_with_lost_ties: scans with such marks.
    scans_without_marks: scans in which the detector reports nothing.
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
class MatchedMarks:
  """The result of `match_marks`.

  Attributes:
    entries: input of the FROC curve; for each scan its nodules, then its false
      positives.
    counts: summed over the scans.
  """

  entries: Entries
  counts: MatchCounts


@dataclasses.dataclass(frozen=True)
class _MatchedScan:
  """The entries and the counts of one scan: [n] float64, [n] bool, counts."""

  score: np.ndarray
  is_nodule: np.ndarray
  counts: MatchCounts


def match_marks(
  marks: Marks,
  nodules: Findings,
  excluded: Findings | None,
  scans: int,
  max_marks_per_scan: int = MAX_MARKS_PER_SCAN,
) -> MatchedMarks:
  """Determines nodules found and missed, false positives and ignored marks.

  Args:
    marks: points that the detector reports, with their scores.
    nodules: findings that it should find.
    excluded: findings on which marks are ignored; None for none. A mark that hits a
      nodule is matched with the nodule, even if it hits an excluded finding too: the
      centre of each nodule also lies in an excluded finding.
    scans: number of scans; the scan numbers of all points are less.
    max_marks_per_scan: limit M. Of a scan with more marks only those are kept whose
      score is above the score of mark M + 1 in descending order; marks with the same
      score as that mark are dropped.

  Raises:
    ValueError: a score is not finite, there is no scan, or the limit is below 1.
  """
  _check(marks.score, scans, max_marks_per_scan)
  if excluded is None:
    excluded = Findings(np.empty(0, int), np.empty((0, 3)), np.empty(0))
  rows_by_scan = (_rows_by_scan(p.scan, scans) for p in (marks, nodules, excluded))
  matched = []
  for m, n, e in zip(*rows_by_scan):
    points_xyz_mm = marks.xyz_mm[m]
    on_excluded = _hits(points_xyz_mm, excluded.xyz_mm[e], excluded.radius_mm[e])
    matched.append(
      _match_scan(
        marks.score[m],
        _hits(points_xyz_mm, nodules.xyz_mm[n], nodules.radius_mm[n]),
        np.asarray(on_excluded.any(axis=1)),
        max_marks_per_scan,
      )
    )
  return _merge_scans(matched)


def match_candidates(
  candidates: MatchedCandidates,
  scans: int,
  max_marks_per_scan: int = MAX_MARKS_PER_SCAN,
) -> MatchedMarks:
  """As `match_marks`, for marks of which it is known what they hit.

  A nodule that no candidate hits is not known here, so the sensitivity is that of the
  nodules that the candidates reach.

  Args:
    candidates: the scored candidates.
    scans: number of scans; the scan numbers of all candidates are less.
    max_marks_per_scan: the limit, see `match_marks`.

  Raises:
    ValueError: a score is not finite, there is no scan, or the limit is below 1.
  """
  _check(candidates.score, scans, max_marks_per_scan)
  matched = []
  for rows in _rows_by_scan(candidates.scan, scans):
    ids = candidates.nodule_id[rows]
    on_nodule: np.ndarray = ids[:, None] == np.unique(ids[ids >= 0])
    matched.append(
      _match_scan(
        candidates.score[rows], on_nodule, candidates.excluded[rows], max_marks_per_scan
      )
    )
  return _merge_scans(matched)


def _merge_scans(matched: Sequence[_MatchedScan]) -> MatchedMarks:
  """Joins the entries of all scans, in order, and sums the counts."""
  scans = len(matched)
  entries = Entries(
    scan=np.repeat(np.arange(scans), [len(scan.score) for scan in matched]),
    score=np.concatenate([scan.score for scan in matched]),
    is_nodule=np.concatenate([scan.is_nodule for scan in matched]),
    scans=scans,
  )
  totals = np.sum([dataclasses.astuple(scan.counts) for scan in matched], axis=0)
  return MatchedMarks(entries, MatchCounts(*totals.tolist()))


def _check(score: np.ndarray, scans: int, max_marks_per_scan: int) -> None:
  """Raises ValueError for the first argument that is out of range."""
  for name, value in (('scans', scans), ('max_marks_per_scan', max_marks_per_scan)):
    if value < 1:
      raise ValueError(f'{name} must be 1 or more. Received: {value}')
  not_finite = np.flatnonzero(~np.isfinite(score))
  if len(not_finite):
    raise ValueError(
      f'scores must be finite. Received: {score[not_finite[0]]} '
      f'for mark {not_finite[0]}'
    )


def _rows_by_scan(scan: np.ndarray, scans: int) -> list[np.ndarray]:
  """Returns the rows of each scan, in their order."""
  order = np.argsort(scan, kind='stable')
  return np.split(order, np.searchsorted(scan[order], np.arange(1, scans)))


def _match_scan(
  score: np.ndarray, on_nodule: np.ndarray, on_excluded: np.ndarray, max_marks: int
) -> _MatchedScan:
  """Matches the marks of one scan.

  Args:
    score: [n] of the marks.
    on_nodule: [n, nodules] bool, which mark hits which nodule.
    on_excluded: [n] bool, whether it hits an excluded finding.
    max_marks: limit of marks per scan.
  """
  no_marks = not len(score)
  nodules_reachable = int(on_nodule.any(axis=0).sum())
  kept = _within_limit(score, max_marks)
  lost_to_ties = min(len(kept), max_marks) - int(kept.sum())
  score, on_nodule, on_excluded = score[kept], on_nodule[kept], on_excluded[kept]
  best = np.where(on_nodule, score[:, None], MISSED).max(axis=0, initial=MISSED)
  # A mark on two nodules finds both, and is not counted as a false positive.
  on_no_nodule = ~on_nodule.any(axis=1)
  false_positives = score[on_no_nodule & ~on_excluded]
  found = int((best != MISSED).sum())
  return _MatchedScan(
    score=np.append(best, false_positives),
    is_nodule=np.repeat([True, False], [len(best), len(false_positives)]),
    counts=MatchCounts(
      scans=1,
      nodules=len(best),
      true_positives=found,
      false_positives=len(false_positives),
      false_negatives=len(best) - found,
      candidates=len(score),
      ignored_on_excluded=int((on_no_nodule & on_excluded).sum()),
      ignored_double=int(on_nodule.sum()) - found,
      nodules_reachable=nodules_reachable,
      marks_lost_to_ties=lost_to_ties,
      scans_with_lost_ties=int(lost_to_ties > 0),
      scans_without_marks=int(no_marks),
    ),
  )


def _within_limit(score: np.ndarray, max_marks: int) -> np.ndarray:
  """Returns [n] bool: which marks of a scan are kept."""
  if len(score) <= max_marks:
    return np.ones(len(score), bool)
  first_beyond_limit = np.sort(score)[-max_marks - 1]
  kept: np.ndarray = score > first_beyond_limit
  return kept


def _hits(
  marks_xyz_mm: np.ndarray, findings_xyz_mm: np.ndarray, radii_mm: np.ndarray
) -> np.ndarray:
  """Returns [marks, findings] bool: which mark of a scan hits which finding."""
  x, y, z = np.moveaxis(marks_xyz_mm[:, None] - findings_xyz_mm[None], -1, 0)
  # The order of addition is that of the official script: rounding decides about a mark
  # on the sphere, as the comparison is strict.
  hits: np.ndarray = x * x + y * y + z * z < radii_mm**2
  return hits
