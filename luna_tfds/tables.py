"""LUNA16's CSV files of points: candidates, nodules, excluded findings, submissions."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
import csv
import dataclasses
import pathlib
from typing import Any

import numpy as np

from luna_tfds import csv_columns
from luna_tfds.errors import UsageError
from luna_tfds.files import atomic_files

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
  seriesuids, table = csv_columns.read_columns(path, columns)
  if not len(seriesuids) and not may_be_empty:
    raise UsageError(f'{path}: has a header but no rows')
  invalid = np.flatnonzero(~np.isfinite(table).all(axis=1))
  if len(invalid):
    column = int(np.flatnonzero(~np.isfinite(table[invalid[0]]))[0])
    raise UsageError(
      f'{path}, row {invalid[0]} (from 0): {columns[column + 1]} must be a finite number, '
      f'found {table[invalid[0], column]}; correct the row'
    )
  return PointTable(
    seriesuids=seriesuids,
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
