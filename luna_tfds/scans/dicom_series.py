"""Folders of DICOM slices: finds the series, and checks that it is a regular volume.

ITK takes the orientation, the spacing of pixels and the type of voxels from the first
slice, and leaves files that it cannot read out of the series. So a tilted gantry or a
damaged file gives a wrong scan without an error.
"""

from __future__ import annotations

from collections.abc import Sequence
import math
import os
import pathlib
import struct
import tempfile
from typing import Any

import numpy as np

from luna_tfds.errors import ScanError
from luna_tfds.scans import dicom_elements
from luna_tfds.text_format import shown_text

# The tags that position a slice, and how many numbers they hold.
_POSITION = ('0020|0032', 'ImagePositionPatient', 3)
_ORIENTATION = ('0020|0037', 'ImageOrientationPatient', 6)
_PIXEL_SPACING = ('0028|0030', 'PixelSpacing', 2)

_MODALITY = '0008|0060'

# Tags of the type and the scale of the voxels. ITK converts all slices to the type that it
# derives from those of the first slice, and values outside its range wrap around.
_VOXEL_TYPE = {
  '0028|0100': 'BitsAllocated',
  '0028|0103': 'PixelRepresentation',
  '0028|1052': 'RescaleIntercept',
  '0028|1053': 'RescaleSlope',
}

# The distances between the slices may differ by this part of their median, and a slice
# may be this part of the distance away from its place in an even series. A missing slice
# doubles one of the distances.
_SPACING_TOLERANCE = 0.25

# Slices may be shifted by this much within their plane. A tilted gantry shifts each slice
# further than the one before.
_SHIFT_TOLERANCE_MM = 0.1

# The orientation and the spacing of pixels of two slices are equal up to rounding.
_ROUNDING = 1e-4

# Damage in compressed pixels cannot be detected. Keys: the uncompressed transfer syntaxes.
_TRANSFER_SYNTAXES = {
  '1.2.840.10008.1.2': 'implicit little endian',
  '1.2.840.10008.1.2.1': 'explicit little endian',
  '1.2.840.10008.1.2.2': 'explicit big endian',
}

_PREAMBLE_BYTES = 128
_META_BYTES = 2**14  # more than the elements before the data set have


def open_series(folder: pathlib.Path) -> Any:
  """Returns an `ImageSeriesReader` of the one series in a folder.

  Args:
    folder: holds the slices; other files, which are not DICOM, may be in it.

  Raises:
    ScanError: there is not exactly one series, or a file of it cannot be read.
  """
  import SimpleITK as sitk

  files = _files_in(folder)
  with_header = [
    path for path in files if path.name != 'DICOMDIR' and _read_start(path)[1]
  ]
  for path in with_header:
    # ITK can take minutes to open damaged files with compressed pixels.
    _check_transfer_syntax(path)
    dicom_elements.check_lengths(path)
  # `check_slices` replaces the warnings that ITK writes to stderr.
  sitk.ProcessObject.SetGlobalWarningDisplay(False)
  names = [str(folder / name) for name in _names_of_series(folder, with_header)]
  _check_none_is_missing(files, {pathlib.PurePath(name).name for name in names})
  reader = sitk.ImageSeriesReader()
  reader.SetFileNames(names)
  return reader


def _names_of_series(
  folder: pathlib.Path, with_header: Sequence[pathlib.Path]
) -> list[str]:
  """Returns the names of the files of the one series, in the order of its slices.

  ITK searches a folder, and allocates gigabytes for some files that are not DICOM. So it
  gets a folder of links to those that are.

  Args:
    folder: the folder, for messages.
    with_header: the files that have a DICOM header.

  Raises:
    ScanError: there is not exactly one series.
  """
  import SimpleITK as sitk

  with tempfile.TemporaryDirectory() as links:
    for path in with_header:
      os.symlink(path.absolute(), os.path.join(links, path.name))
    series = sitk.ImageSeriesReader.GetGDCMSeriesIDs(links)
    if len(series) != 1:
      raise ScanError(
        f'{folder}: the folder must hold one DICOM series; found {len(series)} (slices '
        'have DICM after 128 bytes)'
      )
    names = sitk.ImageSeriesReader.GetGDCMSeriesFileNames(links, series[0])
  return [pathlib.PurePath(name).name for name in names]


def check_slices(folder: pathlib.Path, reader: Any) -> None:
  """Checks that the slices of a series are parallel, aligned and evenly spaced.

  Args:
    folder: the folder, for messages.
    reader: an `ImageSeriesReader` that has read the series with its metadata.

  Raises:
    ScanError: they are not, or a slice does not state its position.
  """
  num_slices = len(reader.GetFileNames())
  if num_slices < 2:
    raise ScanError(
      f'{folder}: the series has one file; expected a file for each of several slices'
    )
  _check_modality(folder, reader)
  positions_mm = _numbers(folder, reader, *_POSITION)
  orientations = _numbers(folder, reader, *_ORIENTATION)
  for name, values in (
    ('orientations', orientations),
    ('pixel spacings', _numbers(folder, reader, *_PIXEL_SPACING)),
  ):
    if np.abs(values - values[0]).max() > _ROUNDING:
      raise ScanError(f'{folder}: the slices of the series have different {name}')
  _check_voxel_type(folder, reader)
  normal = np.cross(orientations[0, :3], orientations[0, 3:])
  offsets_mm = positions_mm - positions_mm[0]
  along_mm = offsets_mm @ normal
  _check_tilt(folder, offsets_mm, along_mm, normal)
  steps_mm = np.diff(along_mm)
  even_mm = np.linspace(0, along_mm[-1], num_slices)
  if (
    steps_mm.min() <= 0
    or np.ptp(steps_mm) > _SPACING_TOLERANCE * np.median(steps_mm)
    or np.abs(along_mm - even_mm).max() > _SPACING_TOLERANCE * steps_mm.mean()
  ):
    raise ScanError(
      f'{folder}: slices are missing or unevenly spaced: the distances between them are '
      f'{steps_mm.min():.4g} to {steps_mm.max():.4g} mm'
    )


def _check_modality(folder: pathlib.Path, reader: Any) -> None:
  """Raises ScanError if a slice is not of a CT scanner: only CT has Hounsfield units."""
  for i in range(len(reader.GetFileNames())):
    has_tag = reader.HasMetaDataKey(i, _MODALITY)
    modality = reader.GetMetaData(i, _MODALITY).strip() if has_tag else ''
    if modality != 'CT':
      raise ScanError(
        f'{folder}: the modality of the series is {shown_text(modality) or "not stated"}, '
        'not CT; its values are no Hounsfield units'
      )


def _check_voxel_type(folder: pathlib.Path, reader: Any) -> None:
  """Raises ScanError if slices differ in the type or the scale of their voxels."""
  for tag, name in _VOXEL_TYPE.items():
    values = {
      reader.GetMetaData(i, tag).strip() if reader.HasMetaDataKey(i, tag) else ''
      for i in range(len(reader.GetFileNames()))
    }
    if len(values) > 1:
      found = ', '.join(shown_text(value) for value in sorted(values)[:3])
      raise ScanError(
        f'{folder}: the slices of the series have different values of {name}: {found}; '
        'save them with one type and scale'
      )


def _check_tilt(
  folder: pathlib.Path, offsets_mm: np.ndarray, along_mm: np.ndarray, normal: np.ndarray
) -> None:
  """Raises ScanError if slices are shifted against each other within their planes.

  Args:
    folder: the folder, for messages.
    offsets_mm: [n, 3] position of each slice relative to the first one.
    along_mm: [n] its part along the normal.
    normal: [3] unit vector that is perpendicular to the slices.
  """
  shifts_mm = np.linalg.norm(offsets_mm - along_mm[:, None] * normal, axis=1)
  furthest = int(shifts_mm.argmax())
  if shifts_mm[furthest] > _SHIFT_TOLERANCE_MM:
    angle = math.degrees(math.atan2(shifts_mm[furthest], abs(along_mm[furthest])))
    raise ScanError(
      f'{folder}: the slices are shifted against each other by up to '
      f'{shifts_mm[furthest]:.3g} mm, as by a gantry tilted by {angle:.3g} degrees; '
      'resample the scan to an axis-aligned grid'
    )


def _files_in(folder: pathlib.Path) -> list[pathlib.Path]:
  """Returns the files of a folder; ITK must be able to open each of them."""
  files = []
  try:
    for path in sorted(folder.iterdir()):
      if path.is_dir():
        continue
      if not path.is_file():  # ITK would wait for a named pipe forever
        raise ScanError(f'{path}: not a file')
      os.fsencode(path).decode()
      files.append(path)
  except UnicodeDecodeError as error:
    raise ScanError(f'{folder}: holds a file name that is not valid UTF-8') from error
  except OSError as error:
    raise ScanError(f'{folder}: {error.strerror}') from error
  return files


def _check_none_is_missing(files: list[pathlib.Path], slices: set[str]) -> None:
  """Raises ScanError if a file looks like a slice, but ITK could not read it."""
  suffixes = {pathlib.PurePath(name).suffix.lower() for name in slices} - {''}
  for path in files:
    if path.name in slices or path.name == 'DICOMDIR' or path.name.startswith('.'):
      continue
    if path.suffix.lower() in suffixes or _read_start(path)[1]:
      raise ScanError(
        f'{path}: cannot be read as a slice of the series in its folder: it is damaged, '
        'truncated or no image; replace or remove it'
      )


def _read_start(path: pathlib.Path) -> tuple[bytes, bool]:
  """Returns the first elements of a file, and whether it is DICOM."""
  try:
    with path.open('rb') as file:
      start = file.read(_META_BYTES)
  except OSError as error:
    raise ScanError(f'{path}: {error.strerror}') from error
  magic_end = _PREAMBLE_BYTES + 4
  return start[magic_end:], start[_PREAMBLE_BYTES:magic_end] == b'DICM'


def _check_transfer_syntax(path: pathlib.Path) -> None:
  """Raises ScanError if the pixels of a slice are compressed."""
  syntax = _transfer_syntax(_read_start(path)[0])
  if syntax not in _TRANSFER_SYNTAXES:
    raise ScanError(
      f'{path}: its transfer syntax is {shown_text(syntax) or "not stated"}; only '
      'uncompressed pixels are supported; decompress the series, e.g. with gdcmconv --raw'
    )


def _transfer_syntax(elements: bytes) -> str:
  """Returns the TransferSyntaxUID (0002,0010), which is explicit little endian.

  Args:
    elements: the elements after 'DICM': tag, two letters for the type, length, value.
  """
  position = 0
  while position + 12 <= len(elements):
    group, element, kind, length = struct.unpack_from('<HH2sH', elements, position)
    position += 8
    if kind in (b'OB', b'OW', b'SQ', b'UN', b'UT'):
      (length,) = struct.unpack_from('<I', elements, position)
      position += 4
    if group != 2:
      break
    if element == 0x10:
      value = elements[position : position + length]
      return value.decode('ascii', 'replace').strip('\0 ')
    position += length
  return ''


def _numbers(
  folder: pathlib.Path, reader: Any, tag: str, name: str, count: int
) -> np.ndarray:
  """Returns a tag of all slices.

  Args:
    folder: the folder, for messages.
    reader: an `ImageSeriesReader` that has read the series with its metadata.
    tag: group and element.
    name: name of the tag.
    count: how many numbers it holds.

  Returns:
    [n, count] float64.
  """
  rows = []
  for i, path in enumerate(reader.GetFileNames()):
    text = reader.GetMetaData(i, tag) if reader.HasMetaDataKey(i, tag) else ''
    try:
      row = [float(number) for number in text.split('\\')]
    except ValueError:
      row = []
    if len(row) != count or not np.isfinite(row).all():
      raise ScanError(
        f'{path}: {name} must be {count} numbers, found "{shown_text(text.strip())}"; '
        'the position of the slice is unknown'
      )
    rows.append(row)
  return np.array(rows, np.float64)
