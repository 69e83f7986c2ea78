"""MetaImage files (`.mhd`, `.mha`): parses headers, checks data files.

Where a header is unusual, ITK guesses: it ignores a coordinate with a decimal comma,
follows the header to any file of the machine, and returns uninitialised memory instead of
the missing part of a compressed file. So a header is parsed here, and everything that ITK
could read in another way is refused.
"""

from __future__ import annotations

import dataclasses
import math
import os
import pathlib
import re
import zlib

import numpy as np

from luna_tfds import geometry
from luna_tfds.errors import ScanError
from luna_tfds.files.store_path import StorePath
from luna_tfds.scans import image_files
from luna_tfds.text_format import shown_text

# ITK does not read longer lines.
_MAX_LINE_BYTES = 500
_MAX_HEADER_BYTES = 2**16

_CONTROL_BYTE = re.compile(rb'[\x00-\x08\x0a-\x1f]')  # all but the tab

# The value of zlib's `wbits` that accepts a zlib or a gzip header, as ITK does.
_ANY_HEADER = 47

# Fields with several names.
_ORIGIN = ('Offset', 'Position', 'Origin')
_BYTE_ORDER = ('BinaryDataByteOrderMSB', 'ElementByteOrderMSB')
_DIRECTION = ('TransformMatrix', 'Rotation', 'Orientation')

# Fields that change which voxels a file holds, and their only accepted value. ITK ignores
# the intensity functions.
_DEFAULTS = {
  'HeaderSize': 0.0,
  'ElementToIntensityFunctionSlope': 1.0,
  'ElementToIntensityFunctionOffset': 0.0,
}


# The types of voxels, without byte order. ITK stores MET_LONG in four bytes.
_DTYPES = {
  'MET_CHAR': 'i1',
  'MET_UCHAR': 'u1',
  'MET_SHORT': 'i2',
  'MET_USHORT': 'u2',
  'MET_INT': 'i4',
  'MET_UINT': 'u4',
  'MET_LONG': 'i4',
  'MET_ULONG': 'u4',
  'MET_LONG_LONG': 'i8',
  'MET_ULONG_LONG': 'u8',
  'MET_FLOAT': 'f4',
  'MET_DOUBLE': 'f8',
}


@dataclasses.dataclass(frozen=True)
class MetaHeader:
  """The header of a MetaImage file.

  Attributes:
    path: the `.mhd` or `.mha` file.
    grid: the grid of the scan as stored.
    dtype: type of a voxel, with its byte order.
    data_file: the file of the voxels; `path` itself for `.mha`.
    data_offset: position of the first byte of the voxels in `data_file`.
    is_compressed: whether the voxels are compressed by zlib.
    compressed_bytes: size of the compressed voxels by the header, None if not stated.
  """

  path: pathlib.Path
  grid: geometry.Grid
  dtype: np.dtype
  data_file: pathlib.Path
  data_offset: int
  is_compressed: bool
  compressed_bytes: int | None

  @property
  def num_bytes(self) -> int:
    """Size of the uncompressed voxels."""
    return self.grid.num_voxels * self.dtype.itemsize


def read_header_bytes(path: pathlib.Path) -> bytes:
  """Returns the first bytes of a MetaImage file, which contain its header.

  Raises:
    ScanError: it is not a file, or cannot be read.
  """
  if isinstance(path, StorePath):
    try:
      return path.read_start(_MAX_HEADER_BYTES)
    except FileNotFoundError as error:
      raise ScanError(f'{path}: no such file') from error
  image_files.check_regular_file(path)
  try:
    with path.open('rb') as file:
      return file.read(_MAX_HEADER_BYTES)
  except OSError as error:
    raise ScanError(f'{path}: {error.strerror}') from error


def read_meta_header(path: pathlib.Path) -> MetaHeader:
  """Reads the header of a `.mhd` or `.mha` file.

  Args:
    path: the file.

  Raises:
    ScanError: it is not a file, or its header is invalid or unusual.
  """
  content = read_header_bytes(path)
  fields, end = _parse_fields(path, content)
  data_file = _data_file(path, fields, content[end:])
  if fields.get('ObjectType', 'Image') != 'Image':
    name = shown_text(fields['ObjectType'])
    raise ScanError(f'{path}: not an image: ObjectType = {name}')
  for key, default in _DEFAULTS.items():
    if key in fields and _numbers(path, fields, key, 1) != (default,):
      raise ScanError(f'{path}: {key} other than {default:g} is not supported')
  units = fields.get('DistanceUnits', 'mm')
  if units not in ('mm', '?'):  # '?' is written where none is set
    raise ScanError(
      f'{path}: DistanceUnits = {shown_text(units)} is not supported; convert the '
      'spacing and the offset to mm'
    )
  if not _flag(path, fields, 'BinaryData', default=True):
    raise ScanError(f'{path}: BinaryData = False (voxels as text) is not supported')
  compressed_bytes = None
  if 'CompressedDataSize' in fields:
    (compressed_bytes,) = _integers(path, fields, 'CompressedDataSize', 1)
  return MetaHeader(
    path=path,
    grid=_grid_of(path, fields),
    dtype=_dtype_of(path, fields),
    data_file=data_file,
    data_offset=0 if image_files.suffix_of(path) == '.mhd' else end,
    is_compressed=_flag(path, fields, 'CompressedData', default=False),
    compressed_bytes=compressed_bytes,
  )


def data_file_of(path: pathlib.Path, content: bytes | None = None) -> pathlib.Path:
  """Returns the data file that a header names; it need not exist.

  Args:
    path: the `.mhd` or `.mha` file.
    content: its `read_header_bytes`, if they have been read.

  Raises:
    ScanError: the header cannot be read, or names no data file in the same folder.
  """
  if content is None:
    content = read_header_bytes(path)
  fields, end = _parse_fields(path, content)
  return _data_file(path, fields, content[end:])


def check_data_file(header: MetaHeader) -> None:
  """Checks the length of the data file against the header, without reading voxels.

  Args:
    header: the header.

  Raises:
    ScanError: the data file is missing or of another length.
  """
  path, name = header.path, shown_text(header.data_file.name)
  try:
    image_files.check_regular_file(header.data_file)
  except ScanError as error:
    raise ScanError(f'{path}: its data file {name} is missing or not a file') from error
  size = header.data_file.stat().st_size - header.data_offset
  expected = header.compressed_bytes if header.is_compressed else header.num_bytes
  if expected is None:
    if header.data_offset:  # ITK would read too many bytes
      raise ScanError(f'{path}: CompressedDataSize is missing in its header')
    expected = size
  if size != expected:
    problem = 'truncated' if size < expected else 'longer than its header says'
    raise ScanError(
      f'{path}: the data file {name} is {problem}: {size} bytes, expected {expected}'
    )
  if header.is_compressed:
    image_files.check_size_of_compressed_scan(path, header.num_bytes)


def check_compressed_data(header: MetaHeader) -> None:
  """Decompresses the data file to check its length and its checksum.

  Memory is bounded: at most one block is decompressed at a time, and no more blocks than
  the header announces.

  Args:
    header: the header.

  Raises:
    ScanError: the data file is damaged, truncated, or of another scan.
  """
  path, name = header.path, shown_text(header.data_file.name)
  decompressor = zlib.decompressobj(_ANY_HEADER)
  num_bytes = header.num_bytes
  size = 0
  try:
    with header.data_file.open('rb') as file:
      file.seek(header.data_offset)
      while not decompressor.eof and size <= num_bytes:
        block = decompressor.unconsumed_tail or file.read(image_files.BLOCK_BYTES)
        voxels = decompressor.decompress(block, image_files.BLOCK_BYTES)
        if not block and not voxels:
          break
        size += len(voxels)
      has_more = bool(decompressor.unused_data or file.read(1))
  except (OSError, zlib.error) as error:
    raise ScanError(f'{path}: its data are damaged: {error}') from error
  if not decompressor.eof or size != num_bytes:
    found = f'more than {num_bytes}' if size > num_bytes else f'{size}'
    raise ScanError(
      f'{path}: the data file {name} is truncated or of another scan: {found} bytes '
      f'after decompression, expected {num_bytes}'
    )
  if has_more:
    raise ScanError(
      f'{path}: the data file {name} holds several compressed streams, of which ITK '
      'reads only the first; compress the voxels as one stream'
    )


def check_same_grid(header: MetaHeader, grid: geometry.Grid) -> None:
  """Raises ScanError if ITK reads another grid than the header states."""
  stated = header.grid
  if stated.shape_zyx != grid.shape_zyx or not np.allclose(
    stated.spacing_xyz_mm + stated.origin_xyz_mm + stated.direction,
    grid.spacing_xyz_mm + grid.origin_xyz_mm + grid.direction,
    rtol=1e-9,
    atol=1e-9,
  ):
    raise ScanError(
      f'{header.path}: ITK reads another grid than its header says: {grid}'
    )


def _parse_fields(path: pathlib.Path, content: bytes) -> tuple[dict[str, str], int]:
  """Returns the `Key = value` lines up to ElementDataFile, and where they end.

  ITK stops reading at this line; a `.mha` continues with the voxels.
  """
  fields: dict[str, str] = {}
  start = 0
  while start < len(content) and 'ElementDataFile' not in fields:
    newline = content.find(b'\n', start)
    end = len(content) if newline < 0 else newline
    line = content[start:end].removesuffix(b'\r').strip(b' \t')
    start = end + 1
    if not line:
      continue
    # File names are bytes in any encoding.
    key, equals, value = os.fsdecode(line).partition('=')
    key, value = key.strip(' \t'), value.strip(' \t')
    if (
      not (equals and key)
      or ':' in key
      or len(line) > _MAX_LINE_BYTES
      or _CONTROL_BYTE.search(line)
    ):
      raise ScanError(
        f'{path}: invalid header: expected lines "Key = value", found '
        f'"{shown_text(os.fsdecode(line))}"'
      )
    if key in fields:
      raise ScanError(f'{path}: {shown_text(key)} is in its header twice')
    fields[key] = value
  if not fields.get('ElementDataFile'):
    raise ScanError(f'{path}: its header has no ElementDataFile')
  return fields, start


def _data_file(path: pathlib.Path, fields: dict[str, str], rest: bytes) -> pathlib.Path:
  """Returns the file of the voxels: for `.mhd` one in the same folder, else `path`.

  Args:
    path: the header.
    fields: its fields.
    rest: what follows after the line ElementDataFile.
  """
  name = fields['ElementDataFile']
  shown = shown_text(name)
  if image_files.suffix_of(path) != '.mhd':
    if name not in ('LOCAL', 'Local', 'local'):
      raise ScanError(
        f'{path}: ElementDataFile = {shown}: a .mha file must hold its voxels itself, '
        'with ElementDataFile = LOCAL'
      )
    return path
  if rest.strip():
    raise ScanError(f'{path}: ElementDataFile must be the last line of the header')
  if name.upper().startswith('LIST') or name.upper() == 'LOCAL' or '%' in name:
    raise ScanError(
      f'{path}: ElementDataFile = {shown}: the header must name one data file in the '
      'same folder'
    )
  if '/' in name or '\\' in name or name in ('.', '..'):
    raise ScanError(
      f"{path}: ElementDataFile = {shown} is outside the scan's folder, which is refused"
    )
  data_file = path.parent / name
  # The folder, the header and the data file may be links, but the two files must be in
  # one folder.
  try:
    folders = (path.parent.resolve(), path.resolve().parent)
    is_inside = data_file.resolve().parent in folders
  except (OSError, RuntimeError) as error:  # a loop of links
    raise ScanError(f'{path}: ElementDataFile = {shown}: {error}') from error
  if not is_inside:
    raise ScanError(
      f'{path}: ElementDataFile = {shown} is a link to a file outside the folder of the '
      'scan, which is refused'
    )
  return data_file


def _grid_of(path: pathlib.Path, fields: dict[str, str]) -> geometry.Grid:
  """Returns the grid; every number must be stated, and finite."""
  num_axes = _integers(path, fields, 'NDims', 1)[0]
  num_components = 1
  if 'ElementNumberOfChannels' in fields:
    num_components = _integers(path, fields, 'ElementNumberOfChannels', 1)[0]
  image_files.check_is_volume(path, num_axes, num_components)
  shape_xyz = _integers(path, fields, 'DimSize', 3)
  spacing_xyz_mm = _numbers(path, fields, 'ElementSpacing', 3)
  origin_xyz_mm = _numbers(path, fields, _one_of(path, fields, _ORIGIN), 3)
  direction = geometry.IDENTITY
  if any(key in fields for key in _DIRECTION):
    # Row k of the field is the direction of axis k.
    matrix = _numbers(path, fields, _one_of(path, fields, _DIRECTION), 9)
    direction = matrix[0::3] + matrix[1::3] + matrix[2::3]
  try:
    return geometry.Grid(shape_xyz[::-1], spacing_xyz_mm, origin_xyz_mm, direction)
  except ValueError as error:
    raise ScanError(f'{path}: {error}') from error


def _dtype_of(path: pathlib.Path, fields: dict[str, str]) -> np.dtype:
  """Returns the type of a voxel."""
  if 'ElementType' not in fields:
    raise ScanError(f'{path}: its header has no ElementType')
  name = fields['ElementType']
  if name not in _DTYPES:
    raise ScanError(
      f'{path}: ElementType = {shown_text(name)} is not supported; store the voxels as '
      'MET_SHORT'
    )
  is_big_endian = False  # ITK assumes the byte order of the machine
  if any(key in fields for key in _BYTE_ORDER):
    key = _one_of(path, fields, _BYTE_ORDER)
    is_big_endian = _flag(path, fields, key, default=False)
  return np.dtype(_DTYPES[name]).newbyteorder('>' if is_big_endian else '<')


def _one_of(path: pathlib.Path, fields: dict[str, str], keys: tuple[str, ...]) -> str:
  """Returns the one of the names of a field that the header uses."""
  found = [key for key in keys if key in fields]
  if not found:
    raise ScanError(f'{path}: its header has no {keys[0]}')
  if len(found) > 1:
    raise ScanError(f'{path}: its header has both {found[0]} and {found[1]}')
  return found[0]


def _numbers(
  path: pathlib.Path, fields: dict[str, str], key: str, count: int
) -> tuple[float, ...]:
  """Returns the numbers of a field."""
  if key not in fields:
    raise ScanError(f'{path}: its header has no {key}')
  text = fields[key]
  try:
    # Python would also read 1_000, and digits of other scripts.
    if '_' in text or not text.isascii():
      raise ValueError
    values = tuple(float(word) for word in text.split())
  except ValueError:
    values = ()
  if len(values) != count or not all(math.isfinite(value) for value in values):
    noun = 'number' if count == 1 else 'numbers'
    raise ScanError(
      f'{path}: {key} must be {count} {noun}, found "{shown_text(text)}"; correct the '
      'header'
    )
  return values


def _integers(
  path: pathlib.Path, fields: dict[str, str], key: str, count: int
) -> tuple[int, ...]:
  """Returns the whole numbers of a field."""
  values = _numbers(path, fields, key, count)
  if not all(value.is_integer() for value in values):
    raise ScanError(
      f'{path}: {key} must be whole numbers, found "{shown_text(fields[key])}"; correct '
      'the header'
    )
  return tuple(int(value) for value in values)


def _flag(path: pathlib.Path, fields: dict[str, str], key: str, default: bool) -> bool:
  """Returns a truth value; as in ITK, its first letter counts."""
  text = fields.get(key, str(default))
  if text[:1] not in ('T', 't', '1', 'F', 'f', '0'):
    raise ScanError(
      f'{path}: {key} must be True or False, found "{shown_text(text)}"; correct the '
      'header'
    )
  return text[0] in 'Tt1'
