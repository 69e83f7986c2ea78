"""A classifier's figures by what they depend on: nodule, slice thickness, subset."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
import dataclasses
import itertools
from typing import Any

import numpy as np

from model import bootstrap as bootstrap_lib
from model import metrics as metrics_lib
from trainer import scoring

# LUNA16 keeps nodules of 3 mm and more, and scans of slices up to 2.5 mm.
DIAMETERS_MM = (3.0, 5.0, 10.0)
SLICES_MM = (1.0, 1.5, 2.0)

_BIN_FIGURES = ('recall', 'specificity', 'precision', 'roc_auc', 'pr_auc')


@dataclasses.dataclass(frozen=True)
class Resampling:
  """How intervals are drawn.

  Attributes:
    resamples: of scans; 0 for no intervals.
    seed: of the draws.
  """

  resamples: int = 1000
  seed: int = 0


def by_diameter(
  scores: scoring.Scores, called: np.ndarray, resampling: Resampling
) -> list[dict[str, Any]]:
  """Tells how many nodules of each size are found.

  Of a nodule's diameter nothing is known where a record hits none of annotations.csv;
  these records make no row.

  Args:
    scores: of the records.
    called: [n] bool, what is called a nodule.
    resampling: for the intervals, within each bin.

  Returns:
    A row a bin that is not empty: `bin`, `from_mm`, `below_mm` (None: no bound),
    `records` that hit such nodules, the `recall` and `mean_probability` over them;
    `nodules`, and the share `nodule_recall` of them of which a record is called.
  """
  nodule_ids = scores.features['nodule_id']
  diameters = scores.features['diameter_mm']
  known = (scores.labels == 1) & (nodule_ids >= 0) & (diameters > 0)
  rows = []
  for name, low, high, mask in _bins(diameters, DIAMETERS_MM, known):
    groups = scores.groups[mask]
    found, scans = _nodules(nodule_ids[mask], called[mask], groups)
    of = {
      'recall': (called[mask], groups),
      'mean_probability': (scores.probabilities[mask], groups),
      'nodule_recall': (found, scans),
    }
    row: dict[str, Any] = {
      'bin': name,
      'from_mm': low,
      'below_mm': high,
      'records': int(mask.sum()),
      'nodules': len(found),
      **{name: float(np.mean(values)) for name, (values, _) in of.items()},
    }
    if resampling.resamples:
      row['intervals'] = {
        name: bootstrap_lib.mean_interval(
          values, of_scan, resampling.resamples, resampling.seed
        )
        for name, (values, of_scan) in of.items()
      }
    rows.append(row)
  return rows


def by_slice_thickness(
  scores: scoring.Scores, called: np.ndarray, resampling: Resampling
) -> list[dict[str, Any]]:
  """Tells the figures by the distance of a scan's slices.

  Args:
    scores: of records whose images are stored at the scan's own spacing.
    called: [n] bool.
    resampling: for the intervals.

  Returns:
    A row a bin that is not empty, as `by_subset`, and `from_mm` and `below_mm`.
  """
  thickness = scores.features['spacing_xyz_mm'][:, 2]
  return [
    {
      'bin': name,
      'from_mm': low,
      'below_mm': high,
      **_figures(scores, called, mask, resampling),
    }
    for name, low, high, mask in _bins(thickness, SLICES_MM, np.isfinite(thickness))
  ]


def by_subset(
  scores: scoring.Scores, called: np.ndarray, resampling: Resampling
) -> list[dict[str, Any]]:
  """Tells the figures by LUNA16's subsets.

  Args:
    scores: of the records.
    called: [n] bool.
    resampling: for the intervals.

  Returns:
    A row a subset: `subset`, `records`, `scans`, `nodules` (records of that class) and
    the figures, None where undefined; `intervals`.
  """
  subsets = scores.features['subset']
  return [
    {'subset': int(s), **_figures(scores, called, subsets == s, resampling)}
    for s in np.unique(subsets[subsets >= 0])
  ]


def _figures(
  scores: scoring.Scores, called: np.ndarray, mask: np.ndarray, resampling: Resampling
) -> dict[str, Any]:
  some = scores.labels[mask], scores.probabilities[mask], called[mask]
  summary = metrics_lib.summary(*some)
  row = {
    'records': summary['records'],
    'scans': len(np.unique(scores.groups[mask])),
    'nodules': summary['nodules'],
    **{name: summary[name] for name in _BIN_FIGURES},
  }
  if resampling.resamples:
    drawn = bootstrap_lib.intervals(
      *some, scores.groups[mask], resampling.resamples, resampling.seed
    )
    row['intervals'] = {name: drawn[name] for name in _BIN_FIGURES}
  return row


def _nodules(
  nodule_ids: np.ndarray, called: np.ndarray, groups: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
  """Returns of each nodule whether one of its records is called, and its scan."""
  _, first, number = np.unique(nodule_ids, return_index=True, return_inverse=True)
  return np.bincount(number, called) > 0, groups[first]


def _bins(
  values: np.ndarray, edges: Sequence[float], known: np.ndarray
) -> Iterator[tuple[str, float | None, float | None, np.ndarray]]:
  """Yields (name, from, below, [n] bool) of each bin with a known value in it."""
  bounds = [None, *edges, None]
  # Spacings are float32: 0.7 and 1.25 must fall where a reader expects them.
  which = np.digitize(np.round(np.asarray(values, np.float64), 5), edges)
  for k, (low, high) in enumerate(itertools.pairwise(bounds)):
    mask = known & (which == k)
    if mask.any():
      yield _bin_name(low, high), low, high, mask


def _bin_name(low: float | None, high: float | None) -> str:
  if low is None:
    return f'below {high:g} mm'
  return f'{low:g} mm and over' if high is None else f'{low:g} to {high:g} mm'
