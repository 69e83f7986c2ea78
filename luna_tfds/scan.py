"""Opens a CT scan: the header first, then only the voxels that are asked for."""

from __future__ import annotations

import dataclasses
import gzip
import pathlib
from typing import Any
import zlib

import numpy as np

from luna_tfds import geometry
from luna_tfds.errors import ScanError
from luna_tfds.geometry import Box

_HU_RANGE = np.iinfo(np.int16)

# Files are decompressed in pieces of this size to check them.
_CHUNK_BYTES = 2**20

# zlib's way to say: a zlib or a gzip header, as ITK takes both.
_ANY_HEADER = 47

# The steps between the slices of a DICOM series may differ by this part of a step; a
# missing slice makes one twice as long.
_STEP_TOLERANCE = 0.25


class _ImageView(np.ndarray):
  """A view of an image's voxels that keeps the image alive; saves a copy of a scan."""

  image: object = None


@dataclasses.dataclass(frozen=True)
class Scan:
  """A scan on disk; its voxels are not read yet.

  Attributes:
    path: the `.mhd` (or other image) file, or a folder of DICOM slices.
    grid: its grid in world orientation (identity direction).
    orientation: how the stored array becomes world-oriented.
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
    """Reads the voxels of `box` alone.

    Args:
      box: a region inside the scan, world orientation, no side empty.

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
    """Raises ScanError if voxels are missing or damaged where ITK would not tell.

    Instead of the missing part of a `.zraw` or a NIfTI file ITK returns whatever the
    memory held.
    """
    try:
      if self.path.suffix == '.mhd' and not self.reads_regions:
        _check_compressed(self.path, self.grid.num_voxels * self.bytes_per_voxel)
      elif self.path.name.endswith(('.nii', '.nii.gz')):
        _check_nifti(self.path, self.grid.num_voxels)
    except (OSError, EOFError, zlib.error) as error:
      raise ScanError(f'{self.path}: its data are damaged: {error}') from error


def open_scan(path: str | pathlib.Path) -> Scan:
  """Reads the header of a scan and checks it against its data file.

  Args:
    path: `.mhd`, `.nii`, `.nii.gz` or another file SimpleITK reads, or a folder that
      holds the slices of one DICOM series.

  Returns:
    The scan.

  Raises:
    ScanError: there is no such scan, or its header is not one of a CT volume that
      lies along the world's axes, or the data file does not fit the header.
  """
  import SimpleITK as sitk

  path = pathlib.Path(path)
  if not path.exists():
    raise ScanError(f'{path}: no such file')
  try:
    reader: Any = _dicom_reader(path) if path.is_dir() else sitk.ImageFileReader()
    if path.is_dir():
      reader.MetaDataDictionaryArrayUpdateOn()
      image = reader.Execute()
      _check_slices(path, reader, len(reader.GetFileNames()))
      size, spacing, origin = image.GetSize(), image.GetSpacing(), image.GetOrigin()
      direction, pixel_id = image.GetDirection(), image.GetPixelID()
      components = image.GetNumberOfComponentsPerPixel()
    else:
      reader.SetFileName(str(path))
      reader.ReadImageInformation()
      size, spacing, origin = reader.GetSize(), reader.GetSpacing(), reader.GetOrigin()
      direction, pixel_id = reader.GetDirection(), reader.GetPixelID()
      components = reader.GetNumberOfComponents()
  except RuntimeError as error:
    raise ScanError(f'{path}: {_last_line(error)}') from error
  if len(size) != 3 or components != 1:
    raise ScanError(
      f'{path}: not a CT volume: {len(size)} axes, {components} values a voxel'
    )
  try:
    stored = geometry.Grid(
      shape_zyx=tuple(size[::-1]),
      spacing_xyz_mm=tuple(spacing),
      origin_xyz_mm=tuple(origin),
      direction=tuple(direction),
    )
    grid, orientation = geometry.orient(stored)
  except ValueError as error:
    raise ScanError(f'{path}: {error}') from error
  bytes_per_voxel = sitk.GetArrayViewFromImage(sitk.Image([1, 1, 1], pixel_id)).itemsize
  reads_regions = False
  if path.suffix == '.mhd':
    reads_regions = _check_data_file(path, stored.num_voxels * bytes_per_voxel)
  return Scan(path, grid, orientation, reads_regions, bytes_per_voxel)


def read_meta_header(path: pathlib.Path) -> dict[str, str]:
  """Returns the `Key = value` lines of a MetaImage header.

  SimpleITK does not tell `ElementDataFile`, which must be checked before it reads.
  """
  header = {}
  for line in path.read_bytes().decode('latin-1').splitlines():
    key, equals, value = line.partition('=')
    if equals:
      header[key.strip()] = value.strip()
  return header


def data_file_of(path: pathlib.Path) -> pathlib.Path:
  """Returns the data file a `.mhd` names, if it lies in the scan's own folder.

  Raises:
    ScanError: the header names none, a list or pattern of files, or one outside.
  """
  name = read_meta_header(path).get('ElementDataFile', '')
  if not name or name.split()[0].upper() in ('LIST', 'LOCAL') or '%' in name:
    raise ScanError(
      f'{path}: ElementDataFile = {name or "(missing)"}: one data file in the '
      'same folder is needed'
    )
  data_file = pathlib.PurePath(name)
  if data_file.is_absolute() or '..' in data_file.parts or '\\' in name:
    raise ScanError(
      f"{path}: ElementDataFile = {name} leaves the scan's folder, which is refused"
    )
  return path.parent / data_file


def _check_data_file(path: pathlib.Path, num_bytes: int) -> bool:
  """Checks the data file of a `.mhd`; returns whether regions of it can be read."""
  data_file = data_file_of(path)
  if not data_file.is_file():
    raise ScanError(f'{path}: its data file {data_file.name} is missing')
  header = read_meta_header(path)
  if header.get('CompressedData', 'False').lower() == 'true':
    return False
  found = data_file.stat().st_size
  if header.get('HeaderSize', '0') == '0' and found != num_bytes:
    problem = 'truncated' if found < num_bytes else 'longer than its header says'
    raise ScanError(
      f'{path}: the data file {data_file.name} is {problem}: {found} bytes where '
      f'the header promises {num_bytes}'
    )
  return True


def _check_compressed(path: pathlib.Path, num_bytes: int) -> None:
  """Decompresses the data file of a `.mhd`, for its length and its checksum."""
  data_file, decompressor, found = (
    data_file_of(path),
    zlib.decompressobj(_ANY_HEADER),
    0,
  )
  with data_file.open('rb') as file:
    while chunk := file.read(_CHUNK_BYTES):
      found += len(decompressor.decompress(chunk))
  if not decompressor.eof or found != num_bytes:
    raise ScanError(
      f'{path}: the data file {data_file.name} is truncated or of another scan: it '
      f'holds {found} bytes where the header promises {num_bytes}'
    )


def _check_nifti(path: pathlib.Path, num_voxels: int) -> None:
  """Checks the length of a NIfTI-1 file, and the checksum if it is compressed."""
  with gzip.open(path) if path.suffix == '.gz' else path.open('rb') as file:
    header = file.read(348)
    found = len(header) + sum(map(len, iter(lambda: file.read(_CHUNK_BYTES), b'')))
  for order in ('little', 'big'):
    if int.from_bytes(header[:4], order) == 348:
      # Header and extension flag, then the voxels of `bitpix` bits.
      needed = 352 + num_voxels * int.from_bytes(header[72:74], order) // 8
      if found < needed:
        raise ScanError(
          f'{path}: truncated: {found} bytes where the header promises {needed}'
        )


def _read_voxels(path: pathlib.Path, region: Box | None = None) -> np.ndarray:
  """Reads voxels in stored orientation; the whole scan if no region is given."""
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
  import SimpleITK as sitk

  # What ITK would warn of on stderr is checked here.
  sitk.ProcessObject.SetGlobalWarningDisplay(False)
  series = sitk.ImageSeriesReader.GetGDCMSeriesIDs(str(folder))
  if len(series) != 1:
    raise ScanError(
      f'{folder}: a folder with one DICOM series is needed; it holds {len(series)}'
    )
  reader = sitk.ImageSeriesReader()
  reader.SetFileNames(
    sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder), series[0])
  )
  return reader


def _check_slices(folder: pathlib.Path, reader: Any, count: int) -> None:
  """Raises ScanError if the slices of a series are not evenly spaced.

  ITK warns and takes the mean spacing, which puts all slices in the wrong place.
  """
  key = '0020|0032'  # ImagePositionPatient
  if not all(reader.HasMetaDataKey(i, key) for i in range(count)):
    return
  positions = [reader.GetMetaData(i, key).split('\\') for i in range(count)]
  steps_mm = np.linalg.norm(np.diff(np.array(positions, np.float64), axis=0), axis=1)
  if count > 1 and np.ptp(steps_mm) > _STEP_TOLERANCE * np.median(steps_mm):
    raise ScanError(
      f'{folder}: slices are missing or unevenly spaced: they lie {steps_mm.min():.4g} '
      f'to {steps_mm.max():.4g} mm apart'
    )


def _to_int16(voxels: np.ndarray, path: pathlib.Path) -> np.ndarray:
  if voxels.dtype == np.int16:
    return voxels
  if np.issubdtype(voxels.dtype, np.floating):
    if not np.isfinite(voxels).all():
      raise ScanError(f'{path}: holds values that are not finite')
    voxels = np.rint(voxels)
  return voxels.clip(_HU_RANGE.min, _HU_RANGE.max).astype(np.int16)


def _last_line(error: Exception) -> str:
  """ITK's errors span several lines; the last one tells what happened."""
  lines = [line.strip() for line in str(error).splitlines() if line.strip()]
  return lines[-1] if lines else type(error).__name__
