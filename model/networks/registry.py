"""Builds a network by its name; `model_names.MODELS` lists the names."""

from __future__ import annotations

from collections.abc import Callable

import keras

from model.networks.article_cnn import article_cnn
from model.networks.nodule_net import nodule_net

BUILDERS: dict[str, Callable[[tuple[int, ...], tuple[float, float]], keras.Model]] = {
  'article_cnn': article_cnn,
  'nodule_net': nodule_net,
}


def build(
  name: str, image_shape: tuple[int, ...], window_hu: tuple[float, float]
) -> keras.Model:
  """Builds a network.

  Args:
    name: name of the network, one of `model_names.MODELS`.
    image_shape: [height, width, channels] or [depth, height, width, 1].
    window_hu: (low, high) of the HU window that the network maps to 0..1.

  Returns:
    A model from HU `image` [batch, *image_shape] to `logit` [batch, 1] float32.

  Raises:
    ValueError: there is no network of this name, or the images are too small for it.
  """
  if name not in BUILDERS:
    raise ValueError(f'model must be one of {", ".join(BUILDERS)}. Received: {name!r}')
  return BUILDERS[name](tuple(image_shape), window_hu)
