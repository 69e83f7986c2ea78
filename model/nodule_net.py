"""A network that beats the article's on its own patches."""

from __future__ import annotations

import keras

from model.layers import HUWindow


def nodule_net(
  image_shape: tuple[int, ...], widths: tuple[int, ...] = (32, 64, 96, 128)
) -> keras.Model:
  """Builds a plain convolutional net with batch normalisation.

  A 5x5 convolution at full resolution, then a stage of two 3x3 convolutions for each
  further width, each after a pool; global average pooling; dropout.

  Args:
    image_shape: [height, width, channels] or [depth, height, width, 1].
    widths: filters of each stage.

  Returns:
    A model from HU `image` [batch, *image_shape] to `logit` [batch, 1] float32.
  """
  cube = len(image_shape) == 4
  conv = keras.layers.Conv3D if cube else keras.layers.Conv2D
  max_pool = keras.layers.MaxPooling3D if cube else keras.layers.MaxPooling2D
  mean = (
    keras.layers.GlobalAveragePooling3D if cube else keras.layers.GlobalAveragePooling2D
  )

  def block(
    x: keras.KerasTensor, filters: int, size: int, name: str
  ) -> keras.KerasTensor:
    x = conv(filters, size, padding='same', use_bias=False, name=f'{name}_conv')(x)
    x = keras.layers.BatchNormalization(momentum=0.95, name=f'{name}_norm')(x)
    return keras.layers.Activation('relu', name=f'{name}_relu')(x)

  image = keras.Input(image_shape, name='image')
  x = HUWindow(name='hu_window')(image)
  x = block(x, widths[0], 5, 'stage1')
  for number, filters in enumerate(widths[1:], start=2):
    x = max_pool(2, name=f'stage{number}_pool')(x)
    x = block(x, filters, 3, f'stage{number}_a')
    x = block(x, filters, 3, f'stage{number}_b')
  x = mean(name='head_pool')(x)
  x = keras.layers.Dropout(0.2, name='head_dropout')(x)
  logit = keras.layers.Dense(1, dtype='float32', name='logit')(x)
  return keras.Model(image, logit, name='nodule_net')
