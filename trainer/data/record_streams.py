"""Streams of undecoded training batches, balanced and shuffled.

There are three ways to make them:

- `from_memory`: the split fits the memory budget. It is read once, and a pass over it
  is a permutation of indices.
- `from_files`: files in random order, rejection, a shuffle buffer.
- `from_streams`: nodules and non-nodules from streams of their own, where rejection
  would read more than 20 records for each one it keeps.

What makes them fast: records stay serialised and are processed in blocks, only the labels of a
block are parsed to reject records, and images are decoded a batch at a time, after the
rejection.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
import dataclasses

import numpy as np
import tensorflow as tf

from luna_tfds import cores
from luna_tfds import records
from trainer import config as config_lib
from trainer.data import memory_budget
from trainer.data import record_blocks
from trainer.data import sampling_classes
from trainer.data import stream_seeds
from trainer.data.balance import Balance
from trainer.data.memory_budget import MemoryBudget
from trainer.data.sampling_classes import KeepProbabilities
from trainer.data.split_source import SplitSource

# Epochs that draw less than this share of a class start reading at random records.
_SHORT_EPOCH = 0.9
# A shuffle buffer of a stream holds at most this share of what an epoch draws (filling
# it takes reading), but at least so many records.
_BUFFER_SHARE_OF_EPOCH, _MIN_BUFFER_RECORDS = 1 / 4, 4096

# From the number of an epoch, int64 scalar, to its elements.
_EpochFn = Callable[[tf.Tensor], tf.data.Dataset]


@dataclasses.dataclass(frozen=True)
class TrainStream:
  """Training batches before they are decoded.

  Attributes:
    undecoded_batches: from the number of an epoch, int64 scalar, to a dataset of its
      batches in a form that is cheap to skip: indices, or serialised records.
    decode: from such a batch to (image [batch_size, *image_shape] int16 HU, label
      [batch_size] int64).
  """

  undecoded_batches: _EpochFn
  decode: Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor]]


def from_memory(
  source: SplitSource, config: config_lib.InputConfig, balance: Balance
) -> TrainStream:
  """Holds all records: they are read once, and each pass is a permutation of them."""
  count = source.num_records
  images = np.empty((count, *source.image_shape), np.int16)
  labels, classes = np.empty(count, np.int64), np.empty(count, np.int64)
  class_fn = balance.classes.make_class_fn()
  start = 0
  blocks = record_blocks.stored_blocks(source, memory_budget.MAX_BLOCK_RECORDS)
  for block in record_blocks.with_options(blocks):
    stop = start + len(block)
    images[start:stop], labels[start:stop] = _decode(block, source)
    classes[start:stop] = class_fn(block)
    start = stop
  held, held_labels = tf.convert_to_tensor(images), tf.convert_to_tensor(labels)
  keep = tf.gather(tf.constant(balance.keep.by_class), classes)

  def one_pass(number: tf.Tensor) -> tf.data.Dataset:
    seed = stream_seeds.op_seed(config.seed, 'reject', number)
    draws = tf.random.stateless_uniform([count], seed)
    kept = tf.boolean_mask(tf.range(count), draws < keep)
    order = tf.random.experimental.stateless_shuffle(
      kept, stream_seeds.op_seed(config.seed, 'order', number)
    )
    return tf.data.Dataset.from_tensors(order)

  def undecoded_batches(epoch: tf.Tensor) -> tf.data.Dataset:
    orders = stream_seeds.number_passes(epoch).flat_map(one_pass)
    return orders.rebatch(config.batch_size, drop_remainder=True)

  def decode(indices: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    return tf.gather(held, indices), tf.gather(held_labels, indices)

  return TrainStream(undecoded_batches, decode)


def from_files(
  source: SplitSource, config: config_lib.InputConfig, balance: Balance, steps: int
) -> TrainStream:
  """Reads files in random order, rejects a block at a time, shuffles what is kept.

  Args:
    source: the split.
    config: how batches are made.
    balance: of the split, for this config.
    steps: batches of an epoch.
  """
  stream = _record_stream(
    source,
    config,
    balance,
    balance.keep,
    random_offset=steps * config.batch_size < _SHORT_EPOCH * balance.kept_per_pass,
    most_held=balance.kept_per_pass,
  )
  return TrainStream(
    lambda epoch: stream(epoch).batch(config.batch_size, drop_remainder=True),
    lambda serialized: _decode(serialized, source),
  )


def from_streams(
  source: SplitSource, config: config_lib.InputConfig, balance: Balance, steps: int
) -> TrainStream:
  """Draws each batch from a stream of nodules and a stream of all non-nodules.

  Args:
    source: the split.
    config: how batches are made.
    balance: of the split, for this config.
    steps: batches of an epoch.
  """
  nodules = _nodule_batches(source, config, balance, steps)
  non_nodules = _non_nodule_batches(source, config, balance, steps)

  def mix(number: tf.Tensor, some: tf.Tensor, rest: tf.Tensor) -> tf.Tensor:
    # Mixed, so that a batch divided among several devices has both classes on each.
    seed = stream_seeds.op_seed(config.seed, 'mix', number)
    order = tf.random.experimental.stateless_shuffle(tf.range(config.batch_size), seed)
    return tf.gather(tf.concat([some, rest], 0), order)

  def undecoded_batches(epoch: tf.Tensor) -> tf.data.Dataset:
    numbers = stream_seeds.number_passes(epoch)
    return tf.data.Dataset.zip(numbers, nodules(epoch), non_nodules(epoch)).map(mix)

  return TrainStream(undecoded_batches, lambda serialized: _decode(serialized, source))


def _nodule_batches(
  source: SplitSource, config: config_lib.InputConfig, balance: Balance, steps: int
) -> _EpochFn:
  """Serialised nodules of an epoch, in batches of `balance.nodules_per_batch`."""
  sizes, count = balance.nodules_per_batch, balance.counts.nodule
  budget = MemoryBudget.for_source(source, config.memory_budget_mb)
  if budget.holds_nodules(count):
    return _held_nodule_batches(source, config, balance)
  drawn = steps * config.batch_size * balance.prior
  stream = _record_stream(
    source,
    config,
    balance,
    KeepProbabilities(non_nodule=0.0, nodule=1.0, hard_negative=0.0),
    random_offset=drawn < _SHORT_EPOCH * count,
    most_held=count,
    share=0.5,
  )
  return lambda epoch: _split_cycles(
    stream(epoch).batch(sum(sizes), drop_remainder=True), sizes
  )


def _non_nodule_batches(
  source: SplitSource, config: config_lib.InputConfig, balance: Balance, steps: int
) -> _EpochFn:
  """Serialised non-nodules of an epoch, in batches that fill up those of nodules."""
  counts, keep = balance.counts, balance.keep
  # Hard non-nodules are kept whole, others less often.
  weight = keep.non_nodule / keep.hard_negative
  negatives = weight * counts.non_nodule + counts.hard_negative
  drawn = steps * config.batch_size * (1 - balance.prior)
  largest_buffer = max(drawn * _BUFFER_SHARE_OF_EPOCH, _MIN_BUFFER_RECORDS)
  stream = _record_stream(
    source,
    config,
    balance,
    KeepProbabilities(non_nodule=weight, nodule=0.0, hard_negative=1.0),
    random_offset=drawn < _SHORT_EPOCH * negatives,
    most_held=min(negatives, largest_buffer),
    share=0.5,
  )
  sizes = [config.batch_size - size for size in balance.nodules_per_batch]
  return lambda epoch: _split_cycles(
    stream(epoch).batch(sum(sizes), drop_remainder=True), sizes
  )


def _held_nodule_batches(
  source: SplitSource, config: config_lib.InputConfig, balance: Balance
) -> _EpochFn:
  """As `_nodule_batches`, from nodules that are read once and held serialised."""
  sizes = balance.nodules_per_batch
  class_fn = balance.classes.make_class_fn()
  blocks = record_blocks.stored_blocks(source, memory_budget.MAX_BLOCK_RECORDS).map(
    lambda block: tf.boolean_mask(block, class_fn(block) == sampling_classes.NODULE),
    num_parallel_calls=min(cores.num_usable_cores(), 2),
  )
  nodules = tf.concat(list(record_blocks.with_options(blocks)), 0)

  def one_pass(number: tf.Tensor) -> tf.data.Dataset:
    order = tf.random.experimental.stateless_shuffle(
      tf.range(tf.shape(nodules)[0]),
      stream_seeds.op_seed(config.seed, 'nodules', number),
    )
    return tf.data.Dataset.from_tensors(order)

  def batches(epoch: tf.Tensor) -> tf.data.Dataset:
    passes = stream_seeds.number_passes(epoch).flat_map(one_pass)
    cycles = passes.rebatch(sum(sizes), drop_remainder=True)
    return _split_cycles(cycles, sizes).map(lambda index: tf.gather(nodules, index))

  return batches


def _record_stream(
  source: SplitSource,
  config: config_lib.InputConfig,
  balance: Balance,
  keep: KeepProbabilities,
  *,
  random_offset: bool,
  most_held: float,
  share: float = 1.0,
) -> _EpochFn:
  """Serialised records of an epoch, pass after pass, rejected and shuffled.

  Args:
    source: the split.
    config: how batches are made.
    balance: of the split; says which class a record is of.
    keep: with which probability a record of each class is kept.
    random_offset: see `record_blocks.shuffled_blocks`; for an epoch that is shorter
      than a pass.
    most_held: records beyond which a shuffle buffer is of no use.
    share: of the memory, where several streams divide it.
  """
  class_fn = balance.classes.make_class_fn()
  table = tf.constant(keep.by_class)
  budget = MemoryBudget.for_source(source, config.memory_budget_mb)
  held = budget.shuffle_records(share, most_held, at_least=config.batch_size)
  block_records = budget.block_records(share)
  keeps_everything = min(keep.by_class) == 1.0

  def one_pass(number: tf.Tensor) -> tf.data.Dataset:
    # Sets the seed of this function's graph alone: else the order of the shuffle buffer
    # would depend on the program's global seed too.
    tf.random.set_seed(1)

    def reject(index: tf.Tensor, block: tf.Tensor) -> tf.Tensor:
      seed = stream_seeds.op_seed(config.seed, 'reject', number) + [0, index]
      kept = tf.gather(table, class_fn(block))
      draws = tf.random.stateless_uniform(tf.shape(kept), seed)
      return tf.boolean_mask(block, draws < kept)

    blocks = record_blocks.shuffled_blocks(
      source, block_records, config.seed, number, random_offset=random_offset
    )
    if not keeps_everything:
      blocks = blocks.enumerate().map(
        reject, num_parallel_calls=memory_budget.PARALLEL_FILES
      )
    # Shuffled after the rejection: the buffer holds what will be used.
    seed = tf.random.stateless_uniform(
      [],
      stream_seeds.op_seed(config.seed, 'shuffle', number),
      None,
      None,
      tf.int64,
    )
    return blocks.unbatch().shuffle(held, seed=seed, reshuffle_each_iteration=False)

  return lambda epoch: stream_seeds.number_passes(epoch).flat_map(one_pass)


def _split_cycles(cycles: tf.data.Dataset, sizes: Sequence[int]) -> tf.data.Dataset:
  """Splits each element [sum(sizes)] into batches of these sizes, which may be 0."""
  stops = tf.constant(np.cumsum(sizes), tf.int64)
  starts = stops - tf.constant(sizes, tf.int64)
  return cycles.flat_map(
    lambda cycle: tf.data.Dataset.range(len(sizes)).map(
      lambda k: cycle[starts[k] : stops[k]]
    )
  )


def _decode(serialized: tf.Tensor, source: SplitSource) -> tuple[tf.Tensor, tf.Tensor]:
  parsed = records.parse_batch(serialized, source.image_shape, ('image', 'label'))
  return parsed['image'], parsed['label']
