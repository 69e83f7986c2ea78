"""Opens a CT scan: reads the header, then only the requested voxels."""

from __future__ import annotations

import dataclasses
import pathlib
from typing import Any

import numpy as np

from luna_tfds import geometry
from luna_tfds import image_files
from luna_tfds.errors import ScanError
from luna_tfds.geometry import Box

_HU_RANGE = np.iinfo(np.int16)

# The distances between the slices of a DICOM series may differ by this part of their
# median. A missing slice doubles one of them.
_SPACING_TOLERANCE = 0.25

_IMAGE_POSITION = '0020|0032'  # the DICOM tag ImagePositionPatient


class _ImageView(np.ndarray):
  """A view of the voxels of an ITK image that keeps the image alive: saves a copy."""

  image: object = None


@dataclasses.dataclass(frozen=True)
class Scan:
  """A scan on disk; its voxels are not read yet.

  Attributes:
    path: the `.mhd` (or other image) file, or a folder of DICOM slices.
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
    if self.path.suffix == '.mhd' and not self.reads_regions:
      num_bytes = self.grid.num_voxels * self.bytes_per_voxel
      image_files.check_compressed_data(self.path, num_bytes)
    elif self.path.name.endswith(('.nii', '.nii.gz')):
      image_files.check_nifti(self.path, self.grid.num_voxels)


def open_scan(path: str | pathlib.Path) -> Scan:
  """Reads the header of a scan and checks it against its data file.

  Args:
    path: `.mhd`, `.nii`, `.nii.gz` or another file that SimpleITK reads, or a folder
      that holds the slices of one DICOM series.

  Returns:
    The scan.

  Raises:
    ScanError: the scan does not exist, is not a CT volume whose axes are parallel to
      the world's, or its data file does not match its header.
  """
  import SimpleITK as sitk

  path = pathlib.Path(path)
  if not path.exists():
    raise ScanError(f'{path}: no such file')
  try:
    header = _read_dicom_header(path) if path.is_dir() else _read_header(path)
  except RuntimeError as error:
    raise ScanError(f'{path}: {_last_line(error)}') from error
  if len(header.size_xyz) != 3 or header.num_components != 1:
    raise ScanError(
      f'{path}: not a CT volume: {len(header.size_xyz)} axes, {header.num_components} '
      'values per voxel'
    )
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
  one_voxel = sitk.Image([1, 1, 1], header.pixel_id)
  bytes_per_voxel = sitk.GetArrayViewFromImage(one_voxel).itemsize
  reads_regions = path.suffix == '.mhd' and image_files.check_data_file(
    path, stored.num_voxels * bytes_per_voxel
  )
  return Scan(path, grid, orientation, reads_regions, bytes_per_voxel)


@dataclasses.dataclass(frozen=True)
class _Header:
  """The header of an image as ITK returns it; `pixel_id` is ITK's voxel type."""

  size_xyz: tuple[int, ...]
  spacing_xyz_mm: tuple[float, ...]
  origin_xyz_mm: tuple[float, ...]
  direction: tuple[float, ...]
  pixel_id: int
  num_components: int


def _read_header(path: pathlib.Path) -> _Header:
  import SimpleITK as sitk

  reader = sitk.ImageFileReader()
  reader.SetFileName(str(path))
  reader.ReadImageInformation()
  return _Header(
    tuple(reader.GetSize()),
    tuple(reader.GetSpacing()),
    tuple(reader.GetOrigin()),
    tuple(reader.GetDirection()),
    reader.GetPixelID(),
    reader.GetNumberOfComponents(),
  )


def _read_dicom_header(folder: pathlib.Path) -> _Header:
  """Reads the headers of all slices, and checks that the slices are evenly spaced."""
  reader = _dicom_reader(folder)
  reader.MetaDataDictionaryArrayUpdateOn()
  image = reader.Execute()
  _check_slices(folder, reader)
  return _Header(
    tuple(image.GetSize()),
    tuple(image.GetSpacing()),
    tuple(image.GetOrigin()),
    tuple(image.GetDirection()),
    image.GetPixelID(),
    image.GetNumberOfComponentsPerPixel(),
  )


def _read_voxels(path: pathlib.Path, region: Box | None = None) -> np.ndarray:
  """Reads voxels in stored orientation: those of a region, or all."""
  import SimpleITK as sitk

  try:
    if path.is_dir():
      image = _dicom_reader(path).Execute()
    else:
      reader = sitk.ImageFileReader()
      reader.SetFileName(str(path))
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


def _dicom_reader(folder: pathlib.Path) -> Any:
  """Returns an `ImageSeriesReader` of the one series in a folder."""
  import SimpleITK as sitk

  # `_check_slices` replaces the warning that ITK writes to stderr.
  sitk.ProcessObject.SetGlobalWarningDisplay(False)
  series = sitk.ImageSeriesReader.GetGDCMSeriesIDs(str(folder))
  if len(series) != 1:
    raise ScanError(
      f'{folder}: the folder must hold one DICOM series; found {len(series)}'
    )
  reader = sitk.ImageSeriesReader()
  reader.SetFileNames(
    sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder), series[0])
  )
  return reader


def _check_slices(folder: pathlib.Path, reader: Any) -> None:
  """Raises ScanError if the slices of a series are not evenly spaced.

  ITK only warns, and uses the mean spacing: all slices would be misplaced.
  """
  count = len(reader.GetFileNames())
  if not all(reader.HasMetaDataKey(i, _IMAGE_POSITION) for i in range(count)):
    return
  positions = [reader.GetMetaData(i, _IMAGE_POSITION).split('\\') for i in range(count)]
  steps_mm = np.linalg.norm(np.diff(np.array(positions, np.float64), axis=0), axis=1)
  if count > 1 and np.ptp(steps_mm) > _SPACING_TOLERANCE * np.median(steps_mm):
    raise ScanError(
      f'{folder}: slices are missing or unevenly spaced: the distances between them are '
      f'{steps_mm.min():.4g} to {steps_mm.max():.4g} mm'
    )


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
