"""Training on several devices or machines, by `tf.distribute`."""

from __future__ import annotations

import keras
import tensorflow as tf

from luna_tfds.errors import UsageError


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
    '--strategy=mirrored on one machine, or run folds side by side with '
    'luna16-crossval --parallel_folds'
  )


def share(dataset: tf.data.Dataset) -> tf.data.Dataset:
  """Lets each device take its part of every batch; the stream has no files to share."""
  options = tf.data.Options()
  options.experimental_distribute.auto_shard_policy = (
    tf.data.experimental.AutoShardPolicy.DATA
  )
  return dataset.with_options(options)
