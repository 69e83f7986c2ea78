"""Metrics by diameter of the nodule, by slice thickness and by subset."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
import dataclasses
import itertools
from typing import Any

import numpy as np

from model.metrics import bootstrap
from model.metrics import classification
from model.metrics import resampling as resampling_lib
from model.metrics.resampling import Interval
from model.metrics.resampling import Resampling
from trainer.scoring.scored_records import ScoredRecords

# LUNA16 keeps nodules of 3 mm and more, and scans with slices of up to 2.5 mm.
_DIAMETER_EDGES_MM = (3.0, 5.0, 10.0)
_SLICE_EDGES_MM = (1.0, 1.5, 2.0)

# The metrics of a group of records.
GROUP_METRICS = ('recall', 'specificity', 'precision', 'roc_auc', 'pr_auc')
# Spacings and diameters are float32: 0.7 and 1.25 must be in the expected bin.
_BIN_DECIMALS = 5


@dataclasses.dataclass(frozen=True)
class MillimetreBin:
  """A half-open range of lengths.

  Attributes:
    from_mm: lower bound, inclusive; None for none.
    below_mm: upper bound, exclusive; None for none.
  """

  from_mm: float | None
  below_mm: float | None

  @property
  def name(self) -> str:
    """E.g. '3 to 5 mm'."""
    if self.from_mm is None:
      return f'below {self.below_mm:g} mm'
    if self.below_mm is None:
      return f'{self.from_mm:g} mm and over'
    return f'{self.from_mm:g} to {self.below_mm:g} mm'

  def to_json(self) -> dict[str, Any]:
    """Returns name and bounds."""
    return {'bin': self.name, 'from_mm': self.from_mm, 'below_mm': self.below_mm}


@dataclasses.dataclass(frozen=True)
class DiameterRow:
  """How many nodules of one size are found.

  Attributes:
    bin: range of the diameters in mm.
    records: number of records that hit such a nodule.
    nodules: number of such nodules that a record hits.
    recall: recall over the records.
    mean_probability: mean probability over the records.
    nodule_recall: fraction of the nodules of which a record is predicted to be a
      nodule.
    intervals: confidence intervals of recall, mean probability and nodule recall, by
      name; empty without resamples.
  """

  bin: MillimetreBin
  records: int
  nodules: int
  recall: float
  mean_probability: float
  nodule_recall: float
  intervals: dict[str, Interval]

  def to_json(self) -> dict[str, Any]:
    """Returns the row as in metrics.json."""
    return {
      **self.bin.to_json(),
      'records': self.records,
      'nodules': self.nodules,
      'recall': self.recall,
      'mean_probability': self.mean_probability,
      'nodule_recall': self.nodule_recall,
      **resampling_lib.intervals_to_json(self.intervals),
    }


@dataclasses.dataclass(frozen=True)
class GroupRow:
  """The metrics of a group of records.

  Attributes:
    group: a bin of slice thickness, or a subset.
    scans: number of scans of the records; a record of an unknown scan counts as one.
    metrics: metrics of the records.
    intervals: confidence intervals of `GROUP_METRICS`, by name; empty without
      resamples.
  """

  group: MillimetreBin | int
  scans: int
  metrics: classification.ClassificationMetrics
  intervals: dict[str, Interval]

  @property
  def name(self) -> str:
    """Name of the bin or number of the subset."""
    return str(self.group) if isinstance(self.group, int) else self.group.name

  def to_json(self) -> dict[str, Any]:
    """Returns the row as in metrics.json."""
    group = self.group
    return {
      **({'subset': group} if isinstance(group, int) else group.to_json()),
      'records': self.metrics.records,
      'scans': self.scans,
      'nodules': self.metrics.nodules,
      **{name: self.metrics.value(name) for name in GROUP_METRICS},
      **resampling_lib.intervals_to_json(self.intervals),
    }


def by_diameter(
  records: ScoredRecords, predicted: np.ndarray, resampling: Resampling
) -> list[DiameterRow]:
  """Measures how many nodules of each size are found.

  The diameter is known where a record hits a nodule of annotations.csv; other records
  are left out.

  Args:
    records: the scored records.
    predicted: [n] bool, whether a record is predicted to be a nodule.
    resampling: for the intervals, within each bin.

  Returns:
    A row for each bin that is not empty.
  """
  known = (records.label == 1) & (records.nodule_id >= 0) & (records.diameter_mm > 0)
  rows = []
  for bin_, mask in _bins(records.diameter_mm, _DIAMETER_EDGES_MM, known):
    groups = records.groups[mask]
    found, scan_of_nodule = _found_nodules(
      records.nodule_id[mask], predicted[mask], groups
    )
    # By metric, the values whose mean it is and the scan of each.
    means = {
      'recall': (predicted[mask], groups),
      'mean_probability': (records.probability[mask], groups),
      'nodule_recall': (found, scan_of_nodule),
    }
    intervals = {}
    if resampling.resamples:
      intervals = {
        name: bootstrap.mean_interval(values, scans, resampling)
        for name, (values, scans) in means.items()
      }
    rows.append(
      DiameterRow(
        bin=bin_,
        records=int(mask.sum()),
        nodules=len(found),
        **{name: float(np.mean(values)) for name, (values, _) in means.items()},
        intervals=intervals,
      )
    )
  return rows


def by_slice_thickness(
  records: ScoredRecords, predicted: np.ndarray, resampling: Resampling
) -> list[GroupRow]:
  """Measures by the distance between the slices of a scan.

  Args:
    records: whose images are stored at the scan's own spacing.
    predicted: [n] bool.
    resampling: how the intervals are computed.

  Returns:
    A row for each bin that is not empty.
  """
  thickness_mm = records.spacing_xyz_mm[:, 2]
  return [
    _group_row(bin_, records, predicted, mask, resampling)
    for bin_, mask in _bins(thickness_mm, _SLICE_EDGES_MM, np.isfinite(thickness_mm))
  ]


def by_subset(
  records: ScoredRecords, predicted: np.ndarray, resampling: Resampling
) -> list[GroupRow]:
  """Measures by LUNA16's subsets; returns a row for each that has a record."""
  return [
    _group_row(int(s), records, predicted, records.subset == s, resampling)
    for s in np.unique(records.subset[records.subset >= 0])
  ]


def _group_row(
  group: MillimetreBin | int,
  records: ScoredRecords,
  predicted: np.ndarray,
  mask: np.ndarray,
  resampling: Resampling,
) -> GroupRow:
  some = records.label[mask], records.probability[mask], predicted[mask]
  groups = records.groups[mask]
  intervals = {}
  if resampling.resamples:
    all_intervals = bootstrap.metric_intervals(*some, groups, resampling)
    intervals = {name: all_intervals[name] for name in GROUP_METRICS}
  metrics = classification.classification_metrics(*some)
  return GroupRow(group, len(np.unique(groups)), metrics, intervals)


def _found_nodules(
  nodule_ids: np.ndarray, predicted: np.ndarray, groups: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
  """Returns for each nodule whether one of its records is predicted, and its scan."""
  _, first, number = np.unique(nodule_ids, return_index=True, return_inverse=True)
  return np.bincount(number, predicted) > 0, groups[first]


def _bins(
  values: np.ndarray, edges: Sequence[float], known: np.ndarray
) -> Iterator[tuple[MillimetreBin, np.ndarray]]:
  """Yields each bin with a known value in it, and [n] bool, the values in it."""
  bin_of_value = np.digitize(
    np.round(np.asarray(values, np.float64), _BIN_DECIMALS), edges
  )
  for k, (low, high) in enumerate(itertools.pairwise([None, *edges, None])):
    mask = known & (bin_of_value == k)
    if mask.any():
      yield MillimetreBin(low, high), mask
