"""The article's published patches: JPEG files, and lists with their labels."""

from __future__ import annotations

import dataclasses
import pathlib
import re

import numpy as np

from luna_tfds.errors import UsageError
from luna_tfds.files import atomic_files
from luna_tfds.files.store_requests import StoreError
from luna_tfds.hounsfield import AIR_HU
from luna_tfds.hounsfield import WINDOW_HU
from luna_tfds.text_format import shown_text

LISTS = {
  'train': 'traindatalabels.txt',
  'validation': 'valdatalabels.txt',
  'test': 'testdatalabels.txt',
}
SIZE_PX = 50


@dataclasses.dataclass(frozen=True)
class ArticleImage:
  """One patch of a list.

  Attributes:
    path: the JPEG file.
    label: 1 for a nodule.
    candidate_id: row in LUNA16's V1 candidates.csv, from the file's name.
  """

  path: pathlib.Path
  label: int
  candidate_id: int


def read_lists(folder: pathlib.Path) -> dict[str, tuple[ArticleImage, ...]]:
  """Reads the list of each split, lines of `path label`, and checks every file.

  Args:
    folder: contains the lists; paths in them are relative to it.

  Returns:
    The images by split; a split without a list is omitted.

  Raises:
    UsageError: there is no list, or a list is empty or names a file that is missing or
      larger than 50x50 pixels.
  """
  if not folder.is_dir():
    raise UsageError(
      f"{folder}: no such folder; --luna_dir must be the folder of the article's patches"
    )
  splits = {
    split: _read_list(folder, folder / name)
    for split, name in LISTS.items()
    if (folder / name).exists()
  }
  if not splits:
    raise UsageError(
      f'{folder}: contains none of {", ".join(LISTS.values())}; for the config '
      "'article' --luna_dir must be the folder of the article's patches"
    )
  return splits


def read_image(image: ArticleImage) -> tuple[np.ndarray, bool]:
  """Reads a patch and converts its grey levels back to HU.

  Args:
    image: the patch.

  Returns:
    (int16 HU [50, 50, 1], whether it was padded). Patches at the far border of a slice
    are smaller than 50x50; they are padded on the right and at the bottom.

  Raises:
    UsageError: the file cannot be read as an image.
  """
  from PIL import Image

  try:
    with image.path.open('rb') as opened, Image.open(opened) as file:
      grey_levels = np.asarray(file.convert('L'), np.float32)
  except StoreError:
    raise
  except (OSError, SyntaxError, Image.DecompressionBombError) as error:
    raise UsageError(f'{image.path}: cannot be read as an image: {error}') from error
  low, high = WINDOW_HU
  hu = np.full((SIZE_PX, SIZE_PX, 1), AIR_HU, np.int16)
  height, width = grey_levels.shape
  hu[:height, :width, 0] = np.rint(low + grey_levels * ((high - low) / 255))
  return hu, (height, width) != (SIZE_PX, SIZE_PX)


def _read_list(folder: pathlib.Path, path: pathlib.Path) -> tuple[ArticleImage, ...]:
  from PIL import Image

  images = []
  text = path.read_text(encoding='utf-8', errors='replace')
  for number, line in enumerate(text.splitlines(), start=1):
    if not line.strip():
      continue
    name, _, label = line.strip().rpartition(' ')
    digits = re.search(r'(\d+)\.\w+$', name)
    if (
      label not in ('0', '1')
      or not digits
      or len(name.encode()) > atomic_files.MAX_NAME_BYTES
    ):
      raise UsageError(
        f'{path}, line {number}: expected "folder/image_<row>.jpg <0 or 1>", found '
        f'"{shown_text(line.strip())}"'
      )
    if pathlib.PurePath(name).is_absolute() or '..' in pathlib.PurePath(name).parts:
      raise UsageError(
        f'{path}, line {number}: {shown_text(name)} is outside the folder of the '
        'list, which is refused'
      )
    file = folder / name
    if not file.is_file():
      raise UsageError(f'{file}: missing, but listed in {path.name}, line {number}')
    try:
      with file.open('rb') as opened, Image.open(opened) as image:
        width, height = image.size  # only the header is read
    except StoreError:
      raise
    except (OSError, Image.DecompressionBombError) as error:
      raise UsageError(f'{file}: cannot be read as an image: {error}') from error
    if width > SIZE_PX or height > SIZE_PX:
      raise UsageError(
        f'{file}: {width}x{height} pixels; patches of the article have at most '
        f'{SIZE_PX}x{SIZE_PX}'
      )
    images.append(ArticleImage(file, int(label), int(digits[1])))
  if not images:
    raise UsageError(f'{path}: is empty; remove it to omit the split')
  return tuple(images)
