"""The article's published patches: JPEGs and the lists that label them."""

from __future__ import annotations

import dataclasses
import pathlib
import re

import numpy as np

from luna_tfds.errors import UsageError
from luna_tfds.hounsfield import AIR_HU
from luna_tfds.hounsfield import WINDOW_HU

LISTS = {
  'train': 'traindatalabels.txt',
  'validation': 'valdatalabels.txt',
  'test': 'testdatalabels.txt',
}
SIZE_PX = 50


@dataclasses.dataclass(frozen=True)
class ArticleImage:
  """One row of a list.

  Attributes:
    path: the JPEG.
    label: 1 for a nodule.
    candidate_id: row in LUNA16's V1 candidates.csv, from the file's name.
  """

  path: pathlib.Path
  label: int
  candidate_id: int


def read_lists(folder: pathlib.Path) -> dict[str, tuple[ArticleImage, ...]]:
  """Reads the lists `path label` of each split and checks every file they name.

  Args:
    folder: holds the lists and, relative to it, the images.

  Returns:
    The images by split; a split without a list is left out.

  Raises:
    UsageError: there is no list, or one is empty or names a file that is missing or
      larger than 50x50.
  """
  if not folder.is_dir():
    raise UsageError(f'{folder}: no such folder; give --luna_dir the article patches')
  splits = {
    split: _read_list(folder, folder / name)
    for split, name in LISTS.items()
    if (folder / name).exists()
  }
  if not splits:
    raise UsageError(
      f'{folder}: none of {", ".join(LISTS.values())} is in it; for the config '
      "'article' --luna_dir must be the folder of the article's patches"
    )
  return splits


def read_image(image: ArticleImage) -> tuple[np.ndarray, bool]:
  """Reads a patch and undoes the article's window.

  Args:
    image: a row of a list.

  Returns:
    (int16 HU [50, 50, 1], whether it was padded). The article sliced its patches with
    NumPy, which cuts them short at the far border only: padding goes to the right and
    the bottom.

  Raises:
    UsageError: the file is not a readable grey image.
  """
  from PIL import Image

  try:
    with Image.open(image.path) as file:
      grey = np.asarray(file.convert('L'), np.float32)
  except (OSError, SyntaxError) as error:
    raise UsageError(f'{image.path}: cannot be read as an image: {error}') from error
  low, high = WINDOW_HU
  hu = np.full((SIZE_PX, SIZE_PX, 1), AIR_HU, np.int16)
  height, width = grey.shape
  hu[:height, :width, 0] = np.rint(low + grey * ((high - low) / 255))
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
    if label not in ('0', '1') or not digits:
      raise UsageError(
        f'{path}, line {number}: expected "folder/image_<row>.jpg <0 or 1>", found '
        f'{line.strip()!r}'
      )
    if pathlib.PurePath(name).is_absolute() or '..' in pathlib.PurePath(name).parts:
      raise UsageError(
        f'{path}, line {number}: {name} leaves the folder of the list, which is refused'
      )
    file = folder / name
    if not file.is_file():
      raise UsageError(f'{file}: missing, but {path.name} line {number} lists it')
    try:
      with Image.open(file) as opened:  # reads the header alone
        width, height = opened.size
    except OSError as error:
      raise UsageError(f'{file}: cannot be read as an image: {error}') from error
    if width > SIZE_PX or height > SIZE_PX:
      raise UsageError(
        f'{file}: {width}x{height} pixels, larger than the {SIZE_PX}x{SIZE_PX} of '
        "the article's patches"
      )
    images.append(ArticleImage(file, int(label), int(digits[1])))
  if not images:
    raise UsageError(f'{path}: is empty; remove it to leave the split out')
  return tuple(images)
