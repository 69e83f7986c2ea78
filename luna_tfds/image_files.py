"""Checks of image files that ITK does not do: data file, length and checksum.

Instead of the missing part of a compressed MetaImage or of a NIfTI file, ITK returns
uninitialised memory, and it follows a header to any file of the machine.
"""

from __future__ import annotations

import gzip
import pathlib
import zlib

from luna_tfds.errors import ScanError

# Compressed files are checked in blocks of this size.
_BLOCK_BYTES = 2**20

# The value of zlib's `wbits` that accepts a zlib or a gzip header, as ITK does.
_ANY_HEADER = 47

_NIFTI_HEADER_BYTES = 348
_NIFTI_VOXEL_OFFSET = 352  # the header, then four bytes that announce extensions


def read_meta_header(path: pathlib.Path) -> dict[str, str]:
  """Returns the `Key = value` lines of a MetaImage header (`.mhd`).

  SimpleITK does not return `ElementDataFile`, which must be checked before it reads.
  """
  header = {}
  for line in path.read_bytes().decode('latin-1').splitlines():
    key, equals, value = line.partition('=')
    if equals:
      header[key.strip()] = value.strip()
  return header


def data_file_of(path: pathlib.Path) -> pathlib.Path:
  """Returns the data file that a `.mhd` names.

  Raises:
    ScanError: the header names no file, several files, or one outside its own folder.
  """
  name = read_meta_header(path).get('ElementDataFile', '')
  if not name or name.split()[0].upper() in ('LIST', 'LOCAL') or '%' in name:
    raise ScanError(
      f'{path}: ElementDataFile = {name or "(missing)"}: the header must name one data '
      'file in the same folder'
    )
  data_file = pathlib.PurePath(name)
  if data_file.is_absolute() or '..' in data_file.parts or '\\' in name:
    raise ScanError(
      f"{path}: ElementDataFile = {name} is outside the scan's folder, which is refused"
    )
  return path.parent / data_file


def check_data_file(path: pathlib.Path, num_bytes: int) -> bool:
  """Checks the data file of a `.mhd` against its header, without reading voxels.

  Args:
    path: the `.mhd` file.
    num_bytes: size of the uncompressed voxels by the header.

  Returns:
    Whether the data file is uncompressed, so that regions of it can be read.

  Raises:
    ScanError: the data file is missing, refused, or of another length.
  """
  data_file = data_file_of(path)
  if not data_file.is_file():
    raise ScanError(f'{path}: its data file {data_file.name} is missing')
  header = read_meta_header(path)
  if header.get('CompressedData', 'False').lower() == 'true':
    return False
  size = data_file.stat().st_size
  if header.get('HeaderSize', '0') == '0' and size != num_bytes:
    problem = 'truncated' if size < num_bytes else 'longer than its header says'
    raise ScanError(
      f'{path}: the data file {data_file.name} is {problem}: {size} bytes, expected '
      f'{num_bytes}'
    )
  return True


def check_compressed_data(path: pathlib.Path, num_bytes: int) -> None:
  """Decompresses the data file of a `.mhd` to check its length and its checksum.

  Args:
    path: the `.mhd` file.
    num_bytes: size of the uncompressed voxels by the header.

  Raises:
    ScanError: the data file is damaged, truncated, or of another scan.
  """
  data_file = data_file_of(path)
  decompressor = zlib.decompressobj(_ANY_HEADER)
  size = 0
  try:
    with data_file.open('rb') as file:
      while block := file.read(_BLOCK_BYTES):
        size += len(decompressor.decompress(block))
  except (OSError, zlib.error) as error:
    raise _damaged(path, error) from error
  if not decompressor.eof or size != num_bytes:
    raise ScanError(
      f'{path}: the data file {data_file.name} is truncated or of another scan: '
      f'{size} bytes after decompression, expected {num_bytes}'
    )


def check_nifti(path: pathlib.Path, num_voxels: int) -> None:
  """Checks the length of a NIfTI-1 file and, if it is compressed, its checksum.

  Args:
    path: the `.nii` or `.nii.gz` file.
    num_voxels: number of voxels by the header.

  Raises:
    ScanError: the file is damaged or truncated.
  """
  try:
    with gzip.open(path) if path.suffix == '.gz' else path.open('rb') as file:
      header = file.read(_NIFTI_HEADER_BYTES)
      size = len(header)
      while block := file.read(_BLOCK_BYTES):
        size += len(block)
  except (OSError, EOFError, zlib.error) as error:
    raise _damaged(path, error) from error
  for byte_order in ('little', 'big'):
    if int.from_bytes(header[:4], byte_order) == _NIFTI_HEADER_BYTES:
      bits_per_voxel = int.from_bytes(header[72:74], byte_order)
      num_bytes = _NIFTI_VOXEL_OFFSET + num_voxels * bits_per_voxel // 8
      if size < num_bytes:
        raise ScanError(
          f'{path}: truncated: {size} bytes, expected {num_bytes} by its header'
        )


def _damaged(path: pathlib.Path, error: Exception) -> ScanError:
  return ScanError(f'{path}: its data are damaged: {error}')
