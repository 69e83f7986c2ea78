"""Equal results bit by bit: on any number of cores, and after a resume."""

from __future__ import annotations

from collections.abc import Mapping

from absl import logging
import keras
import tensorflow as tf

# Ops divide sums among the threads of TensorFlow's pool, and the order of the additions
# follows from the number of threads, whatever number of cores executes them. Measured on
# TensorFlow 2.21: with one number of threads, one core and two give the same bits.
NUM_THREADS = 8


def fix_threads() -> None:
  """Sets the number of threads, unless TensorFlow has already started them."""
  try:
    tf.config.threading.set_intra_op_parallelism_threads(NUM_THREADS)
  except RuntimeError:  # `enable` tells
    logging.debug('TensorFlow has started its threads before')


def enable() -> None:
  """Makes TensorFlow choose ops whose result does not depend on timing."""
  tf.config.experimental.enable_op_determinism()
  if tf.config.threading.get_intra_op_parallelism_threads() != NUM_THREADS:
    logging.warning(
      'TensorFlow was used in this process before: results are equal bit by bit only on '
      'the same number of cores'
    )


class SeedDropout(keras.callbacks.Callback):
  """Makes the dropout of an epoch a function of its number.

  Keras does not save the state of a dropout layer's generator, so that a resumed run
  would otherwise drop other units than one that was never stopped.
  """

  def __init__(self, seed: int, start_step: int = 0):
    """Makes the callback.

    Args:
      seed: seed of the training run.
      start_step: steps of the first epoch that an earlier run did.
    """
    super().__init__()
    self._seed = seed
    self._start_step = start_step

  def on_epoch_begin(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
    """Sets every generator: its state is a key, and how often it was used."""
    layers = [layer for layer in self.model.layers if hasattr(layer, 'seed_generator')]
    for number, layer in enumerate(layers):
      key = (self._seed * 1009 + number) % 2**32
      used = (epoch * 2**18 + self._start_step) % 2**32
      layer.seed_generator.state.assign([key, used])
    self._start_step = 0
