"""Reads columns of a CSV file, plain or zipped: one of names, the others of numbers.

Arrow reads them, in a tenth of the time of Python's csv module. It does not say which row
is invalid, so a file that Arrow rejects is read again, row by row.
"""

from __future__ import annotations

import array
import codecs
from collections.abc import Iterator, Sequence
import contextlib
import csv
import io
import lzma
import pathlib
from typing import IO
import zipfile
import zlib

import numpy as np
import pyarrow as pa
import pyarrow.csv

from luna_tfds.errors import UsageError
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

# More at once are not parsed faster.
_BLOCK_BYTES = 2**20

# Longer lines are read in parts, so that memory is bounded; they have no valid columns.
_MAX_LINE_CHARS = 2**16


def read_columns(
  path: pathlib.Path, columns: Sequence[str]
) -> tuple[np.ndarray, np.ndarray]:
  """Reads a column of names and columns of numbers.

  Lines may end with CRLF or LF, and the last line end may be missing. Blank lines, and
  blanks around a value, are ignored.

  Args:
    path: the file, plain or zipped.
    columns: the column of the names, then the columns of the numbers, as in the header.

  Returns:
    ([n] object array of str, not empty; [n, k] float64, which may be NaN or infinite).

  Raises:
    UsageError: names the file, the row and the problem.
  """
  try:
    with _open(path) as file:
      names, numbers = _read(path, file, columns)
  except _READ_ERRORS as error:
    raise UsageError(f'{path}: cannot be read as CSV: {error}') from error
  table = np.frombuffer(numbers, np.float64).reshape(-1, len(columns) - 1)
  return np.array(names, object), table


def _read(
  path: pathlib.Path, file: IO[bytes], columns: Sequence[str]
) -> tuple[list[str], array.array[float]]:
  """Reads columns.

  Args:
    path: for messages.
    file: the open file.
    columns: as of `read_columns`.

  Returns:
    The names, of which equal ones are one object, and the numbers, row by row.

  Raises:
    UsageError: a column is missing or a row is invalid.
  """
  if file.seekable():  # a pipe cannot be read again
    try:
      return _read_by_arrow(path, file, columns)
    except ValueError:
      file.seek(0)
  return _read_by_row(path, file, columns)


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


def _read_by_arrow(
  path: pathlib.Path, file: IO[bytes], columns: Sequence[str]
) -> tuple[list[str], array.array[float]]:
  """As `_read`.

  Raises:
    ValueError: a row is invalid, or unusual.
  """
  header = _plain_header(file)
  positions = _find_columns(path, header, columns)
  known: dict[str, str] = {}
  names: list[str] = []
  numbers = array.array('d')
  for block in _blocks(file):
    table = _parse_block(block, len(header), positions)
    block_names = table[0].combine_chunks()
    block_numbers = [
      np.from_dlpack(column.combine_chunks()) for column in table.columns[1:]
    ]
    texts = [name.strip() for name in block_names.dictionary.to_pylist()]
    values = np.stack(block_numbers, axis=1)
    if not all(texts) or not np.isfinite(values).all():
      raise ValueError('a name is empty, or a number is not finite')
    texts = [known.setdefault(text, text) for text in texts]
    names += [texts[i] for i in np.from_dlpack(block_names.indices).tolist()]
    numbers.frombytes(values.tobytes())
  return names, numbers


def _plain_header(file: IO[bytes]) -> list[str]:
  """Reads the first line; raises ValueError unless it is all of the header."""
  line = file.readline(_MAX_LINE_CHARS)
  text = line.removesuffix(b'\n').removesuffix(b'\r').decode('utf-8-sig')
  if not line.endswith(b'\n') or not text or '\r' in text or text.count('"') % 2:
    raise ValueError('the header is not the first line')
  return next(csv.reader([text]))


def _blocks(file: IO[bytes]) -> Iterator[bytes]:
  """Yields the lines of a file in blocks.

  Raises:
    ValueError: a block cannot be read without the others, or has other text than lines
      of UTF-8.
  """
  rest = b''
  while data := file.read(_BLOCK_BYTES):
    lines, line_end, rest = (rest + data).rpartition(b'\n')
    _check_block(lines + line_end)
    if len(rest) > _MAX_LINE_CHARS:
      raise ValueError('a line is too long')
    if line_end:
      yield lines + line_end
  if rest:
    _check_block(rest)
    yield rest


def _check_block(block: bytes) -> None:
  """Raises ValueError for what Arrow reads in another way than the csv module."""
  block.decode()
  if block.startswith(codecs.BOM_UTF8):
    raise ValueError('it begins with a byte order mark')
  if block.count(b'"') % 2:
    raise ValueError('it may end in a quoted value')
  line_ends = np.flatnonzero(np.frombuffer(block, np.uint8) == ord('\n'))
  if np.diff(line_ends, prepend=-1).max(initial=0) > _MAX_LINE_CHARS:
    raise ValueError('a line is too long')


def _parse_block(block: bytes, num_columns: int, positions: Sequence[int]) -> pa.Table:
  """Returns the columns at given positions, in this order, of rows without a header.

  Raises:
    pyarrow.ArrowInvalid (a ValueError): a row is invalid.
  """
  columns = [str(i) for i in range(num_columns)]
  name_column, *number_columns = [columns[i] for i in positions]
  # In memory of Arrow: its threads may still hold it when this function returns.
  memory = pa.BufferOutputStream()
  memory.write(block)
  return pyarrow.csv.read_csv(
    pa.BufferReader(memory.getvalue()),
    pyarrow.csv.ReadOptions(use_threads=False, column_names=columns),
    pyarrow.csv.ParseOptions(newlines_in_values=True),
    pyarrow.csv.ConvertOptions(
      include_columns=[name_column, *number_columns],
      column_types={
        # A dictionary: texts that are equal are converted once.
        name_column: pa.dictionary(pa.int32(), pa.string()),
        **dict.fromkeys(number_columns, pa.float64()),
      },
      null_values=[],
    ),
  )


def _read_by_row(
  path: pathlib.Path, file: IO[bytes], columns: Sequence[str]
) -> tuple[list[str], array.array[float]]:
  """As `_read`; names the first invalid row."""
  known: dict[str, str] = {}
  names: list[str] = []
  numbers = array.array('d')
  with io.TextIOWrapper(file, encoding='utf-8-sig', newline='') as text:
    lines = iter(lambda: text.readline(_MAX_LINE_CHARS), '')
    rows = filter(None, csv.reader(lines))
    header = next(rows, [])
    positions = _find_columns(path, header, columns)
    for row in rows:
      problem = _find_problem(row, header, positions)
      if problem:
        raise UsageError(f'{path}, row {len(names)} (from 0): {problem}')
      name = row[positions[0]].strip()
      names.append(known.setdefault(name, name))
      numbers.extend(float(row[i]) for i in positions[1:])
  return names, numbers


def _find_problem(
  row: Sequence[str], header: Sequence[str], positions: Sequence[int]
) -> str | None:
  """Returns what is wrong with a row, and the fix; None if nothing is.

  Args:
    row: the row.
    header: the names of the columns.
    positions: columns of the name and of the numbers.
  """
  if len(row) != len(header):
    fix = 'correct the row'
    if len(row) > len(header):
      fix = 'numbers must have a point as decimal separator, not a comma'
    return f'{len(row)} columns, but the header has {len(header)}; {fix}'
  if not row[positions[0]].strip():
    return f'{header[positions[0]].strip()} is empty; correct the row'
  for i in positions[1:]:
    if not _is_number(row[i]):
      return (
        f'{shown_text(header[i].strip())} must be a number, found {row[i][:80]!r}; '
        'correct the row'
      )
  return None


def _is_number(text: str) -> bool:
  """Returns whether text is a number; 1_000 and other digits than 0-9 are not."""
  try:
    float(text)
  except ValueError:
    return False
  return '_' not in text and text.isascii()


@contextlib.contextmanager
def _open(path: pathlib.Path) -> Iterator[IO[bytes]]:
  """Opens a file, or the table in a zip file."""
  with path.open('rb') as file:
    if path.suffix != '.zip':
      yield file
      return
    with (
      zipfile.ZipFile(file) as archive,
      archive.open(_find_table(path, archive)) as table,
    ):
      yield table


def _find_table(path: pathlib.Path, archive: zipfile.ZipFile) -> zipfile.ZipInfo:
  """Returns the only table of a zip file, or the one that has its name."""
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
  if member.file_size > MAX_ZIPPED_TABLE_BYTES:
    raise UsageError(
      f'{path}: {bytes_text(member.file_size)} after decompression; a zipped table may '
      f'have {bytes_text(MAX_ZIPPED_TABLE_BYTES)}; unzip it'
    )
  return member
