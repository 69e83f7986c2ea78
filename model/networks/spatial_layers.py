"""Keras's layers for images, or those for volumes, by the shape of the input."""

from __future__ import annotations

from collections.abc import Callable
import dataclasses

import keras


@dataclasses.dataclass(frozen=True)
class SpatialLayers:
  """Layer classes of one number of spatial dimensions."""

  conv: Callable[..., keras.layers.Layer]
  max_pooling: Callable[..., keras.layers.Layer]
  global_average_pooling: Callable[..., keras.layers.Layer]
  cropping: Callable[..., keras.layers.Layer]


_2D = SpatialLayers(
  conv=keras.layers.Conv2D,
  max_pooling=keras.layers.MaxPooling2D,
  global_average_pooling=keras.layers.GlobalAveragePooling2D,
  cropping=keras.layers.Cropping2D,
)
_3D = SpatialLayers(
  conv=keras.layers.Conv3D,
  max_pooling=keras.layers.MaxPooling3D,
  global_average_pooling=keras.layers.GlobalAveragePooling3D,
  cropping=keras.layers.Cropping3D,
)


def spatial_layers(image_shape: tuple[int, ...]) -> SpatialLayers:
  """Returns the layers for images of a shape.

  Args:
    image_shape: [height, width, channels] for two-dimensional layers, or
      [depth, height, width, 1] for three-dimensional ones.

  Raises:
    ValueError: the shape has neither 3 nor 4 axes.
  """
  if len(image_shape) not in (3, 4):
    raise ValueError(
      'image_shape must be [height, width, channels] or [depth, height, width, 1]. '
      f'Received: {image_shape}'
    )
  return _3D if len(image_shape) == 4 else _2D
