"""LUNA16's CSV files of points: candidates, nodules, excluded findings, submissions."""

from __future__ import annotations

import array
from collections.abc import Iterable, Iterator, Sequence
import contextlib
import csv
import dataclasses
import io
import itertools
import lzma
import pathlib
from typing import Any
import zipfile
import zlib

import numpy as np

from luna_tfds.errors import UsageError
from luna_tfds.files import atomic_files
from luna_tfds.text_format import bytes_text
from luna_tfds.text_format import shown_text

# A zipped table is longer than its file, so its size must be bounded; LUNA16's longest
# list of candidates has 80 MB.
MAX_ZIPPED_TABLE_BYTES = 2**28

# LZMA, which a zip may also have, takes as much memory as the file asks for.
_ZIP_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)

# Raised when a damaged, encrypted or binary file is read.
_READ_ERRORS = (
  OSError,
  EOFError,
  UnicodeDecodeError,
  csv.Error,
  zipfile.BadZipFile,
  zlib.error,
  lzma.LZMAError,
  RuntimeError,
)

# Longer lines are read in parts, so that memory is bounded; they have no valid columns.
_MAX_LINE_CHARS = 2**16

# Few enough that a batch of the longest lines needs little memory.
_ROWS_PER_BATCH = 32

_COORDINATES = ('coordX', 'coordY', 'coordZ')


@dataclasses.dataclass(frozen=True)
class PointTable:
  """Points in scans, each with one value: a column of the CSV file.

  Read the values through the property that names them (`class_labels`, `diameters_mm`,
  `probabilities`): it raises ValueError if the table holds another column.

  Attributes:
    seriesuids: [n] object array of str.
    xyz_mm: [n, 3] float64 world coordinates in mm.
    values: [n] float64, the column `value_column`; NaN if it is None.
    rows: [n] int64, the row of each point in the file, from 0.
    value_column: 'class', 'diameter_mm', 'probability', or None for points alone.
  """

  seriesuids: np.ndarray
  xyz_mm: np.ndarray
  values: np.ndarray
  rows: np.ndarray
  value_column: str | None

  @property
  def class_labels(self) -> np.ndarray:
    """[n] int8 class of each candidate, 1 for a nodule."""
    return self._column('class').astype(np.int8)

  @property
  def diameters_mm(self) -> np.ndarray:
    """[n] float64 diameter of each finding; negative if unknown."""
    return self._column('diameter_mm')

  @property
  def probabilities(self) -> np.ndarray:
    """[n] float64 probability of each mark of a submission."""
    return self._column('probability')

  def _column(self, name: str) -> np.ndarray:
    if self.value_column != name:
      raise ValueError(f'the table holds {self.value_column}, not {name}')
    return self.values

  def __len__(self) -> int:
    return len(self.rows)

  def __getitem__(self, index: Any) -> PointTable:
    """Returns the points that a NumPy index of one axis selects."""
    return PointTable(
      self.seriesuids[index],
      self.xyz_mm[index],
      self.values[index],
      self.rows[index],
      self.value_column,
    )

  def groups(self) -> dict[str, np.ndarray]:
    """Maps each seriesuid to the positions of its points in the table, in order."""
    if not len(self):
      return {}
    order = np.argsort(self.seriesuids, kind='stable')
    ordered = self.seriesuids[order]
    starts = np.flatnonzero(np.append(True, ordered[1:] != ordered[:-1]))
    return {
      ordered[start]: positions
      for start, positions in zip(starts, np.split(order, starts[1:]))
    }


def read_candidates(path: pathlib.Path, *, labelled: bool = True) -> PointTable:
  """Reads a candidates file.

  Args:
    path: a CSV with seriesuid, coordX, coordY, coordZ and class, plain or zipped.
    labelled: whether the class is read; if not, the column may be missing.

  Returns:
    A table with `class_labels`, or of points alone.

  Raises:
    UsageError: the file cannot be read, or a row is invalid.
  """
  table = read_table(path, 'class' if labelled else None)
  invalid = np.flatnonzero(~np.isin(table.values, (0, 1)))
  if labelled and len(invalid):
    raise UsageError(
      f'{path}, row {invalid[0]} (from 0): class must be 0 or 1, found '
      f'{table.values[invalid[0]]:g}; correct the row'
    )
  return table


def read_findings(path: pathlib.Path) -> PointTable:
  """Reads annotations.csv or annotations_excluded.csv, which may have no rows.

  Returns:
    A table with `diameters_mm`.

  Raises:
    UsageError: the file cannot be read, or a row is invalid.
  """
  return read_table(path, 'diameter_mm', may_be_empty=True)


def read_table(
  path: pathlib.Path, value_column: str | None, *, may_be_empty: bool = False
) -> PointTable:
  """Reads a CSV of points: seriesuid, coordX, coordY, coordZ and one value.

  Lines may end with CRLF or LF, and the last line end may be missing.

  Args:
    path: the file, plain or zipped.
    value_column: the column of the values, None for none.
    may_be_empty: whether a file without rows is accepted.

  Returns:
    The points in file order.

  Raises:
    UsageError: names the file, the row and the problem.
  """
  columns = ('seriesuid', *_COORDINATES) + ((value_column,) if value_column else ())
  # To save memory, rows of a scan share one string, and numbers are stored in an array:
  # as Python objects the rows of LUNA16's candidates take half a gigabyte.
  names: dict[str, str] = {}
  seriesuids: list[str] = []
  numbers = array.array('d')
  try:
    with _open_text(path) as file:
      text_lines = iter(lambda: file.readline(_MAX_LINE_CHARS), '')
      lines = filter(None, csv.reader(text_lines))
      header = next(lines, [])
      positions = _find_columns(path, header, columns)
      while batch := list(itertools.islice(lines, _ROWS_PER_BATCH)):
        try:
          batch_names, batch_numbers = _parse_rows(batch, len(header), positions)
        except ValueError:
          k, problem = _first_problem(batch, header, positions)
          raise UsageError(
            f'{path}, row {len(seriesuids) + k} (from 0): {problem}'
          ) from None
        seriesuids += [names.setdefault(name, name) for name in batch_names]
        numbers.extend(batch_numbers)
  except _READ_ERRORS as error:
    raise UsageError(f'{path}: cannot be read as CSV: {error}') from error
  if not seriesuids and not may_be_empty:
    raise UsageError(f'{path}: has a header but no rows')
  table = np.frombuffer(numbers, np.float64).reshape(-1, len(columns) - 1)
  invalid = np.flatnonzero(~np.isfinite(table).all(axis=1))
  if len(invalid):
    column = int(np.flatnonzero(~np.isfinite(table[invalid[0]]))[0])
    raise UsageError(
      f'{path}, row {invalid[0]} (from 0): {columns[column + 1]} must be a finite number, '
      f'found {table[invalid[0], column]}; correct the row'
    )
  return PointTable(
    seriesuids=np.array(seriesuids, object),
    xyz_mm=table[:, :3],
    values=table[:, 3] if value_column else np.full(len(table), np.nan),
    rows=np.arange(len(table)),
    value_column=value_column,
  )


def write_table(
  path: pathlib.Path, value_column: str, rows: Iterable[Sequence[str | float]]
) -> None:
  """Writes a CSV of points that `read_table` reads; complete or not at all.

  Args:
    path: the file; replaced if it exists.
    value_column: name of the column of the values.
    rows: (seriesuid, x, y, z, value), coordinates in mm. Numbers are written with all
      their digits; pass text for fewer.

  Raises:
    OSError: the file cannot be written.
  """
  with atomic_files.atomic_text(path) as file:
    writer = csv.writer(file, lineterminator='\n')
    writer.writerow(['seriesuid', *_COORDINATES, value_column])
    writer.writerows(rows)


def _find_columns(
  path: pathlib.Path, header: Sequence[str], columns: Sequence[str]
) -> list[int]:
  """Returns the position of each column in the file."""
  if not header:
    raise UsageError(f'{path}: is empty; expected the columns {", ".join(columns)}')
  header = [name.strip() for name in header]
  for name in columns:
    if name not in header:
      hint = '; columns must be separated by commas' if ';' in header[0] else ''
      raise UsageError(
        f'{path}: the column {name} is missing; found '
        f'{shown_text(", ".join(header))}{hint}'
      )
    if header.count(name) > 1:
      raise UsageError(
        f'{path}: the column {name} is in the header twice; remove one of them'
      )
  return [header.index(name) for name in columns]


def _parse_rows(
  rows: Sequence[Sequence[str]], num_columns: int, positions: Sequence[int]
) -> tuple[list[str], list[float]]:
  """Parses rows together: several times faster than one after another.

  Args:
    rows: rows of the file.
    num_columns: number of columns of the header.
    positions: columns of the seriesuid and of the numbers.

  Returns:
    The seriesuids, and the numbers of all rows.

  Raises:
    ValueError: a row is invalid.
  """
  if any(len(row) != num_columns for row in rows):
    raise ValueError
  names = [row[positions[0]].strip() for row in rows]
  texts = [row[i] for row in rows for i in positions[1:]]
  if not all(names) or not _may_be_numbers(''.join(texts)):
    raise ValueError
  return names, list(map(float, texts))


def _first_problem(
  rows: Sequence[Sequence[str]], header: Sequence[str], positions: Sequence[int]
) -> tuple[int, str]:
  """Returns the index of the first invalid row, what is wrong with it, and the fix.

  Args:
    rows: rows of which at least one is invalid.
    header: the names of the columns.
    positions: columns of the seriesuid and of the numbers.
  """
  for k, row in enumerate(rows):
    if len(row) != len(header):
      fix = 'correct the row'
      if len(row) > len(header):
        fix = 'numbers must have a point as decimal separator, not a comma'
      return k, f'{len(row)} columns, but the header has {len(header)}; {fix}'
    if not row[positions[0]].strip():
      return k, 'seriesuid is empty; correct the row'
    for i in positions[1:]:
      if not _is_number(row[i]):
        return k, (
          f'{shown_text(header[i].strip())} must be a number, found '
          f'{row[i][:80]!r}; correct the row'
        )
  raise AssertionError('all rows are valid')


def _may_be_numbers(text: str) -> bool:
  """Returns whether text has no 1_000 and no digits of other scripts, as `float` takes."""
  return '_' not in text and text.isascii()


def _is_number(text: str) -> bool:
  try:
    float(text)
  except ValueError:
    return False
  return _may_be_numbers(text)


@contextlib.contextmanager
def _open_text(path: pathlib.Path) -> Iterator[io.TextIOBase]:
  if path.suffix != '.zip':
    with path.open(newline='', encoding='utf-8-sig') as file:
      yield file
    return
  with path.open('rb') as zipped, zipfile.ZipFile(zipped) as archive:
    members = [name for name in archive.namelist() if name.endswith('.csv')]
    wanted = path.stem.removesuffix('.csv') + '.csv'
    named = [m for m in members if pathlib.PurePath(m).name == wanted] or members
    if len(named) != 1:
      raise UsageError(f'{path}: must contain one CSV file, found {len(named)}')
    member = archive.getinfo(named[0])
    if member.compress_type not in _ZIP_METHODS:
      raise UsageError(
        f'{path}: compressed by an unusual method; zip the file again by deflate'
      )
    num_bytes = member.file_size
    if num_bytes > MAX_ZIPPED_TABLE_BYTES:
      raise UsageError(
        f'{path}: {bytes_text(num_bytes)} after decompression; a zipped table may have '
        f'{bytes_text(MAX_ZIPPED_TABLE_BYTES)}; unzip it'
      )
    with archive.open(member) as file:
      yield io.TextIOWrapper(file, encoding='utf-8-sig', newline='')
