"""Equal results bit by bit, on any number of cores."""

from __future__ import annotations

from absl import logging
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
