"""The networks by name."""

from __future__ import annotations

from collections.abc import Callable
import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
  import keras

# Names alone, so that listing them does not load Keras.
MODELS = ('article_cnn', 'nodule_net')


def build(name: str, image_shape: tuple[int, ...]) -> keras.Model:
  """Builds the network `name` for images of a shape.

  Raises:
    ValueError: there is no such network.
  """
  if name not in MODELS:
    raise ValueError(f'model must be one of {", ".join(MODELS)}. Received: {name!r}')
  make: Callable = getattr(importlib.import_module(f'model.{name}'), name)
  return make(tuple(image_shape))
