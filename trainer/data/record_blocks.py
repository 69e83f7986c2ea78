"""Reads the serialised records of a split in blocks."""

from __future__ import annotations

import tensorflow as tf

from trainer.data import memory_budget
from trainer.data import stream_seeds
from trainer.data.split_source import SplitSource

_READ_BUFFER_BYTES = 2**20


def stored_blocks(source: SplitSource, block_records: int) -> tf.data.Dataset:
  """Reads the records once, in stored order.

  Args:
    source: the split.
    block_records: records of a block; those of one block come from one file.

  Returns:
    Dataset of [n] string.
  """
  files = tf.data.Dataset.from_tensor_slices(tf.range(len(source.slices)))
  slices = _SliceTensors(source)
  return files.flat_map(lambda index: slices.read(index).batch(block_records))


def shuffled_blocks(
  source: SplitSource,
  block_records: int,
  seed: int,
  pass_number: tf.Tensor,
  *,
  random_offset: bool,
) -> tf.data.Dataset:
  """Reads the records of one pass: the files in random order, several side by side.

  Args:
    source: the split.
    block_records: records of a block; those of one block come from one file.
    seed: of the run.
    pass_number: int64 scalar.
    random_offset: whether reading a file starts at a random record and wraps around, so
      that a stream that is cut short does not always see the first records of files.

  Returns:
    Dataset of [n] string.
  """
  count = len(source.slices)
  slices = _SliceTensors(source)
  order = tf.random.experimental.stateless_shuffle(
    tf.range(count), stream_seeds.op_seed(seed, 'order', pass_number)
  )
  offsets = tf.random.stateless_uniform(
    [count], stream_seeds.op_seed(seed, 'offset', pass_number)
  )

  def read(index: tf.Tensor) -> tf.data.Dataset:
    file = slices.read(index)
    if random_offset:
      take = tf.cast(slices.takes[index], tf.float32)
      offset = tf.cast(offsets[index] * take, tf.int64)
      file = file.skip(offset).concatenate(file.take(offset))
    return file.batch(block_records)

  cycle = min(memory_budget.PARALLEL_FILES, count)
  files = tf.data.Dataset.from_tensor_slices(order)
  return files.interleave(read, cycle_length=cycle, num_parallel_calls=cycle)


def with_options(dataset: tf.data.Dataset) -> tf.data.Dataset:
  """Sets the options of every dataset of this package."""
  options = tf.data.Options()
  options.deterministic = True
  # Parallelism and buffers are set where they are used; autotuning would raise them
  # beyond the memory budget.
  options.autotune.enabled = False
  options.threading.max_intra_op_parallelism = 1
  return dataset.with_options(options)


class _SliceTensors:
  """The slices of a split as tensors, to be indexed in a tf.data graph."""

  def __init__(self, source: SplitSource):
    self._paths = tf.constant([item.path for item in source.slices])
    self._skips = tf.constant([item.skip for item in source.slices], tf.int64)
    self.takes = tf.constant([item.take for item in source.slices], tf.int64)

  def read(self, index: tf.Tensor) -> tf.data.Dataset:
    """Returns the serialised records of one slice."""
    file = tf.data.TFRecordDataset(self._paths[index], buffer_size=_READ_BUFFER_BYTES)
    return file.skip(self._skips[index]).take(self.takes[index])
