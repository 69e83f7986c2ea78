"""Probabilities of images, from one trained model or the mean of several."""

from __future__ import annotations

from collections.abc import Sequence
import pathlib

import keras
import numpy as np
import scipy.special

from luna_tfds.errors import UsageError
from luna_tfds.files import local_files
from luna_tfds.files.store_requests import StoreError
from luna_tfds.text_format import error_text
from model.networks import layers  # noqa: F401, so that saved models find their layers
from trainer.data import augment

# Of the last layer of an inference model.
PROBABILITY_LAYER = 'probability'


class InferenceModel:
  """A trained model that takes raw HU, with its probabilities in float64.

  Attributes:
    keras_model: from HU to probability, in float32.
    image_shape: shape of one image.
  """

  def __init__(self, keras_model: keras.Model):
    """Finds the logits of the model.

    Args:
      keras_model: its last layer, a sigmoid, is called 'probability'.
    """
    self.keras_model = keras_model
    self.image_shape: tuple[int, ...] = tuple(keras_model.input_shape[1:])
    logit = keras_model.get_layer(PROBABILITY_LAYER).input
    self._logit_model = keras.Model(keras_model.input, logit)

  def probabilities(self, images: np.ndarray) -> np.ndarray:
    """Returns the probability [n] float64 of each image [n, *image_shape] in HU.

    The sigmoid is computed in float64: in float32, records with high probabilities would
    tie at 1.
    """
    logits = np.asarray(self._logit_model(images, training=False), np.float64)[:, 0]
    return sigmoid(logits)


def sigmoid(logits: np.ndarray) -> np.ndarray:
  """Returns the probability [n] float64 of each logit [n] float64."""
  return np.asarray(scipy.special.expit(logits))


def load_model(path: pathlib.Path) -> InferenceModel:
  """Loads the inference model of a run.

  Raises:
    UsageError: the file is damaged.
  """
  try:
    with local_files.local_file(path) as local:
      return InferenceModel(keras.models.load_model(local, compile=False))
  except StoreError:
    raise
  except Exception as error:  # of a damaged file Keras raises errors of many types
    raise UsageError(
      f'{path}: cannot be loaded as a model: {error_text(error)}; train it again'
    ) from error


def mean_probabilities(
  models: Sequence[InferenceModel], images: np.ndarray, *, tta: bool = False
) -> np.ndarray:
  """Returns the mean probability [n] float64 over models, and over views if asked for.

  Args:
    models: one or more.
    images: [n, *image_shape] HU.
    tta: whether to average over the eight flips and rotations by 90 degrees too.
  """
  views = augment.dihedral_views(images) if tta else [images]
  total = np.zeros(len(images))
  for model in models:
    for view in views:
      total += model.probabilities(view)
  return total / (len(models) * len(views))
