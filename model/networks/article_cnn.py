"""The network of the article "Convolutional Neural Networks for Medical Imaging"."""

from __future__ import annotations

import keras

from model.networks.layers import HUWindow
from model.networks.spatial_layers import spatial_layers

# tflearn's 'L2' is 0.001 * sum(w ** 2) / 2.
_L2 = 0.0005


def article_cnn(
  image_shape: tuple[int, ...], window_hu: tuple[float, float]
) -> keras.Model:
  """Builds the article's CNN.

  conv 32 5x5, pool, conv 64 5x5, conv 64 3x3, pool, dense 512, dropout 0.5. For cubes
  the convolutions and pools are three-dimensional.

  Args:
    image_shape: [height, width, channels] or [depth, height, width, 1].
    window_hu: (low, high) of the HU window that the network maps to 0..1.

  Returns:
    A model from HU `image` [batch, *image_shape] to `logit` [batch, 1] float32.

  Raises:
    ValueError: the shape has neither 3 nor 4 axes, or the window is empty.
  """
  spatial = spatial_layers(image_shape)

  def conv(filters: int, size: int, name: str) -> keras.layers.Layer:
    """Returns a convolution with ReLU and L2 regularisation."""
    return spatial.conv(
      filters,
      size,
      padding='same',
      activation='relu',
      kernel_regularizer=keras.regularizers.L2(_L2),
      name=name,
    )

  image = keras.Input(image_shape, name='image')
  x = HUWindow(*window_hu, name='hu_window')(image)
  x = conv(32, 5, 'stage1_conv')(x)
  x = spatial.max_pooling(2, name='stage1_pool')(x)
  x = conv(64, 5, 'stage2_conv')(x)
  x = conv(64, 3, 'stage3_conv')(x)
  x = spatial.max_pooling(2, name='stage3_pool')(x)
  x = keras.layers.Flatten(name='head_flatten')(x)
  x = keras.layers.Dense(512, activation='relu', name='head_dense')(x)
  x = keras.layers.Dropout(0.5, name='head_dropout')(x)
  logit = keras.layers.Dense(1, dtype='float32', name='logit')(x)
  return keras.Model(image, logit, name='article_cnn')
