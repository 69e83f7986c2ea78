"""Checks of NIfTI-1 files that ITK does not do.

Instead of the missing part of a file, ITK returns uninitialised memory, and it replaces
invalid numbers of the header by 0 or 1.
"""

from __future__ import annotations

import dataclasses
import gzip
import math
import pathlib
import struct
from typing import BinaryIO
import zlib

from luna_tfds import image_files
from luna_tfds.errors import ScanError

_HEADER_BYTES = 348
_MIN_VOXEL_OFFSET = 352  # the header, then four bytes that announce extensions

# Bytes per voxel of the accepted data types, by the code in the header: integers of 8 to
# 64 bits and floats.
_BYTES_PER_VOXEL = {
  2: 1,
  4: 2,
  8: 4,
  16: 4,
  64: 8,
  256: 1,
  512: 2,
  768: 4,
  1024: 8,
  1280: 8,
}


@dataclasses.dataclass(frozen=True)
class _Fields:
  """The checked fields of a header.

  Attributes:
    dim: number of axes, then the size of seven axes.
    datatype: code of the type of the voxels.
    bitpix: bits per voxel.
    spacing: size of a voxel along x, y, z.
    voxel_offset: where the voxels start in the file.
    qform_code: greater than 0 if `quaternion` holds the position of the scan.
    sform_code: greater than 0 if `affine` holds it.
    quaternion: rotation and offset.
    affine: 3x4 matrix.
  """

  dim: tuple[int, ...]
  datatype: int
  bitpix: int
  spacing: tuple[float, ...]
  voxel_offset: float
  qform_code: int
  sform_code: int
  quaternion: tuple[float, ...]
  affine: tuple[float, ...]


def check_header(path: pathlib.Path) -> None:
  """Checks the header and, if the file is not compressed, its length.

  Args:
    path: the `.nii` or `.nii.gz` file.

  Raises:
    ScanError: it is not a complete NIfTI-1 file of a CT volume.
  """
  image_files.check_regular_file(path)
  try:
    with _open(path) as file:
      header = file.read(_MIN_VOXEL_OFFSET)
  except (OSError, EOFError, zlib.error) as error:
    raise _damaged(path, error) from error
  expected = _file_bytes(path, header)
  if _is_compressed(path):
    image_files.check_size_of_compressed_scan(path, expected)
  else:
    _check_length(path, path.stat().st_size, expected)


def check_contents(path: pathlib.Path) -> None:
  """Checks the length of the file and, if it is compressed, decompresses it.

  Memory is bounded: the file is decompressed in blocks, and no further than its header
  announces.

  Args:
    path: the `.nii` or `.nii.gz` file.

  Raises:
    ScanError: the file is damaged or of another length than its header says.
  """
  check_header(path)
  if not _is_compressed(path):
    return
  try:
    with _open(path) as file:
      header = file.read(_MIN_VOXEL_OFFSET)
      expected = _file_bytes(path, header)
      size = len(header)
      # Reading beyond the last byte checks the checksum.
      while size <= expected and (block := file.read(image_files.BLOCK_BYTES)):
        size += len(block)
  except (OSError, EOFError, zlib.error) as error:
    raise _damaged(path, error) from error
  _check_length(path, size, expected)


def _is_compressed(path: pathlib.Path) -> bool:
  return image_files.suffix_of(path) == '.nii.gz'


def _open(path: pathlib.Path) -> BinaryIO | gzip.GzipFile:
  return gzip.open(path) if _is_compressed(path) else path.open('rb')


def _check_length(path: pathlib.Path, size: int, expected: int) -> None:
  if size != expected:
    problem, found = 'truncated', f'{size}'
    if size > expected:
      problem, found = 'longer than its header says', f'more than {expected}'
    raise ScanError(f'{path}: {problem}: {found} bytes, expected {expected}')


def _file_bytes(path: pathlib.Path, header: bytes) -> int:
  """Checks a header; returns the size of the uncompressed file by it.

  Args:
    path: for messages.
    header: the first 352 bytes.
  """
  fields = _parse(path, header)
  num_axes = fields.dim[0]
  if not 1 <= num_axes <= 7 or min(fields.dim[1 : num_axes + 1]) < 1:
    raise ScanError(f'{path}: invalid header: its axes are {list(fields.dim)}')
  num_axes = max(
    [3 if num_axes >= 3 else num_axes]
    + [axis for axis in range(4, num_axes + 1) if fields.dim[axis] > 1]
  )
  image_files.check_is_volume(path, num_axes, 1)
  num_bytes = _BYTES_PER_VOXEL.get(fields.datatype)
  if num_bytes is None:
    raise ScanError(
      f'{path}: data type {fields.datatype} is not supported; save the scan as int16'
    )
  if fields.bitpix != 8 * num_bytes:
    raise ScanError(
      f'{path}: invalid header: {fields.bitpix} bits per voxel, expected {8 * num_bytes} '
      f'for data type {fields.datatype}'
    )
  if not all(math.isfinite(mm) and mm > 0 for mm in fields.spacing):
    raise ScanError(
      f'{path}: spacing must be positive on every axis; received {fields.spacing}'
    )
  _check_position(path, fields)
  offset = fields.voxel_offset
  if not (offset.is_integer() and offset >= _MIN_VOXEL_OFFSET):
    raise ScanError(
      f'{path}: invalid header: the voxels start at byte {offset:g}, expected '
      f'{_MIN_VOXEL_OFFSET} or a later one'
    )
  return int(offset) + math.prod(fields.dim[1:4]) * num_bytes


def _parse(path: pathlib.Path, header: bytes) -> _Fields:
  """Unpacks the fields of a header of either byte order."""
  if len(header) < _MIN_VOXEL_OFFSET:
    raise ScanError(f'{path}: truncated: its header is incomplete')
  for order in '<>':
    if struct.unpack_from(f'{order}i', header) == (_HEADER_BYTES,):
      break
  else:
    raise ScanError(f'{path}: not a NIfTI-1 file')
  if header[344:348] != b'n+1\0':
    raise ScanError(
      f'{path}: not a NIfTI-1 file that holds its voxels itself; pairs of .hdr and .img '
      'are not accepted'
    )

  def unpack(code: str, offset: int) -> tuple[float, ...]:
    return struct.unpack_from(order + code, header, offset)

  dim = struct.unpack_from(f'{order}8h', header, 40)
  datatype, bitpix = struct.unpack_from(f'{order}2h', header, 70)
  qform_code, sform_code = struct.unpack_from(f'{order}2h', header, 252)
  return _Fields(
    dim=dim,
    datatype=datatype,
    bitpix=bitpix,
    spacing=unpack('3f', 80),
    voxel_offset=unpack('f', 108)[0],
    qform_code=qform_code,
    sform_code=sform_code,
    quaternion=unpack('6f', 256),
    affine=unpack('12f', 280),
  )


def _check_position(path: pathlib.Path, fields: _Fields) -> None:
  """Raises ScanError if the header does not say where the scan is in the world."""
  if fields.qform_code <= 0 and fields.sform_code <= 0:
    raise ScanError(
      f'{path}: its header has no position (qform_code and sform_code are 0); save the '
      'scan with its affine matrix'
    )
  numbers = fields.quaternion if fields.qform_code > 0 else ()
  numbers += fields.affine if fields.sform_code > 0 else ()
  if not all(math.isfinite(number) for number in numbers):
    raise ScanError(
      f'{path}: invalid header: its position holds numbers that are not finite'
    )


def _damaged(path: pathlib.Path, error: Exception) -> ScanError:
  return ScanError(f'{path}: its data are damaged: {error}')
