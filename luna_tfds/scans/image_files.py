"""The accepted image files, and checks of them that ITK does not do."""

from __future__ import annotations

import pathlib
import stat

from luna_tfds.errors import ScanError
from luna_tfds.files.store_requests import StoreError
from luna_tfds.text_format import bytes_text

SUFFIXES = ('.mhd', '.mha', '.nii', '.nii.gz')

# A compressed scan is decompressed in memory, so its size must be bounded. Chest scans of
# 1024x1024 pixels and 2000 slices have 4 GiB.
MAX_COMPRESSED_SCAN_BYTES = 2**32

# Compressed files are checked in blocks of this size.
BLOCK_BYTES = 2**18


def suffix_of(path: pathlib.Path) -> str:
  """Returns which of SUFFIXES a file has, in lower or upper case.

  Raises:
    ScanError: it has none of them.
  """
  for suffix in SUFFIXES:
    if path.name.endswith((suffix, suffix.upper())):
      return suffix
  raise ScanError(
    f'{path}: not an accepted format; accepted are {", ".join(SUFFIXES)} and a folder of '
    'DICOM slices'
  )


def check_regular_file(path: pathlib.Path) -> None:
  """Raises ScanError if `path` is not a file that can be read to its end."""
  try:
    mode = path.stat().st_mode
  except StoreError:
    raise
  except OSError as error:
    problem = 'no such file' if isinstance(error, FileNotFoundError) else error.strerror
    raise ScanError(f'{path}: {problem}') from error
  if not stat.S_ISREG(mode):
    raise ScanError(f'{path}: not a file')


def check_size_of_compressed_scan(path: pathlib.Path, num_bytes: int) -> None:
  """Raises ScanError if decompressing a scan would take too much memory."""
  if num_bytes > MAX_COMPRESSED_SCAN_BYTES:
    raise ScanError(
      f'{path}: {bytes_text(num_bytes)} of voxels by its header; a compressed scan may '
      f'have {bytes_text(MAX_COMPRESSED_SCAN_BYTES)}; store the scan uncompressed'
    )


def check_is_volume(path: pathlib.Path, num_axes: int, num_components: int) -> None:
  """Raises ScanError unless there are three axes and one value per voxel."""
  if num_axes != 3 or num_components != 1:
    raise ScanError(
      f'{path}: not a CT volume: {num_axes} axes, {num_components} values per voxel'
    )
