"""Finds the files of an unpacked LUNA16 download."""

from __future__ import annotations

import dataclasses
import pathlib
import re

from luna_tfds.errors import UsageError

CANDIDATE_LISTS = {'V1': 'candidates.csv', 'V2': 'candidates_V2.csv'}
ANNOTATIONS = 'annotations.csv'
ANNOTATIONS_EXCLUDED = 'annotations_excluded.csv'


@dataclasses.dataclass(frozen=True)
class ScanFile:
  """A scan of the download.

  Attributes:
    seriesuid: the name of the file without its suffix.
    subset: 0..9, from the name of its folder.
    path: the `.mhd` file; it may be unreadable.
  """

  seriesuid: str
  subset: int
  path: pathlib.Path


def find_file(luna_dir: pathlib.Path, name: str) -> pathlib.Path | None:
  """Returns the path of the CSV `name` in `luna_dir`, plain or zipped, or None."""
  for choice in (name, f'{name}.zip', pathlib.PurePath(name).stem + '.zip'):
    if (luna_dir / choice).is_file():
      return luna_dir / choice
  return None


def require_file(luna_dir: pathlib.Path, name: str) -> pathlib.Path:
  """Returns the path of the CSV `name` in `luna_dir`, plain or zipped.

  Raises:
    UsageError: there is no such file.
  """
  path = find_file(luna_dir, name)
  if path is None:
    raise UsageError(
      f'{luna_dir}: {name} (or {name}.zip) is missing; --luna_dir must be the folder '
      "of LUNA16's download, which holds the CSV files and subset0..subset9"
    )
  return path


def find_scans(luna_dir: pathlib.Path) -> dict[str, ScanFile]:
  """Lists the scans of a download: `subset<k>/**/<seriesuid>.mhd`.

  Args:
    luna_dir: the unpacked download; it may be partial.

  Returns:
    The scans by seriesuid, sorted.

  Raises:
    UsageError: the folder does not exist, or holds no scan, or one scan twice.
  """
  if not luna_dir.is_dir():
    raise UsageError(
      f'{luna_dir}: no such folder; --luna_dir must be the unpacked LUNA16 download '
      '(luna16-phantom writes a synthetic one)'
    )
  scans: dict[str, ScanFile] = {}
  for folder in sorted(luna_dir.glob('subset*')):
    match = re.fullmatch(r'subset([0-9])', folder.name)
    if not match or not folder.is_dir():
      continue
    for path in sorted(folder.rglob('*.[mM][hH][dD]')):
      seriesuid = path.stem
      if seriesuid in scans:
        raise UsageError(
          f'the scan {seriesuid} is on disk twice: {scans[seriesuid].path} and {path}; '
          'remove one of them'
        )
      scans[seriesuid] = ScanFile(seriesuid, int(match[1]), path)
  if not scans:
    raise UsageError(
      f'{luna_dir}: contains no scan; expected subset0..subset9 with .mhd files, as '
      "in LUNA16's archives"
    )
  return dict(sorted(scans.items()))
