"""One Keras model that computes the mean over trained models and over views.

Import this module before `keras.models.load_model` reads such a model.
"""

from __future__ import annotations

from collections.abc import Sequence
import pathlib
import shutil
from typing import Any
import uuid

import keras
import tensorflow as tf

from luna_tfds.files import atomic_files
from trainer.data import augment
from trainer.scoring import inference

KERAS_FILE = 'model.keras'


@keras.saving.register_keras_serializable(package='luna16_patches')
class DihedralViews(keras.layers.Layer):
  """Joins the views of `augment.dihedral_views` along the batch, one after the other.

  So each network is called once for all views.
  """

  def call(self, images: tf.Tensor) -> tf.Tensor:
    """Returns [views * batch, ...] of images [batch, ...]."""
    return tf.concat(augment.dihedral_views(images), axis=0)

  def compute_output_shape(
    self, input_shape: tuple[int | None, ...]
  ) -> tuple[int | None, ...]:
    """Returns the shape of the input, of any batch."""
    return (None, *input_shape[1:])


@keras.saving.register_keras_serializable(package='luna16_patches')
class MeanOverViews(keras.layers.Layer):
  """Means over views that were joined by `DihedralViews`.

  Attributes:
    views: how many there are.
  """

  def __init__(self, views: int, **kwargs: Any):
    super().__init__(**kwargs)
    self.views = views

  def call(self, values: tf.Tensor) -> tf.Tensor:
    """Returns [batch, k] of values [views * batch, k]."""
    return tf.reduce_mean(tf.reshape(values, (self.views, -1, values.shape[1])), axis=0)

  def compute_output_shape(
    self, input_shape: tuple[int | None, ...]
  ) -> tuple[int | None, ...]:
    """Returns the shape of one view, of any batch."""
    return (None, *input_shape[1:])

  def get_config(self) -> dict[str, Any]:
    """Returns the arguments of `__init__`."""
    return {**super().get_config(), 'views': self.views}


def build_ensemble(
  models: Sequence[inference.InferenceModel], *, tta: bool
) -> keras.Model:
  """Builds the model that `inference.mean_probabilities` computes, in float32.

  Args:
    models: one or more, of the same image shape.
    tta: whether to average over the eight flips and rotations by 90 degrees too.

  Returns:
    A model from HU [batch, *image_shape] to probability [batch, 1].
  """
  if len(models) == 1 and not tta:
    return models[0].keras_model
  image = keras.Input(models[0].image_shape, name='image')
  views = DihedralViews(dtype='float32', name='views')(image) if tta else image
  # Names of layers must differ, and networks of one kind have one name.
  probabilities = [
    keras.Model(
      model.keras_model.input, model.keras_model.output, name=f'member{number}'
    )(views)
    for number, model in enumerate(models)
  ]
  mean = probabilities[0]
  if len(models) > 1:
    mean = keras.layers.Average(dtype='float32', name='mean_over_runs')(probabilities)
  if tta:
    num_views = len(augment.dihedral_views(tf.zeros((1, *models[0].image_shape))))
    mean = MeanOverViews(num_views, dtype='float32', name='mean_over_views')(mean)
  return keras.Model(image, mean, name='ensemble')


def write_export(
  model: keras.Model, folder: pathlib.Path, files: dict[str, Any]
) -> None:
  """Writes a SavedModel, `KERAS_FILE` and JSON files; the folder is complete or not there.

  Args:
    model: the model that `build_ensemble` returned.
    folder: must not exist; its parent must.
    files: content of each JSON file, by name.
  """
  # A name of its own: an export that is killed leaves it, and nothing else is replaced.
  partial = folder.with_name(f'{folder.name}.writing-{uuid.uuid4().hex}')
  try:
    model.export(partial, verbose=False)
    model.save(partial / KERAS_FILE)
    for name, content in files.items():
      atomic_files.write_json(partial / name, content)
    for path in (*partial.rglob('*'), partial):
      if path.is_dir():
        atomic_files.flush_folder(path)
    atomic_files.rename(partial, folder)
  finally:
    shutil.rmtree(partial, ignore_errors=True)
