"""Training on several devices, by `tf.distribute`."""

from __future__ import annotations

import keras
import tensorflow as tf

from luna_tfds.errors import UsageError
from luna_tfds.text_format import count_text


def make_strategy(name: str) -> tf.distribute.Strategy:
  """Returns a strategy.

  Args:
    name: 'none'; 'mirrored' over all GPUs of this machine, or all its logical CPU
      devices if there is no GPU; 'multiworker' over several processes.

  Raises:
    UsageError: 'multiworker' is asked for: measured with Keras 3.15, `Model.fit` fails
      under `MultiWorkerMirroredStrategy` before its first step.
  """
  if name == 'none':
    return tf.distribute.get_strategy()
  if name == 'mirrored':
    if tf.config.list_logical_devices('GPU'):
      return tf.distribute.MirroredStrategy()
    devices = [device.name for device in tf.config.list_logical_devices('CPU')]
    return tf.distribute.MirroredStrategy(devices)
  raise UsageError(
    f'--strategy={name}: Keras {keras.__version__} cannot train over several processes '
    'on TensorFlow (its training step fails on values of several workers); use '
    '--strategy=mirrored on one machine, or train folds in parallel with '
    'luna16-crossval --parallel_folds'
  )


def shard_by_data(dataset: tf.data.Dataset) -> tf.data.Dataset:
  """Gives each device its part of every batch; the stream has no files to divide."""
  options = tf.data.Options()
  options.experimental_distribute.auto_shard_policy = (
    tf.data.experimental.AutoShardPolicy.DATA
  )
  return dataset.with_options(options)


def divisible_batch_size(num_records: int, replicas: int, at_most: int) -> int:
  """Returns a batch size that leaves no device without a record.

  Keras builds its step from the first batch, whose parts must be of equal size, and
  convolutions on CPUs fail on an empty part of the last one.

  Args:
    num_records: number of records of the whole pass.
    replicas: devices that share each batch.
    at_most: the largest batch; at least `replicas`.

  Raises:
    UsageError: there are too few records for the devices.
  """
  first = min(at_most, num_records) // replicas * replicas
  for size in range(first, 0, -replicas):
    rest = num_records % size
    if rest == 0 or rest >= replicas:
      return size
  raise UsageError(
    f'{count_text(num_records, "validation record")} cannot be divided among '
    f'{replicas} devices; give a larger --validation_split'
  )
