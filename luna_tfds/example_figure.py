"""A picture of records, as `tfds.show_examples` draws it for datasets of 8-bit images."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import numpy as np

from luna_tfds import records
from luna_tfds.hounsfield import WINDOW_HU

if TYPE_CHECKING:
  from matplotlib.figure import Figure
  import tensorflow as tf

_INCHES_PER_IMAGE = 2.0


def show_examples(
  dataset: tf.data.Dataset,
  *,
  rows: int = 3,
  columns: int = 3,
  window_hu: tuple[float, float] = WINDOW_HU,
) -> Figure:
  """Draws the first records of a dataset; for notebooks.

  `tfds.show_examples` cannot: it shows only images of unsigned integers.

  Args:
    dataset: records of `luna16_patches`, as `tfds.load` returns them: not batched, not
      `as_supervised`.
    rows: rows of images.
    columns: images in a row.
    window_hu: the values drawn black and white, in HU. Of a volume or a stack, the middle
      slice is drawn.

  Returns:
    The figure; a notebook displays it.
  """
  from matplotlib import pyplot

  # Closed when it is drawn, so that a notebook does not display it twice.
  size = (columns * _INCHES_PER_IMAGE, rows * _INCHES_PER_IMAGE)
  figure, axes = pyplot.subplots(rows, columns, figsize=size, squeeze=False)
  pyplot.close(figure)
  shown: Any = itertools.islice(dataset.as_numpy_iterator(), rows * columns)
  for cell, record in itertools.zip_longest(axes.flat, shown):
    cell.set_axis_off()
    if record is None:  # the dataset is shorter
      continue
    low, high = window_hu
    cell.imshow(middle_slice(record['image']), cmap='gray', vmin=low, vmax=high)
    cell.set_title(records.LABELS[int(record['label'])], fontsize='small')
  return figure


def middle_slice(image: np.ndarray) -> np.ndarray:
  """Returns the middle slice [height, width] of an image in the record's layout."""
  if image.ndim == 4:
    return image[image.shape[0] // 2, :, :, 0]
  return image[:, :, image.shape[2] // 2]
