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

import numpy as np

from luna_tfds.errors import ScanError
from luna_tfds.scans import image_files

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


# The two positions that a header may hold may differ by this part of a voxel.
_POSITION_TOLERANCE = 0.1


@dataclasses.dataclass(frozen=True)
class _Fields:
  """The checked fields of a header.

  Attributes:
    dim: number of axes, then the size of seven axes.
    datatype: code of the type of the voxels.
    bitpix: bits per voxel.
    spacing: size of a voxel along x, y, z.
    qfac: direction of the third axis of `quaternion`: -1, else 1.
    slope: factor of the voxels; 0 or NaN for none.
    intercept: is added to the voxels.
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
  qfac: float
  slope: float
  intercept: float
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
    path: the file, for messages.
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
  _check_scale(path, fields)
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
    qfac=-1.0 if unpack('f', 76)[0] < 0 else 1.0,
    slope=unpack('f', 112)[0],
    intercept=unpack('f', 116)[0],
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
  if fields.sform_code > 0:
    _check_same_position(path, fields)


def _check_same_position(path: pathlib.Path, fields: _Fields) -> None:
  """Raises ScanError if the sform contradicts the qform, or the size of the voxels.

  ITK takes one of the two without saying which, and the size of the voxels always from
  `spacing`. A tilted gantry is in the sform alone, which ITK then ignores.
  """
  sform = np.array(fields.affine).reshape(3, 4)
  spacing = np.array(fields.spacing)
  size = np.array(fields.dim[1:4])
  tolerance = _POSITION_TOLERANCE * spacing.min()
  lengths = np.linalg.norm(sform[:, :3], axis=0)
  if (np.abs(lengths - spacing) * size > tolerance).any():
    raise ScanError(
      f'{path}: its voxels have the size {spacing} by pixdim, but {lengths} by the sform; '
      'save the scan again with one affine matrix'
    )
  if fields.qform_code > 0:
    shifts = np.abs(sform - _qform(fields)) @ np.append(size, 1)
    if shifts.max() > tolerance:
      raise ScanError(
        f'{path}: its qform and its sform put the scan at different places, up to '
        f'{shifts.max():.3g} apart, e.g. because of a tilted gantry; save the scan again '
        'with one affine matrix, on an axis-aligned grid'
      )


def _qform(fields: _Fields) -> np.ndarray:
  """Returns the [3, 4] affine matrix of the quaternion, by nifti1.h, method 2."""
  b, c, d = fields.quaternion[:3]
  length = math.sqrt(b * b + c * c + d * d)
  if length > 1:
    b, c, d = b / length, c / length, d / length
  a = math.sqrt(max(0.0, 1 - b * b - c * c - d * d))
  rotation = np.array(
    [
      [a * a + b * b - c * c - d * d, 2 * (b * c - a * d), 2 * (b * d + a * c)],
      [2 * (b * c + a * d), a * a + c * c - b * b - d * d, 2 * (c * d - a * b)],
      [2 * (b * d - a * c), 2 * (c * d + a * b), a * a + d * d - b * b - c * c],
    ]
  )
  scale = np.array(fields.spacing) * (1, 1, fields.qfac)
  return np.column_stack([rotation * scale, fields.quaternion[3:]])


def _check_scale(path: pathlib.Path, fields: _Fields) -> None:
  """Raises ScanError if it is not clear how voxels are scaled.

  By the standard a slope of 0 means that there is no intercept; ITK adds it.
  """
  if math.isnan(fields.slope):  # NiBabel's way to write that there is no scale
    return
  if not (math.isfinite(fields.slope) and math.isfinite(fields.intercept)) or (
    fields.slope == 0 and fields.intercept
  ):
    raise ScanError(
      f'{path}: invalid header: scl_slope is {fields.slope:g} and scl_inter '
      f'{fields.intercept:g}; save the scan with finite numbers, the slope not 0'
    )


def _damaged(path: pathlib.Path, error: Exception) -> ScanError:
  return ScanError(f'{path}: its data are damaged: {error}')
