"""Opens a CT scan: reads the header, then only the requested voxels."""

from __future__ import annotations

import dataclasses
import math
import pathlib
from typing import Any

import numpy as np

from luna_tfds import dicom_series
from luna_tfds import geometry
from luna_tfds import image_files
from luna_tfds import nifti_files
from luna_tfds.errors import ScanError
from luna_tfds.geometry import Box

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
    reads_regions: whether a region can be read without the rest of the file.
    bytes_per_voxel: as stored on disk.
  """

  path: pathlib.Path
  grid: geometry.Grid
  orientation: geometry.Orientation
  reads_regions: bool
  bytes_per_voxel: int

  def read(self) -> np.ndarray:
    """Reads all voxels.

    Returns:
      int16 HU [z, y, x] in world orientation.

    Raises:
      ScanError: the voxels cannot be read.
    """
    self._check_contents()
    return self.orientation.apply(_to_int16(_read_voxels(self.path), self.path))

  def read_region(self, box: Box) -> np.ndarray:
    """Reads the voxels of a region.

    Args:
      box: a region inside the scan, in world orientation; no side is empty.

    Returns:
      int16 HU [z, y, x] in world orientation.

    Raises:
      ScanError: the voxels cannot be read.
    """
    start, size = self.orientation.region_as_stored(
      box.start_zyx, box.size_zyx, self.grid.shape_zyx
    )
    self._check_contents()
    voxels = _read_voxels(self.path, Box(start, size))
    return self.orientation.apply(_to_int16(voxels, self.path))

  def _check_contents(self) -> None:
    """Raises ScanError if voxels are missing or damaged where ITK raises no error."""
    if self.path.is_dir():
      return
    if image_files.suffix_of(self.path) in ('.nii', '.nii.gz'):
      nifti_files.check_contents(self.path)
    elif not self.reads_regions:
      num_bytes = self.grid.num_voxels * self.bytes_per_voxel
      header = image_files.read_meta_header(self.path)
      image_files.check_compressed_data(header, num_bytes)


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
  """
  path = pathlib.Path(path)
  try:
    str(path).encode()
  except UnicodeEncodeError as error:  # ITK would end the process
    raise ScanError(f'{str(path)!a}: not valid UTF-8; rename the file') from error
  if not path.exists():
    raise ScanError(f'{path}: no such file')
  meta = None
  if not path.is_dir():
    if image_files.suffix_of(path) in ('.nii', '.nii.gz'):
      nifti_files.check_header(path)
    else:
      meta = image_files.read_meta_header(path)
  header = _read_header(path)
  image_files.check_is_volume(path, len(header.size_xyz), header.num_components)
  try:
    stored = geometry.Grid(
      shape_zyx=header.size_xyz[::-1],
      spacing_xyz_mm=header.spacing_xyz_mm,
      origin_xyz_mm=header.origin_xyz_mm,
      direction=header.direction,
    )
    grid, orientation = geometry.orient(stored)
  except ValueError as error:
    raise ScanError(f'{path}: {error}') from error
  if meta:
    _check_same_grid(meta, stored)
    image_files.check_data_file(meta, stored.num_voxels * header.bytes_per_voxel)
  reads_regions = meta is not None and not meta.is_compressed
  return Scan(path, grid, orientation, reads_regions, header.bytes_per_voxel)


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


def _check_same_grid(meta: image_files.MetaHeader, grid: geometry.Grid) -> None:
  """Raises ScanError if ITK reads a header differently from what it says."""
  if meta.grid.shape_zyx != grid.shape_zyx or not all(
    math.isclose(stated, read, rel_tol=1e-9, abs_tol=1e-9)
    for stated, read in zip(
      meta.grid.spacing_xyz_mm + meta.grid.origin_xyz_mm,
      grid.spacing_xyz_mm + grid.origin_xyz_mm,
    )
  ):
    raise ScanError(f'{meta.path}: ITK reads another grid than its header says: {grid}')


def _read_voxels(path: pathlib.Path, region: Box | None = None) -> np.ndarray:
  """Reads voxels in stored orientation: those of a region, or all."""
  import SimpleITK as sitk

  try:
    if path.is_dir():
      image = dicom_series.open_series(path).Execute()
    else:
      reader = _file_reader(path)
      if region is not None:
        reader.SetExtractIndex(list(region.start_zyx[::-1]))
        reader.SetExtractSize(list(region.size_zyx[::-1]))
      image = reader.Execute()
  except RuntimeError as error:
    raise ScanError(f'{path}: {_last_line(error)}') from error
  view = sitk.GetArrayViewFromImage(image).view(_ImageView)
  view.image = image
  voxels: np.ndarray = view
  if path.is_dir() and region is not None:
    return voxels[region.slices()]
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
