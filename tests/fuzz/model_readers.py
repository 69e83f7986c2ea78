"""Readers of the networks of a training run."""

import functools

import input_files
import keras
import mutations
import numpy as np
from readers import Reader
from readers import mutate_one

from model.networks import layers
from trainer.scoring import inference
from trainer.training import checkpoints


@functools.cache
def _network():
  """A compiled network of few weights, which has taken one step."""
  image = keras.Input((4, 4, 1))
  hidden = keras.layers.Flatten()(layers.HUWindow(-1000, 400)(image))
  logit = keras.layers.Dense(1, name='logit')(hidden)
  name = inference.PROBABILITY_LAYER
  probability = keras.layers.Activation('sigmoid', dtype='float32', name=name)(logit)
  network = keras.Model(image, probability)
  network.compile(keras.optimizers.Adam(), 'binary_crossentropy')
  network.fit(np.zeros((2, 4, 4, 1)), np.zeros((2, 1)), verbose=0)
  return network


def _keras_seeds(folder):
  folder.mkdir()
  _network().save(folder / 'model.keras')
  return [input_files.read(folder)]


def _mutate_member(name, content, rng):
  if name.endswith('.json'):
    return mutations.mutate_json(content, rng)
  return mutations.mutate_bytes(content, rng)


def _mutate_keras(data, rng):
  return mutations.mutate_zip(data, rng, _mutate_member)


def _load_model(folder):
  model = inference.load_model(folder / 'model.keras')
  if model.image_shape == (4, 4, 1):
    model.probabilities(np.zeros((1, 4, 4, 1)))
  # Python frees the models; Keras would search all objects for garbage after each input.
  keras.backend.clear_session(free_memory=False)


def _restore_checkpoint(folder):
  checkpoints.restore(_network(), folder / 'model.keras')


_LOADERS = (
  'trainer.scoring.inference',
  'trainer.training.checkpoints',
  'trainer.training.network',
)
_ALL = (
  Reader(
    'keras', _keras_seeds, mutate_one(_keras=_mutate_keras), _load_model, _LOADERS
  ),
  Reader(
    'checkpoint',
    _keras_seeds,
    mutate_one(_keras=_mutate_keras),
    _restore_checkpoint,
    _LOADERS,
  ),
)
READERS = {reader.name: reader for reader in _ALL}
