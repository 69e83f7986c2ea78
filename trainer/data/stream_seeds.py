"""Seeds of the stateless random ops of the input pipeline.

Every random number is a function of (seed of the run, purpose, number of the pass or
batch), so a stream can start anywhere, and TensorFlow's global seed has no influence.
"""

from __future__ import annotations

import tensorflow as tf

# Their order decides the numbers: append only.
_PURPOSES = ('order', 'offset', 'reject', 'shuffle', 'nodules', 'mix', 'augment')

# Epochs, and passes or batches of an epoch, that are numbered without a clash.
MAX_NUMBER = 2**20


def op_seed(seed: int, purpose: str, number: tf.Tensor) -> tf.Tensor:
  """Returns the seed of a stateless op.

  Args:
    seed: of the run.
    purpose: what the random numbers are for.
    number: int64 scalar, of the pass or batch, from `number_passes`.

  Returns:
    [2] int64.
  """
  first = tf.constant(seed * len(_PURPOSES) + _PURPOSES.index(purpose), tf.int64)
  # `number` is spread out: adding the number of a block gives no other pass's seed.
  return tf.stack([first, tf.cast(number, tf.int64) * 2**22])


def number_passes(epoch: tf.Tensor) -> tf.data.Dataset:
  """Returns the numbers of an epoch's passes or batches; no two of a run are equal.

  Args:
    epoch: int64 scalar.
  """
  return tf.data.Dataset.range(MAX_NUMBER).map(lambda k: epoch * MAX_NUMBER + k)
