"""Which nodule or excluded finding each candidate hits."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from luna_tfds.tables import PointTable

# As in LUNA16's evaluation script. Unknown diameters are written as -1.
UNKNOWN_DIAMETER_MM = 10.0


@dataclasses.dataclass(frozen=True)
class CandidateMatches:
  """The finding that each candidate hits; the arrays have one entry per candidate.

  Attributes:
    nodule_id: [n] int64 row of annotations.csv, -1 for none.
    diameter_mm: [n] float32 diameter of that nodule, 0 for none.
    excluded: [n] bool: hits an excluded finding and no nodule.
  """

  nodule_id: np.ndarray
  diameter_mm: np.ndarray
  excluded: np.ndarray

  def __getitem__(self, index: Any) -> CandidateMatches:
    """Returns the entries that a NumPy index of one axis selects."""
    return CandidateMatches(
      self.nodule_id[index], self.diameter_mm[index], self.excluded[index]
    )


def match_findings(
  candidates: PointTable, nodules: PointTable, excluded: PointTable
) -> CandidateMatches:
  """Finds the nodule that each candidate hits or, if none, an excluded finding.

  A candidate hits a finding when the distance to its centre is less than half its
  diameter, as in LUNA16's evaluation script. If it hits several nodules, the nearest
  counts. Nodules are matched first, since every nodule's centre also lies in an excluded
  finding.

  Args:
    candidates: the candidates.
    nodules: annotations.csv.
    excluded: annotations_excluded.csv.

  Returns:
    The matches, in the order of `candidates`.
  """
  nodule_id = np.full(len(candidates), -1, np.int64)
  diameter_mm = np.zeros(len(candidates), np.float32)
  in_excluded = np.zeros(len(candidates), bool)
  nodules_of, excluded_of = nodules.groups(), excluded.groups()
  for seriesuid, rows in candidates.groups().items():
    points = candidates.xyz_mm[rows]
    scan_nodules = nodules[nodules_of.get(seriesuid, [])]
    if len(scan_nodules):
      nearest, hit = _nearest_hit(points, scan_nodules)
      nodule_id[rows[hit]] = scan_nodules.rows[nearest[hit]]
      diameter_mm[rows[hit]] = scan_nodules.diameters_mm[nearest[hit]]
    scan_excluded = excluded[excluded_of.get(seriesuid, [])]
    if len(scan_excluded):
      in_excluded[rows[_nearest_hit(points, scan_excluded)[1]]] = True
  return CandidateMatches(nodule_id, diameter_mm, in_excluded & (nodule_id < 0))


def radii_mm(diameters_mm: np.ndarray) -> np.ndarray:
  """Returns the radii of findings; a negative diameter is unknown and counts as 10 mm."""
  return np.where(diameters_mm < 0, UNKNOWN_DIAMETER_MM, diameters_mm) / 2


def _nearest_hit(
  points_xyz_mm: np.ndarray, findings: PointTable
) -> tuple[np.ndarray, np.ndarray]:
  """Finds the nearest finding that each of n points hits.

  Returns:
    ([n] position of the finding in `findings`, [n] whether the point hits any).
  """
  # One axis after the other: a sum over a last axis of three takes three times as long.
  squared = np.zeros((len(points_xyz_mm), len(findings)))
  for axis in range(3):
    offset = np.subtract.outer(points_xyz_mm[:, axis], findings.xyz_mm[:, axis])
    squared += offset * offset
  squared[squared >= radii_mm(findings.diameters_mm) ** 2] = np.inf
  nearest = squared.argmin(axis=1)
  return nearest, np.isfinite(squared[np.arange(len(nearest)), nearest])
