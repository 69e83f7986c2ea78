"""Random numbers of the input pipeline.

Every random number is a function of (seed of the run, purpose, number of the epoch, pass
or batch), so a stream can start anywhere, and TensorFlow's global seed has no influence.
"""

from __future__ import annotations

import hashlib

import numpy as np
import tensorflow as tf

# Epochs, and batches of an epoch, that are numbered without a clash.
MAX_NUMBER = 2**20


def random_integers(seed: int, purpose: str, number: int, count: int) -> np.ndarray:
  """Returns random integers, the same with every version of NumPy.

  They are those of the generator SplitMix64, started at a hash of the other arguments
  (Steele, Lea and Flood: Fast splittable pseudorandom number generators, OOPSLA 2014).

  Args:
    seed: seed of the training run.
    purpose: what the random numbers are for.
    number: number of the epoch or pass.
    count: how many.

  Returns:
    [count] uint64.
  """
  start = hashlib.blake2b(f'{seed} {purpose} {number}'.encode(), digest_size=8).digest()
  z = np.arange(1, count + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
  z += np.frombuffer(start, '<u8')
  z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
  z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
  return z ^ (z >> np.uint64(31))


def random_order(seed: int, purpose: str, number: int, count: int) -> np.ndarray:
  """Returns a random permutation of 0..count-1.

  Args:
    seed: seed of the training run.
    purpose: what the random numbers are for.
    number: number of the epoch or pass.
    count: how many numbers are permuted.

  Returns:
    [count] int64.
  """
  return np.argsort(random_integers(seed, purpose, number, count), kind='stable')


def op_seed(seed: int, number: tf.Tensor) -> tf.Tensor:
  """Returns the seed of a stateless op for a batch.

  Args:
    seed: seed of the training run.
    number: int64 scalar, number of the batch, from `number_batches`.

  Returns:
    [2] int64.
  """
  return tf.stack([tf.constant(seed, tf.int64), tf.cast(number, tf.int64)])


def number_batches(epoch: tf.Tensor) -> tf.data.Dataset:
  """Returns the numbers of an epoch's batches; no two of a run are equal.

  Args:
    epoch: int64 scalar.
  """
  return tf.data.Dataset.range(MAX_NUMBER).map(lambda k: epoch * MAX_NUMBER + k)
