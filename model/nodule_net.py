"""A network that beats the article's on its own patches."""

from __future__ import annotations

import keras

from model.layers import FusedBatchNormalization
from model.layers import HUWindow


def nodule_net(
  image_shape: tuple[int, ...],
  widths: tuple[int, ...] = (32, 32, 64, 128),
  dropout: float = 0.2,
) -> keras.Model:
  """Builds a plain convolutional net with batch normalisation.

  A 5x5 convolution at full resolution; then for each further width a pool and two 3x3
  convolutions; global average pooling, dropout, one logit. Sides are first cropped to
  a multiple of the pools (50 to 48), so that no pool drops a row. 0.3 M parameters.

  Args:
    image_shape: [height, width, channels] or [depth, height, width, 1]. On cubes the
      convolutions and pools are three-dimensional.
    widths: filters of each stage.
    dropout: share of features dropped before the logit.

  Returns:
    A model from HU `image` [batch, *image_shape] to `logit` [batch, 1] float32.

  Raises:
    ValueError: a side is too short for the pools.
  """
  cube = len(image_shape) == 4
  conv = keras.layers.Conv3D if cube else keras.layers.Conv2D
  pool = keras.layers.MaxPooling3D if cube else keras.layers.MaxPooling2D
  crop = keras.layers.Cropping3D if cube else keras.layers.Cropping2D
  mean = (
    keras.layers.GlobalAveragePooling3D if cube else keras.layers.GlobalAveragePooling2D
  )
  factor = 2 ** (len(widths) - 1)
  excess = [side % factor for side in image_shape[:-1]]
  if min(image_shape[:-1]) < factor:
    raise ValueError(f'nodule_net needs sides of {factor} or more: {image_shape}')

  def block(
    x: keras.KerasTensor, filters: int, size: int, name: str
  ) -> keras.KerasTensor:
    x = conv(
      filters,
      size,
      padding='same',
      use_bias=False,
      kernel_initializer='he_normal',
      name=f'{name}_conv',
    )(x)
    x = FusedBatchNormalization(name=f'{name}_norm')(x)
    return keras.layers.ReLU(name=f'{name}_relu')(x)

  image = keras.Input(image_shape, name='image')
  x = HUWindow(name='hu_window')(image)
  x = crop(tuple((n // 2, n - n // 2) for n in excess), name='crop')(x)
  x = block(x, widths[0], 5, 'stage1_a')
  for number, filters in enumerate(widths[1:], start=2):
    x = pool(2, name=f'stage{number}_pool')(x)
    x = block(x, filters, 3, f'stage{number}_a')
    x = block(x, filters, 3, f'stage{number}_b')
  x = mean(name='head_pool')(x)
  x = keras.layers.Dropout(dropout, name='head_dropout')(x)
  logit = keras.layers.Dense(1, dtype='float32', name='logit')(x)
  return keras.Model(image, logit, name='nodule_net')
