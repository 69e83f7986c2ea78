"""LUNA16's tables: candidates, nodules, excluded findings, and the scans on disk."""

from __future__ import annotations

import array
from collections.abc import Iterator, Sequence
import contextlib
import csv
import dataclasses
import io
import pathlib
import re
from typing import Any
import zipfile
import zlib

import numpy as np

from luna_tfds.errors import UsageError

CANDIDATE_LISTS = {'V1': 'candidates.csv', 'V2': 'candidates_V2.csv'}
ANNOTATIONS = 'annotations.csv'
ANNOTATIONS_EXCLUDED = 'annotations_excluded.csv'
NUM_SUBSETS = 10

# LUNA16's evaluation script takes findings of unknown size (diameter -1) as 10 mm.
UNKNOWN_DIAMETER_MM = 10.0

# What reading a damaged, encrypted or binary file raises.
_UNREADABLE = (
  OSError,
  UnicodeDecodeError,
  csv.Error,
  zipfile.BadZipFile,
  zlib.error,
  RuntimeError,
)

_COORDINATES = ('coordX', 'coordY', 'coordZ')


@dataclasses.dataclass(frozen=True)
class Table:
  """Points in scans, column by column.

  Attributes:
    seriesuids: [n] object array of str.
    xyz_mm: [n, 3] float64 world points.
    values: [n] float64: the class of a candidate (NaN if not given), the diameter of
      a finding in mm, the probability of a mark.
    rows: [n] int64: the row in the file, from 0.
  """

  seriesuids: np.ndarray
  xyz_mm: np.ndarray
  values: np.ndarray
  rows: np.ndarray

  def __len__(self) -> int:
    return len(self.rows)

  def __getitem__(self, index: Any) -> Table:
    return Table(
      self.seriesuids[index], self.xyz_mm[index], self.values[index], self.rows[index]
    )

  def groups(self) -> dict[str, np.ndarray]:
    """Maps each seriesuid to the positions of its rows, in file order."""
    if not len(self):
      return {}
    order = np.argsort(self.seriesuids, kind='stable')
    ordered = self.seriesuids[order]
    starts = np.flatnonzero(np.append(True, ordered[1:] != ordered[:-1]))
    return {
      ordered[start]: part for start, part in zip(starts, np.split(order, starts[1:]))
    }


@dataclasses.dataclass(frozen=True)
class ScanFile:
  """A scan of the download."""

  seriesuid: str
  subset: int
  path: pathlib.Path


@dataclasses.dataclass(frozen=True)
class Findings:
  """What each candidate hits; one entry a candidate.

  Attributes:
    nodule_id: [n] int64 row of annotations.csv, -1 for none.
    diameter_mm: [n] float32 diameter of that nodule, 0 for none.
    excluded: [n] bool: hits an excluded finding and no nodule.
  """

  nodule_id: np.ndarray
  diameter_mm: np.ndarray
  excluded: np.ndarray


def read_candidates(path: pathlib.Path, *, labelled: bool = True) -> Table:
  """Reads a candidates file; `values` is the class, 0 or 1.

  Args:
    path: a CSV with seriesuid, coordX, coordY, coordZ and class, plain or zipped.
    labelled: whether the class is needed; without it `values` is NaN.

  Raises:
    UsageError: the file cannot be read, or a row is wrong.
  """
  table = read_table(path, 'class' if labelled else None)
  wrong = np.flatnonzero(~np.isin(table.values, (0, 1)))
  if labelled and len(wrong):
    raise UsageError(
      f'{path}, row {wrong[0]} (from 0): class must be 0 or 1, found '
      f'{table.values[wrong[0]]:g}; correct the row'
    )
  return table


def read_findings(path: pathlib.Path) -> Table:
  """Reads annotations.csv or annotations_excluded.csv; `values` is the diameter."""
  return read_table(path, 'diameter_mm', may_be_empty=True)


def find_file(luna_dir: pathlib.Path, name: str) -> pathlib.Path | None:
  """Returns the CSV `name` in `luna_dir`, plain or zipped, or None."""
  for choice in (name, f'{name}.zip', pathlib.PurePath(name).stem + '.zip'):
    if (luna_dir / choice).is_file():
      return luna_dir / choice
  return None


def require_file(luna_dir: pathlib.Path, name: str) -> pathlib.Path:
  """Like `find_file`, but the file must be there."""
  path = find_file(luna_dir, name)
  if path is None:
    raise UsageError(
      f'{luna_dir}: {name} (or {name}.zip) is missing; --luna_dir must be the folder '
      "of LUNA16's download, which holds the CSV files and subset0..subset9"
    )
  return path


def find_scans(luna_dir: pathlib.Path) -> dict[str, ScanFile]:
  """Lists the scans of a download: `subset<k>/**/<seriesuid>.mhd`.

  Args:
    luna_dir: the download as unpacked; a part of it will do.

  Returns:
    The scans by seriesuid, sorted.

  Raises:
    UsageError: there is no such folder, no scan in it, or one scan twice.
  """
  if not luna_dir.is_dir():
    raise UsageError(
      f'{luna_dir}: no such folder; --luna_dir must be the unpacked LUNA16 download '
      '(luna16-phantom writes a synthetic one)'
    )
  scans: dict[str, ScanFile] = {}
  for folder in sorted(luna_dir.glob('subset*')):
    match = re.fullmatch(r'subset([0-9])', folder.name)
    if not match or not folder.is_dir():
      continue
    for path in sorted(folder.rglob('*.mhd')):
      seriesuid = path.stem
      if seriesuid in scans:
        raise UsageError(
          f'the scan {seriesuid} is on disk twice: {scans[seriesuid].path} and {path}; '
          'remove one'
        )
      scans[seriesuid] = ScanFile(seriesuid, int(match[1]), path)
  if not scans:
    raise UsageError(
      f'{luna_dir}: no scan in it; expected subset0..subset9 with .mhd files, as '
      "LUNA16's archives unpack"
    )
  return dict(sorted(scans.items()))


def match_findings(candidates: Table, nodules: Table, excluded: Table) -> Findings:
  """Tells which nodule each candidate hits, and else which hit an excluded finding.

  A finding is hit when the distance to its centre is less than half its diameter, as
  in LUNA16's evaluation script; of several nodules the nearest counts.

  Args:
    candidates: the candidates.
    nodules: annotations.csv.
    excluded: annotations_excluded.csv. Nodules are looked up first: each nodule's
      centre also lies in an excluded finding.

  Returns:
    One entry a candidate.
  """
  nodule_id = np.full(len(candidates), -1, np.int64)
  diameter_mm = np.zeros(len(candidates), np.float32)
  in_excluded = np.zeros(len(candidates), bool)
  nodules_of, excluded_of = nodules.groups(), excluded.groups()
  for seriesuid, rows in candidates.groups().items():
    points = candidates.xyz_mm[rows]
    found = nodules[nodules_of.get(seriesuid, [])]
    if len(found):
      nearest, hit = _nearest_hit(points, found)
      nodule_id[rows[hit]] = found.rows[nearest[hit]]
      diameter_mm[rows[hit]] = found.values[nearest[hit]]
    grey = excluded[excluded_of.get(seriesuid, [])]
    if len(grey):
      in_excluded[rows[_nearest_hit(points, grey)[1]]] = True
  return Findings(nodule_id, diameter_mm, in_excluded & (nodule_id < 0))


def radii_mm(diameters_mm: np.ndarray) -> np.ndarray:
  """Half the diameters; a negative one means unknown."""
  return np.where(diameters_mm < 0, UNKNOWN_DIAMETER_MM, diameters_mm) / 2


def _nearest_hit(
  points_xyz_mm: np.ndarray, findings: Table
) -> tuple[np.ndarray, np.ndarray]:
  """Returns the nearest finding hit by each of n points, and whether there is one."""
  squared = ((points_xyz_mm[:, None] - findings.xyz_mm[None]) ** 2).sum(-1)
  squared[squared >= radii_mm(findings.values) ** 2] = np.inf
  nearest = squared.argmin(axis=1)
  return nearest, np.isfinite(squared[np.arange(len(nearest)), nearest])


def read_table(
  path: pathlib.Path, value_column: str | None, *, may_be_empty: bool = False
) -> Table:
  """Reads a CSV of points: seriesuid, coordX, coordY, coordZ and one value.

  Line ends may be CRLF or LF and the last one may be missing.

  Args:
    path: the file, plain or zipped.
    value_column: the column that becomes `values`; None leaves NaN there.
    may_be_empty: whether a file without rows will do.

  Returns:
    The rows in file order.

  Raises:
    UsageError: names the file, the row and what is wrong.
  """
  columns = ('seriesuid', *_COORDINATES) + ((value_column,) if value_column else ())
  # Rows of one scan share one string; numbers go into compact arrays at once, as the
  # rows of a whole list would take half a gigabyte as Python objects.
  names: dict[str, str] = {}
  seriesuids: list[str] = []
  numbers = array.array('d')
  try:
    with _open_text(path) as file:
      lines = (line for line in csv.reader(file) if line)
      picks = _find_columns(path, next(lines, None), columns)
      for line in lines:
        try:
          name = line[picks[0]].strip()
          numbers.extend([float(line[i]) for i in picks[1:]])
        except (ValueError, IndexError):
          raise UsageError(
            _what_is_wrong(path, len(seriesuids), line, columns, picks)
          ) from None
        seriesuids.append(names.setdefault(name, name))
  except _UNREADABLE as error:
    raise UsageError(f'{path}: cannot be read as CSV: {error}') from error
  if not seriesuids and not may_be_empty:
    raise UsageError(f'{path}: holds a header and no rows')
  table = np.frombuffer(numbers, np.float64).reshape(-1, len(columns) - 1)
  unfit = np.flatnonzero(~np.isfinite(table).all(axis=1))
  if len(unfit):
    column = int(np.flatnonzero(~np.isfinite(table[unfit[0]]))[0])
    raise UsageError(
      f'{path}, row {unfit[0]} (from 0): {columns[column + 1]} must be a finite number, '
      f'found {table[unfit[0], column]}; correct the row'
    )
  return Table(
    seriesuids=np.array(seriesuids, object),
    xyz_mm=table[:, :3],
    values=table[:, 3] if value_column else np.full(len(table), np.nan),
    rows=np.arange(len(table)),
  )


def _find_columns(
  path: pathlib.Path, header: Sequence[str] | None, columns: Sequence[str]
) -> list[int]:
  """Returns where each column stands in the file."""
  if header is None:
    raise UsageError(f'{path}: is empty; expected the columns {", ".join(columns)}')
  header = [name.strip() for name in header]
  for name in columns:
    if name not in header:
      raise UsageError(
        f'{path}: the column {name} is missing; found {", ".join(header)}'
      )
  return [header.index(name) for name in columns]


def _what_is_wrong(
  path: pathlib.Path,
  row: int,
  line: Sequence[str],
  columns: Sequence[str],
  picks: Sequence[int],
) -> str:
  if len(line) <= max(picks):
    return (
      f'{path}, row {row} (from 0): {len(line)} columns where {max(picks) + 1} are '
      'needed; correct the row'
    )
  name, text = next(
    (name, line[pick])
    for name, pick in zip(columns[1:], picks[1:])
    if not _is_number(line[pick])
  )
  return (
    f'{path}, row {row} (from 0): {name} must be a number, found {text!r}; correct the '
    'row'
  )


def _is_number(text: str) -> bool:
  try:
    float(text)
  except ValueError:
    return False
  return True


@contextlib.contextmanager
def _open_text(path: pathlib.Path) -> Iterator[io.TextIOBase]:
  if path.suffix != '.zip':
    with path.open(newline='', encoding='utf-8-sig') as file:
      yield file
    return
  with zipfile.ZipFile(path) as archive:
    members = [name for name in archive.namelist() if name.endswith('.csv')]
    wanted = path.stem.removesuffix('.csv') + '.csv'
    named = [m for m in members if pathlib.PurePath(m).name == wanted] or members
    if len(named) != 1:
      raise UsageError(f'{path}: one CSV is expected in it, found {len(named)}')
    with archive.open(named[0]) as file:
      yield io.TextIOWrapper(file, encoding='utf-8-sig', newline='')
