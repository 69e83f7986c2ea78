"""Finds input files that do not belong together: valid, but probably a mistake."""

from __future__ import annotations

from collections.abc import Mapping
import pathlib

from absl import logging
import numpy as np

from luna_tfds import download as download_lib
from luna_tfds import geometry
from luna_tfds import matching
from luna_tfds import tables
from luna_tfds.errors import ScanError
from luna_tfds.files import store_path
from luna_tfds.scans import meta_image_files
from luna_tfds.text_format import count_text


def log_warnings(
  luna_dir: pathlib.Path,
  scans: Mapping[str, download_lib.ScanFile],
  candidates: tables.PointTable,
) -> None:
  """Logs a warning of one line for each of the `find_problems`."""
  for problem in find_problems(luna_dir, scans, candidates):
    logging.warning('%s', problem)


def find_problems(
  luna_dir: pathlib.Path,
  scans: Mapping[str, download_lib.ScanFile],
  candidates: tables.PointTable,
) -> list[str]:
  """Compares the candidates with the scans, and with annotations.csv.

  Args:
    luna_dir: contains annotations.csv.
    scans: the scans on disk, by seriesuid.
    candidates: all rows of the candidates file, also of scans that are not on disk.

  Returns:
    A line for each problem: its counts, and what to check.

  Raises:
    UsageError: annotations.csv is missing or invalid.
  """
  path = download_lib.require_file(luna_dir, download_lib.ANNOTATIONS)
  nodules = tables.read_findings(path)
  problems = []
  num_outside, num_centers = _count_outside(luna_dir, scans, candidates)
  if 2 * num_outside > num_centers:
    problems.append(
      f'{luna_dir}: {num_outside} of {count_text(num_centers, "candidate")} lie outside '
      'their scans; check that coordX, coordY and coordZ are world coordinates in mm'
    )
  positives = candidates[candidates.class_labels == 1]
  matches = matching.match_findings(positives, nodules, nodules[[]])
  num_missed = np.count_nonzero(matches.nodule_id < 0)
  if num_missed:
    problems.append(
      f'{path}: {num_missed} of {count_text(len(positives), "candidate")} of class 1 hit '
      'none of its nodules; check that it belongs to the candidates file'
    )
  known = {*scans, *candidates.seriesuids}
  num_unknown = sum(name not in known for name in nodules.seriesuids)
  if num_unknown:
    problems.append(
      f'{path}: {num_unknown} of {count_text(len(nodules), "nodule")} have a seriesuid '
      'that is neither a scan on disk nor in the candidates file; check the seriesuids'
    )
  return problems


def _count_outside(
  luna_dir: pathlib.Path,
  scans: Mapping[str, download_lib.ScanFile],
  candidates: tables.PointTable,
) -> tuple[int, int]:
  """Counts candidates whose centre is outside their scan.

  Returns:
    (candidates outside, candidates of scans whose header is valid).
  """

  def count(item: tuple[str, np.ndarray]) -> tuple[int, int]:
    """Counts those of one scan, given its seriesuid and the rows of its candidates."""
    seriesuid, positions = item
    try:
      grid = meta_image_files.read_meta_header(scans[seriesuid].path).grid
      indices = geometry.world_to_voxel(candidates.xyz_mm[positions], grid)
    except (ScanError, np.linalg.LinAlgError):  # reported when the scan is opened
      return 0, 0
    # Coordinates may be too large for an integer.
    nearest = geometry.nearest_voxel(np.clip(indices, -1e9, 1e9))
    outside = ((nearest < 0) | (nearest >= grid.shape_zyx)).any(axis=1)
    return int(np.count_nonzero(outside)), len(positions)

  items = [item for item in candidates.groups().items() if item[0] in scans]
  counts = store_path.map_files(count, items, luna_dir)
  return sum(n for n, _ in counts), sum(n for _, n in counts)
