"""The network of the article "Convolutional Neural Networks for Medical Imaging"."""

from __future__ import annotations

import keras

from model.layers import HUWindow

# tflearn's 'L2' is 0.001 * sum(w ** 2) / 2.
_L2 = 0.0005


def article_cnn(image_shape: tuple[int, ...]) -> keras.Model:
  """Builds the article's CNN.

  conv 32 5x5, pool, conv 64 5x5, conv 64 3x3, pool, dense 512, dropout 0.5. On cubes
  the convolutions and pools are three-dimensional.

  Args:
    image_shape: [height, width, channels] or [depth, height, width, 1].

  Returns:
    A model from HU `image` [batch, *image_shape] to `logit` [batch, 1] float32.
  """
  cube = len(image_shape) == 4
  conv = keras.layers.Conv3D if cube else keras.layers.Conv2D
  pool = keras.layers.MaxPooling3D if cube else keras.layers.MaxPooling2D

  def stage(filters: int, size: int, name: str) -> keras.layers.Layer:
    return conv(
      filters,
      size,
      padding='same',
      activation='relu',
      kernel_regularizer=keras.regularizers.L2(_L2),
      name=name,
    )

  image = keras.Input(image_shape, name='image')
  x = HUWindow(name='hu_window')(image)
  x = stage(32, 5, 'stage1_conv')(x)
  x = pool(2, name='stage1_pool')(x)
  x = stage(64, 5, 'stage2_conv')(x)
  x = stage(64, 3, 'stage3_conv')(x)
  x = pool(2, name='stage3_pool')(x)
  x = keras.layers.Flatten(name='head_flatten')(x)
  x = keras.layers.Dense(512, activation='relu', name='head_dense')(x)
  x = keras.layers.Dropout(0.5, name='head_dropout')(x)
  logit = keras.layers.Dense(1, dtype='float32', name='logit')(x)
  return keras.Model(image, logit, name='article_cnn')
