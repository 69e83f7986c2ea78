"""Scores a submission as LUNA16's official script does, and writes the result."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import csv
import dataclasses
import math
import pathlib
from typing import Any

import numpy as np

from luna_tfds import download as download_lib
from luna_tfds import matching
from luna_tfds import tables
from luna_tfds.errors import UsageError
from luna_tfds.files import atomic_files
from luna_tfds.tables import PointTable
from luna_tfds.text_format import count_text
from luna_tfds.text_format import shown_text
from model.metrics import froc
from model.metrics import froc_matching
from model.metrics.resampling import Resampling

# Which nodules the sensitivity is a share of: all of annotations.csv in the scans, or those
# that a candidate hits.
ANNOTATED, REACHED = 'annotated', 'reached by candidates'


@dataclasses.dataclass(frozen=True)
class FrocReference:
  """What a submission is compared with.

  Attributes:
    nodules: annotations.csv: the nodules to find.
    excluded: annotations_excluded.csv: findings on which a mark is ignored; None if not
      given.
    seriesuids: the scans to score; None for those with a mark.
  """

  nodules: PointTable
  excluded: PointTable | None
  seriesuids: tuple[str, ...] | None


@dataclasses.dataclass(frozen=True)
class FrocResult:
  """A scored submission.

  Attributes:
    nodules_counted: `ANNOTATED` or `REACHED`.
    entries: nodules and false positives.
    counts: numbers of nodules and marks by the result of the matching.
    curve: the FROC curve.
    band: its confidence band; None without resamples.
    warnings: what a reader of the result should know; each is one line.
    max_marks_per_scan: marks of a scan that count.
    resampling: number of resamples and seed of the band.
  """

  nodules_counted: str
  entries: froc_matching.Entries
  counts: froc_matching.MatchCounts
  curve: froc.FrocCurve
  band: froc.ConfidenceBand | None
  warnings: tuple[str, ...]
  max_marks_per_scan: int
  resampling: Resampling

  def __str__(self) -> str:
    text = f'CPM {self.curve.cpm:.3f}'
    if self.band and np.isfinite(self.band.cpm.mean):
      interval = self.band.cpm.interval
      text += f' (95 %: {interval.lower:.3f} to {interval.upper:.3f})'
    return text

  def to_json(self) -> dict[str, Any]:
    """Returns the content of froc.json; undefined numbers are NaN."""
    counts = self.counts
    return {
      'nodules_counted': self.nodules_counted,
      **dataclasses.asdict(counts),
      'sensitivity_ceiling': counts.nodules_reachable / counts.nodules,
      'sensitivity_ceiling_after_cap': counts.true_positives / counts.nodules,
      'false_positives_per_scan': list(froc.FPS_PER_SCAN),
      'sensitivity': self.curve.sensitivity_at(froc.FPS_PER_SCAN).tolist(),
      'cpm': self.curve.cpm,
      **(self.band.to_json() if self.band else {}),
      'max_marks_per_scan': self.max_marks_per_scan,
      'bootstrap': self.resampling.to_json('scans'),
      'warnings': list(self.warnings),
    }


def read_reference(
  annotations: pathlib.Path | None,
  excluded: pathlib.Path | None,
  seriesuids: pathlib.Path | None,
  luna_dir: pathlib.Path | None = None,
  subsets: Sequence[int] | None = None,
) -> FrocReference | None:
  """Reads what a submission is compared with.

  Args:
    annotations: annotations.csv.
    excluded: annotations_excluded.csv, or None.
    seriesuids: list of the scans to score, or None.
    luna_dir: the LUNA16 download, for what is not given: the two files, and the scans of
      the subsets.
    subsets: whose scans are scored; None for the scans with a mark.

  Returns:
    The reference; None if no annotations are given.

  Raises:
    UsageError: a file is missing or wrong.
  """
  listed = read_seriesuids(seriesuids) if seriesuids else None
  if luna_dir:
    if listed is None and subsets is not None:
      scans = download_lib.find_scans(luna_dir).values()
      # None of a partial download: the scans with a mark are scored.
      listed = tuple(s.seriesuid for s in scans if s.subset in subsets) or None
    annotations = annotations or download_lib.require_file(
      luna_dir, download_lib.ANNOTATIONS
    )
    excluded = excluded or download_lib.find_file(
      luna_dir, download_lib.ANNOTATIONS_EXCLUDED
    )
  if annotations is None:
    return None
  return FrocReference(
    nodules=tables.read_findings(annotations),
    excluded=tables.read_findings(excluded) if excluded else None,
    seriesuids=listed,
  )


def read_seriesuids(path: pathlib.Path) -> tuple[str, ...]:
  """Reads the list of scans: one seriesuid on each line, with or without a header.

  Raises:
    UsageError: the file cannot be read, is empty, or names a scan twice.
  """
  try:
    lines = path.read_text(encoding='utf-8-sig').splitlines()
  except (OSError, UnicodeDecodeError) as error:
    raise UsageError(f'{path}: cannot be read: {error}') from error
  first_line: dict[str, int] = {}
  for number, line in enumerate(lines, start=1):
    seriesuid = line.strip()
    if not seriesuid or (not first_line and seriesuid == 'seriesuid'):
      continue
    if ',' in seriesuid:
      raise UsageError(
        f'{path}, line {number}: one seriesuid on each line is expected, found '
        f'"{shown_text(seriesuid)}"'
      )
    if seriesuid in first_line:
      raise UsageError(
        f'{path}, line {number}: the seriesuid {shown_text(seriesuid)} is in '
        f'line {first_line[seriesuid]} already; remove one'
      )
    first_line[seriesuid] = number
  if not first_line:
    raise UsageError(f'{path}: names no scan; expected one seriesuid on each line')
  return tuple(first_line)


def score_submission(
  submission: PointTable,
  reference: FrocReference,
  resampling: Resampling,
  max_marks_per_scan: int = froc_matching.MAX_MARKS_PER_SCAN,
) -> FrocResult:
  """Scores marks as LUNA16's official script does.

  Args:
    submission: marks with their probabilities.
    reference: nodules, excluded findings, and the scans to score. Marks and findings of
      other scans are left out.
    resampling: how the confidence band is computed.
    max_marks_per_scan: the most probable marks of a scan that count.

  Raises:
    UsageError: the scans hold no nodule, or no mark is in any of them.
    ValueError: a number is out of range, or a probability is not finite.
  """
  seriesuids = reference.seriesuids
  if seriesuids is None:
    seriesuids = tuple(sorted(set(submission.seriesuids)))
  number_of = {seriesuid: number for number, seriesuid in enumerate(seriesuids)}
  listed = _scan_numbers(submission, number_of) >= 0
  if not listed.any():
    raise UsageError(
      f'no mark of the submission is in one of the {len(number_of)} scans of the list; '
      'check that --submission and --seriesuids belong together'
    )
  marks = submission[listed]
  nodules = _as_spheres(reference.nodules, number_of)
  if not len(nodules.scan):
    raise UsageError(
      f'no nodule of the annotations is in one of the {len(number_of)} scans of the '
      'list; check that --annotations and --seriesuids belong together'
    )
  matched = froc_matching.match_marks(
    froc_matching.Marks(
      _scan_numbers(marks, number_of), marks.xyz_mm, marks.probabilities
    ),
    nodules,
    None if reference.excluded is None else _as_spheres(reference.excluded, number_of),
    len(number_of),
    max_marks_per_scan,
  )
  return make_result(
    matched,
    ANNOTATED,
    [*_unlisted_warning(submission[~listed]), *_excluded_warning(reference)],
    resampling,
    max_marks_per_scan,
  )


def make_result(
  matched: froc_matching.MatchedMarks,
  nodules_counted: str,
  warnings: Sequence[str],
  resampling: Resampling,
  max_marks_per_scan: int = froc_matching.MAX_MARKS_PER_SCAN,
) -> FrocResult:
  """Computes the curve and its band from matched marks.

  Args:
    matched: the matched marks; there is at least one nodule.
    nodules_counted: `ANNOTATED` or `REACHED`.
    warnings: what is known so far.
    resampling: how the confidence band is computed.
    max_marks_per_scan: the limit with which the marks were matched.

  Raises:
    ValueError: there is no nodule.
  """
  has_band = resampling.resamples > 0
  return FrocResult(
    nodules_counted=nodules_counted,
    entries=matched.entries,
    counts=matched.counts,
    curve=froc.froc_curve(matched.entries),
    band=froc.confidence_band(matched.entries, resampling) if has_band else None,
    warnings=(*warnings, *_tie_warning(matched.counts, max_marks_per_scan)),
    max_marks_per_scan=max_marks_per_scan,
    resampling=resampling,
  )


def write_result(result: FrocResult, folder: pathlib.Path) -> None:
  """Writes froc.csv, and froc.json last.

  Args:
    result: result of `score_submission`.
    folder: must be there.
  """
  _write_curve(result, folder / 'froc.csv')
  atomic_files.write_json(folder / 'froc.json', result.to_json())


def _scan_numbers(table: PointTable, number_of: Mapping[str, int]) -> np.ndarray:
  """Returns the [n] scan number of each row, -1 for a scan that is not listed."""
  return np.array([number_of.get(uid, -1) for uid in table.seriesuids], np.int64)


def _as_spheres(
  table: PointTable, number_of: Mapping[str, int]
) -> froc_matching.Findings:
  """Returns the findings of the listed scans."""
  scans = _scan_numbers(table, number_of)
  table, scans = table[scans >= 0], scans[scans >= 0]
  radii_mm = matching.radii_mm(table.diameters_mm)
  return froc_matching.Findings(scans, table.xyz_mm, radii_mm)


def _unlisted_warning(unlisted: PointTable) -> list[str]:
  """Warns of marks in scans that are not listed."""
  if not len(unlisted):
    return []
  marks = count_text(len(unlisted), 'mark')
  scans = count_text(len(set(unlisted.seriesuids)), 'scan')
  return [
    f'{marks} in {scans} outside the list left out; the first scan is '
    f'{unlisted.seriesuids[0]}'
  ]


def _excluded_warning(reference: FrocReference) -> list[str]:
  if reference.excluded is not None:
    return []
  return [
    'annotations_excluded is not given: marks on excluded findings count as false '
    'positives, which lowers the CPM'
  ]


def _tie_warning(counts: froc_matching.MatchCounts, max_marks: int) -> list[str]:
  if not counts.marks_lost_to_ties:
    return []
  marks = count_text(counts.marks_lost_to_ties, 'mark')
  scans = count_text(counts.scans_with_lost_ties, 'scan')
  return [
    f'{marks} in {scans} dropped because of ties at the limit of {max_marks} marks per '
    'scan; write probabilities with more digits'
  ]


def _write_curve(result: FrocResult, path: pathlib.Path) -> None:
  """Writes a row for each point of the curve, with the band where it is defined."""
  curve = result.curve
  columns = {
    'false_positives_per_scan': curve.fps_per_scan,
    'sensitivity': curve.sensitivity,
    'threshold': curve.threshold,
  }
  if result.band:
    band = result.band.curve
    for part in ('mean', 'lower', 'upper'):
      columns[f'sensitivity_{part}'] = np.interp(
        curve.fps_per_scan,
        band.fps_per_scan,
        getattr(band, part),
        left=math.nan,
        right=math.nan,
      )
  with atomic_files.atomic_text(path) as file:
    writer = csv.writer(file, lineterminator='\n')
    writer.writerow(columns)
    for row in zip(*(values.tolist() for values in columns.values())):
      writer.writerow(['' if math.isnan(value) else value for value in row])
