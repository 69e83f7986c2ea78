"""Opens a CT scan: reads the header, then only the requested voxels.

An uncompressed MetaImage, the format of LUNA16, is a header and an array: its regions are
read here. SimpleITK reads all other formats, each scan completely; it cannot read from a
store, so such a scan is copied to a temporary folder.
"""

from __future__ import annotations

import collections
from collections.abc import Iterable, Iterator, Sequence
import contextlib
import dataclasses
import pathlib
from typing import Any

import numpy as np

from luna_tfds import geometry
from luna_tfds.errors import ScanError
from luna_tfds.files import store_path
from luna_tfds.files.store_path import StorePath
from luna_tfds.geometry import Box
from luna_tfds.scans import dicom_series
from luna_tfds.scans import image_files
from luna_tfds.scans import meta_image_files
from luna_tfds.scans import nifti_files
from luna_tfds.scans.local_copy import local_copy
from luna_tfds.scans.raw_voxels import RawVoxels
from luna_tfds.scans.store_voxels import StoreVoxels

_HU_RANGE = np.iinfo(np.int16)

# ITK would choose by the file's name, which it compares with suffixes in lower case.
_IMAGE_IO = {
  '.mhd': 'MetaImageIO',
  '.mha': 'MetaImageIO',
  '.nii': 'NiftiImageIO',
  '.nii.gz': 'NiftiImageIO',
}


class _ImageView(np.ndarray):
  """A view of the voxels of an ITK image that keeps the image alive: saves a copy."""

  image: object = None


@dataclasses.dataclass(frozen=True)
class Scan:
  """A scan on disk; its voxels are not read yet.

  Attributes:
    path: the image file, or a folder of DICOM slices.
    grid: its grid in world orientation (identity direction).
    orientation: converts the stored array to world orientation.
    bytes_per_voxel: size of a voxel as it is stored on disk.
    raw: its voxels if they are an uncompressed MetaImage; None if SimpleITK reads them.
  """

  path: pathlib.Path
  grid: geometry.Grid
  orientation: geometry.Orientation
  bytes_per_voxel: int
  raw: RawVoxels | None

  def read(self) -> np.ndarray:
    """Reads all voxels.

    Returns:
      int16 HU [z, y, x] in world orientation.

    Raises:
      ScanError: the voxels cannot be read.
    """
    (voxels,) = self.read_regions([Box((0, 0, 0), self.grid.shape_zyx)])
    return voxels

  def read_regions(self, boxes: Sequence[Box]) -> Iterator[np.ndarray]:
    """Reads the voxels of regions, one after another.

    An uncompressed MetaImage needs memory for one region. Any other scan is read
    completely at the first region.

    Args:
      boxes: regions inside the scan, in world orientation; a side may be empty. In the
        order of `file_order`, the file is read forward.

    Yields:
      For each box, int16 HU [z, y, x] in world orientation; it may be read-only.

    Raises:
      ScanError: the voxels cannot be read.
    """
    if self.raw:
      for voxels in self.raw.read_regions(self._as_stored(boxes)):
        yield self.orientation.apply(_to_int16(voxels, self.path))
      return
    voxels = self._read_with_itk()
    for box in boxes:
      yield voxels[box.slices()]

  def _read_with_itk(self) -> np.ndarray:
    """Reads all voxels of a scan that is not an uncompressed MetaImage."""
    if isinstance(self.path, StorePath):
      with local_copy(self.path) as path:
        return open_scan(path).read()
    self._check_contents()
    return self.orientation.apply(_to_int16(_read_voxels(self.path), self.path))

  def file_order(self, boxes: Sequence[Box]) -> list[int]:
    """Returns the order in which regions of the scan start in its file.

    Args:
      boxes: n regions in world orientation.

    Returns:
      A permutation of 0 ... n - 1.
    """
    starts = [box.start_zyx for box in self._as_stored(boxes)]
    return sorted(range(len(boxes)), key=starts.__getitem__)

  def byte_ranges(self, boxes: Sequence[Box]) -> Iterator[tuple[int, int]]:
    """Yields what `read_regions` reads of the data file: (position, length) in bytes.

    Args:
      boxes: regions in world orientation; a side may be empty.
    """
    if self.raw:
      for box in self._as_stored(boxes):
        yield from self.raw.byte_ranges(box)
    else:
      yield 0, self.grid.num_voxels * self.bytes_per_voxel

  def bytes_to_read(self, boxes: Sequence[Box]) -> int:
    """Returns the sum of the lengths of `byte_ranges`."""
    if not self.raw:
      return self.grid.num_voxels * self.bytes_per_voxel
    # Most boxes have the same size.
    sizes = collections.Counter(box.size_zyx for box in self._as_stored(boxes))
    return sum(n * self.raw.bytes_to_read(size) for size, n in sizes.items())

  def _as_stored(self, boxes: Iterable[Box]) -> Iterable[Box]:
    if self.orientation.is_identity:
      return boxes
    shape_zyx = self.grid.shape_zyx
    return [self.orientation.box_as_stored(box, shape_zyx) for box in boxes]

  def _check_contents(self) -> None:
    """Raises ScanError if voxels are missing or damaged where ITK raises no error."""
    if self.path.is_dir():
      return
    if image_files.suffix_of(self.path) in ('.nii', '.nii.gz'):
      nifti_files.check_contents(self.path)
    else:
      meta_image_files.check_compressed_data(
        meta_image_files.read_meta_header(self.path)
      )


def open_scan(path: str | pathlib.Path) -> Scan:
  """Reads the header of a scan and checks it against its data file.

  Args:
    path: a file with one of `image_files.SUFFIXES`, or a folder that holds the slices of
      one DICOM series.

  Returns:
    The scan.

  Raises:
    ScanError: the scan does not exist, is not a CT volume whose axes are parallel to
      the world's, its header is invalid, or its data file does not match its header.
    StoreError: the store of the scan cannot be read.
  """
  path = store_path.as_path(path)
  try:
    str(path).encode()
  except UnicodeEncodeError as error:  # ITK would end the process
    raise ScanError(f'{str(path)!a}: not valid UTF-8; rename the file') from error
  if isinstance(path, StorePath):
    if _has_ranges(path):
      return _open_meta_image(path)
    with opened_scan(path) as scan:
      return dataclasses.replace(scan, path=path)
  if not path.exists():
    raise ScanError(f'{path}: no such file')
  if path.is_dir():
    return _open_with_itk(path)
  if image_files.suffix_of(path) in ('.nii', '.nii.gz'):
    nifti_files.check_header(path)
    return _open_with_itk(path)
  return _open_meta_image(path)


@contextlib.contextmanager
def opened_scan(path: str | pathlib.Path) -> Iterator[Scan]:
  """Opens a scan to read it in a `with` block, for which it is transferred once.

  `open_scan` copies a scan in a store that is no MetaImage to read its header, and
  reading its voxels copies it again. Here the copy is kept to the end of the block.

  Args:
    path: the scan, see `open_scan`.

  Yields:
    The scan. Its `path` is the copy, if there is one; a ScanError in the block names the
    URL.

  Raises:
    ScanError, StoreError: as `open_scan`.
    OSError: the disk is full.
  """
  path = store_path.as_path(path)
  if not isinstance(path, StorePath) or _has_ranges(path):
    yield open_scan(path)
    return
  if not path.exists():
    raise ScanError(f'{path}: no such file')
  with local_copy(path) as local:
    yield open_scan(local)


def _has_ranges(path: StorePath) -> bool:
  """Returns whether the header of a scan in a store is read without the voxels."""
  return path.suffix.lower() in ('.mhd', '.mha')


def _open_meta_image(path: pathlib.Path) -> Scan:
  header = meta_image_files.read_meta_header(path)
  if header.is_compressed and not isinstance(path, StorePath):
    return _open_with_itk(path, header)
  meta_image_files.check_data_file(header)
  grid, orientation = _orient(path, header.grid)
  raw = None if header.is_compressed else _raw_voxels(header)
  return Scan(path, grid, orientation, header.dtype.itemsize, raw)


def _raw_voxels(header: meta_image_files.MetaHeader) -> RawVoxels:
  """Returns the voxels of an uncompressed MetaImage, on disk or in a store."""
  path, offset = header.data_file, header.data_offset
  if isinstance(path, StorePath):
    return StoreVoxels(path, offset, header.grid.shape_zyx, header.dtype)
  return RawVoxels(path, offset, header.grid.shape_zyx, header.dtype)


def _open_with_itk(
  path: pathlib.Path, meta: meta_image_files.MetaHeader | None = None
) -> Scan:
  """Opens a scan whose voxels SimpleITK reads; `meta` is its header if it has one."""
  header = _read_header(path)
  image_files.check_is_volume(path, len(header.size_xyz), header.num_components)
  try:
    stored = geometry.Grid(
      shape_zyx=header.size_xyz[::-1],
      spacing_xyz_mm=header.spacing_xyz_mm,
      origin_xyz_mm=header.origin_xyz_mm,
      direction=header.direction,
    )
  except ValueError as error:
    raise ScanError(f'{path}: {error}') from error
  if meta:
    meta_image_files.check_same_grid(meta, stored)
    meta_image_files.check_data_file(meta)
  grid, orientation = _orient(path, stored)
  return Scan(path, grid, orientation, header.bytes_per_voxel, None)


def _orient(
  path: pathlib.Path, stored: geometry.Grid
) -> tuple[geometry.Grid, geometry.Orientation]:
  """Calls `geometry.orient` and names the scan in its error."""
  try:
    return geometry.orient(stored)
  except ValueError as error:
    raise ScanError(f'{path}: {error}') from error


@dataclasses.dataclass(frozen=True)
class _Header:
  """The header of an image as ITK returns it."""

  size_xyz: tuple[int, ...]
  spacing_xyz_mm: tuple[float, ...]
  origin_xyz_mm: tuple[float, ...]
  direction: tuple[float, ...]
  num_components: int
  bytes_per_voxel: int


def _read_header(path: pathlib.Path) -> _Header:
  """Reads the header of an image file, or those of all slices of a DICOM folder."""
  import SimpleITK as sitk

  try:
    if path.is_dir():
      reader = dicom_series.open_series(path)
      reader.MetaDataDictionaryArrayUpdateOn()
      header = reader.Execute()
      dicom_series.check_slices(path, reader)
      num_components = header.GetNumberOfComponentsPerPixel()
    else:
      header = _file_reader(path)
      header.ReadImageInformation()
      num_components = header.GetNumberOfComponents()
    one_voxel = sitk.Image([1, 1, 1], header.GetPixelID())
  except RuntimeError as error:
    if not path.is_dir() and image_files.suffix_of(path) in ('.nii', '.nii.gz'):
      nifti_files.check_contents(path)  # has a clearer message for a damaged file
    raise ScanError(f'{path}: {_last_line(error)}') from error
  return _Header(
    tuple(header.GetSize()),
    tuple(header.GetSpacing()),
    tuple(header.GetOrigin()),
    tuple(header.GetDirection()),
    num_components,
    sitk.GetArrayViewFromImage(one_voxel).itemsize,
  )


def _read_voxels(path: pathlib.Path) -> np.ndarray:
  """Reads all voxels, in stored orientation."""
  import SimpleITK as sitk

  try:
    reader = dicom_series.open_series(path) if path.is_dir() else _file_reader(path)
    image = reader.Execute()
  except RuntimeError as error:
    raise ScanError(f'{path}: {_last_line(error)}') from error
  view = sitk.GetArrayViewFromImage(image).view(_ImageView)
  view.image = image
  voxels: np.ndarray = view
  return voxels


def _file_reader(path: pathlib.Path) -> Any:
  """Returns an `ImageFileReader` of an image file."""
  import SimpleITK as sitk

  reader = sitk.ImageFileReader()
  reader.SetImageIO(_IMAGE_IO[image_files.suffix_of(path)])
  reader.SetFileName(str(path))
  return reader


def _to_int16(voxels: np.ndarray, path: pathlib.Path) -> np.ndarray:
  """Converts voxels of any type: rounds fractions, clips to the range of int16."""
  if voxels.dtype == np.int16:
    return voxels
  if np.issubdtype(voxels.dtype, np.floating):
    if not np.isfinite(voxels).all():
      raise ScanError(f'{path}: contains voxels that are not finite')
    voxels = np.rint(voxels)
  return voxels.clip(_HU_RANGE.min, _HU_RANGE.max).astype(np.int16)


def _last_line(error: Exception) -> str:
  """Returns the last line of a message of ITK's, which holds the reason."""
  lines = [line.strip() for line in str(error).splitlines() if line.strip()]
  return lines[-1] if lines else type(error).__name__
