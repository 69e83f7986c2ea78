"""From stored records to batches: balanced, augmented, in bounded memory.

Training has one function here, `train_batches`, and evaluation one,
`evaluation_batches`. How the undecoded batches of training are made is in
`record_streams`.
"""

from __future__ import annotations

import math

import tensorflow as tf

from luna_tfds import records
from luna_tfds.processes import cores
from trainer import config as config_lib
from trainer.data import augment as augment_lib
from trainer.data import memory_budget
from trainer.data import record_blocks
from trainer.data import record_streams
from trainer.data import stream_seeds
from trainer.data.balance import Balance
from trainer.data.memory_budget import MemoryBudget
from trainer.data.split_source import SplitSource


def default_steps_per_epoch(balance: Balance, batch_size: int) -> int:
  """Returns the batches of one balanced pass over a split: what counts as an epoch."""
  return math.ceil(balance.kept_per_pass / batch_size)


def is_held_in_memory(source: SplitSource, config: config_lib.InputConfig) -> bool:
  """Whether training holds all records of a split in memory."""
  budget = MemoryBudget.for_source(source, config.memory_budget_mb)
  return budget.holds_split(source)


def train_batches(
  config: config_lib.InputConfig,
  balance: Balance,
  steps_per_epoch: int | None = None,
  start_epoch: int = 0,
  start_step: int = 0,
  undistorted_from_epoch: int = stream_seeds.MAX_NUMBER,
) -> tf.data.Dataset:
  """Makes an endless stream of training batches.

  An epoch continues with the records where the one before ended; see `sampling_order`
  for what is guaranteed. Its records, their order and their augmentation follow from
  (config, steps_per_epoch, epoch) and nothing else, not even TensorFlow's global seed. So
  a stream that starts at `start_epoch`, `start_step` continues with
  exactly the batches, bit by bit, of one that started at the beginning, in every mode.
  Batches left out by `start_step` are read, but neither decoded nor augmented; epochs
  left out cost nothing.

  Args:
    config: how batches are made.
    balance: how the classes of the split are balanced; `balance.plan_balance` made it
      with this config.
    steps_per_epoch: batches of an epoch; one balanced pass over the split if None.
    start_epoch: epochs left out.
    start_step: batches of that epoch left out.
    undistorted_from_epoch: from this epoch on, images are only flipped and rotated by 90
      degrees, as far as `config.augment` does that.

  Returns:
    Dataset of (image, label): image [batch_size, *image_shape] HU, int16 or (if the
    augmentation interpolates) float32; label [batch_size] float32.
  """
  source = balance.source
  steps = steps_per_epoch or default_steps_per_epoch(balance, config.batch_size)
  stream = _open_stream(config, balance, steps)

  def epoch_batches(epoch: tf.Tensor) -> tf.data.Dataset:
    """Returns the numbers of the batches of an epoch, and the undecoded batches."""
    skip = tf.where(epoch == start_epoch, tf.cast(start_step, tf.int64), 0)
    numbers = stream_seeds.number_batches(epoch).take(steps)
    undecoded = stream.undecoded_batches(epoch)
    # Skipped before they are decoded: skipping is cheap.
    return tf.data.Dataset.zip(numbers, undecoded).skip(skip)

  def finish(number: tf.Tensor, undecoded: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Decodes and augments a batch."""
    image, label = stream.decode(undecoded)
    image = tf.ensure_shape(image, [config.batch_size, *source.image_shape])
    seed = stream_seeds.op_seed(config.seed, number)
    image = tf.cond(
      number < undistorted_from_epoch * stream_seeds.MAX_NUMBER,
      lambda: augment_lib.augment(image, config.augment, seed),
      lambda: _flip_and_rotate(image, config.augment, seed),
    )
    return image, tf.ensure_shape(tf.cast(label, tf.float32), [config.batch_size])

  budget = MemoryBudget.for_source(source, config.memory_budget_mb)
  ahead = budget.batches_ahead(config.batch_size)
  epochs = tf.data.Dataset.range(start_epoch, stream_seeds.MAX_NUMBER)
  # Decoding comes last: what was rejected is never decoded. It is outside of the
  # flat_map, so that batches of two epochs are decoded side by side.
  dataset = epochs.flat_map(epoch_batches).map(
    finish, num_parallel_calls=min(ahead, cores.num_usable_cores() + 1)
  )
  return record_blocks.with_options(dataset.prefetch(ahead))


def _open_stream(
  config: config_lib.InputConfig, balance: Balance, steps: int
) -> record_streams.TrainStream:
  """Returns undecoded batches, made in the way that the size and the balance ask for."""
  if is_held_in_memory(balance.source, config):
    return record_streams.stream_from_memory(config, balance, steps)
  if balance.mode == 'streams':
    return record_streams.class_streams_from_files(config, balance, steps)
  return record_streams.single_stream_from_files(config, balance, steps)


def _flip_and_rotate(
  images: tf.Tensor, config: config_lib.AugmentConfig, seed: tf.Tensor
) -> tf.Tensor:
  """Flips and rotates by 90 degrees alone; the dtype is that of the whole augmentation."""
  dtype = augment_lib.output_dtype(config, images.dtype)
  return tf.cast(augment_lib.augment(images, config.undistorted, seed), dtype)


def evaluation_batches(
  source: SplitSource,
  batch_size: int | None = None,
  names: tuple[str, ...] | None = None,
) -> tf.data.Dataset:
  """Makes batches of every record exactly once, in the order they are stored.

  That is the order of the shards in the split string and, in a shard, that of the file
  (the extraction orders a shard by a hash of the key): the same in every run.

  Args:
    source: the split.
    batch_size: records of a batch, by default as many as the size of an image allows;
      the last batch may be smaller.
    names: the features to parse; all by default.

  Returns:
    Dataset of dicts of the features, [n, ...] each; n is static if all batches are
    full.
  """
  batch_size = batch_size or memory_budget.evaluation_batch_size(source.image_shape)
  full = source.num_records % batch_size == 0

  def decode(serialized: tf.Tensor) -> dict[str, tf.Tensor]:
    parsed = records.parse_batch(serialized, source.image_shape, names)
    size = batch_size if full else None
    return {k: tf.ensure_shape(v, [size, *v.shape[1:]]) for k, v in parsed.items()}

  block_records = min(batch_size, memory_budget.MAX_BLOCK_RECORDS)
  dataset = record_blocks.stored_blocks(source, block_records).prefetch(2)
  dataset = dataset.rebatch(batch_size).map(decode, num_parallel_calls=2)
  # Keras stops at a known length. At an unknown one it takes a step too many, which
  # fails for want of data, but by then has counted a batch of static size.
  num_batches = -(-source.num_records // batch_size)
  length = tf.data.experimental.assert_cardinality(num_batches)
  return record_blocks.with_options(dataset.prefetch(2).apply(length))
