"""Reads the serialised records of a split in blocks."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import tensorflow as tf

from luna_tfds.processes import garbage_collection
from trainer.data import memory_budget
from trainer.data import split_index
from trainer.data import store_records
from trainer.data.split_index import SplitIndex
from trainer.data.split_source import SplitSource

_READ_BUFFER_BYTES = 2**20


class RecordRanges(NamedTuple):
  """Ranges of consecutive records of files, and which of these records are drawn.

  Arrays or tensors; the first four have one entry for each of k ranges.

  Attributes:
    slice_of: [k] int64, the slice of the split.
    offset: [k] int64, byte offset in the file of the first record of the range.
    first: [k] int64, entry of `is_drawn` for the first record of the range.
    stop: [k] int64, entry after that of its last record.
    is_drawn: [records of all ranges] bool.
  """

  slice_of: np.ndarray
  offset: np.ndarray
  first: np.ndarray
  stop: np.ndarray
  is_drawn: np.ndarray


RANGE_DTYPES = RecordRanges(
  slice_of=tf.int64, offset=tf.int64, first=tf.int64, stop=tf.int64, is_drawn=tf.bool
)


def find_ranges(
  records: np.ndarray, chunk_of: np.ndarray, index: SplitIndex, source: SplitSource
) -> RecordRanges:
  """Divides records that are to be read into ranges that are read at once.

  Args:
    records: [k] int, numbers of records; those of one chunk are ascending neighbours.
    chunk_of: [n] int32, the chunk of each record of the split.
    index: index of the split.
    source: the split, with the index of each shard.
  """
  # A chunk may come twice: at the start of a pass and at its end.
  is_first = (np.diff(chunk_of[records]) != 0) | (np.diff(records) < 0)
  starts = np.flatnonzero(np.concatenate([[True], is_first]))
  ends = np.append(starts[1:], len(records)) - 1
  slice_of = index.slice_of[records[starts]].astype(np.int64)
  offset, extra = np.empty(len(starts), np.int64), np.empty(len(starts), np.int64)
  for number in np.unique(slice_of):
    of_slice = slice_of == number
    offset[of_slice], extra[of_slice] = split_index.start_near(
      source.slices[number], index.number_in_file[records[starts[of_slice]]]
    )
  # Reading starts where the offset is known; the records from there on are not drawn.
  first_records = records[starts] - extra
  lengths = records[ends] - first_records + 1
  stop = np.cumsum(lengths)
  first = stop - lengths
  is_drawn = np.zeros(int(stop[-1]), bool)
  range_of = np.repeat(np.arange(len(starts)), ends - starts + 1)
  is_drawn[records - first_records[range_of] + first[range_of]] = True
  return RecordRanges(slice_of, offset, first, stop, is_drawn)


def stored_blocks(source: SplitSource, block_records: int) -> tf.data.Dataset:
  """Reads the records once, in stored order.

  Args:
    source: the split.
    block_records: records of a block; those of one block come from one file.

  Returns:
    Dataset of [n] string.
  """
  if source.is_in_store:
    return _stored_blocks_in_store(split_index.with_index(source), block_records)
  paths = [item.path for item in source.slices]
  skips = np.array([item.skip for item in source.slices], np.int64)
  takes = np.array([item.take for item in source.slices], np.int64)

  def read(path: tf.Tensor, skip: tf.Tensor, take: tf.Tensor) -> tf.data.Dataset:
    file = tf.data.TFRecordDataset(path, buffer_size=_READ_BUFFER_BYTES)
    return file.skip(skip).take(take).batch(block_records)

  return tf.data.Dataset.from_tensor_slices((paths, skips, takes)).flat_map(read)


def _stored_blocks_in_store(source: SplitSource, block_records: int) -> tf.data.Dataset:
  """As `stored_blocks`, for an indexed split in an object store."""
  rows = [
    (number, first, min(first + block_records, item.skip + item.take))
    for number, item in enumerate(source.slices)
    for first in range(item.skip, item.skip + item.take, block_records)
  ]

  def read(number: int, first: int, stop: int) -> np.ndarray:
    item = source.slices[number]
    offset, extra = split_index.start_near(item, np.asarray(first))
    count = int(extra) + int(stop) - int(first)
    return store_records.read_range(item, int(offset), count)[int(extra) :]

  def block(row: tf.Tensor) -> tf.Tensor:
    serialized = tf.numpy_function(read, tf.unstack(row, 3), tf.string, stateful=False)
    return tf.ensure_shape(serialized, [None])

  garbage_collection.collect_in_own_thread()
  parallel = memory_budget.PARALLEL_FILES
  table = np.array(rows, np.int64).reshape(-1, 3)
  return tf.data.Dataset.from_tensor_slices(table).map(
    block, num_parallel_calls=parallel
  )


def range_blocks(
  source: SplitSource, ranges: RecordRanges, block_records: int
) -> tf.data.Dataset:
  """Reads ranges of records in a given order, several side by side.

  Args:
    source: the split.
    ranges: the ranges.
    block_records: records of a block; those of one block come from one range.

  Returns:
    Dataset of [n] string, the drawn records of a block.
  """
  read = _read_range_in_store if source.is_in_store else _read_range_of_file

  def read_blocks(
    slice_: tf.Tensor, offset: tf.Tensor, first: tf.Tensor, stop: tf.Tensor
  ) -> tf.data.Dataset:
    """Returns the blocks of a range, each with its first entry of `is_drawn`."""
    blocks = read(source, slice_, offset, stop - first).batch(block_records)
    return tf.data.Dataset.zip(
      blocks, tf.data.Dataset.range(first, stop, block_records)
    )

  def select(block: tf.Tensor, first: tf.Tensor) -> tf.Tensor:
    stop = first + tf.size(block, tf.int64)
    return tf.boolean_mask(block, ranges.is_drawn[first:stop])

  cycle = memory_budget.PARALLEL_FILES
  blocks = tf.data.Dataset.from_tensor_slices(
    (ranges.slice_of, ranges.offset, ranges.first, ranges.stop)
  ).interleave(read_blocks, cycle_length=cycle, num_parallel_calls=cycle)
  # Outside of the interleaving: a function in each range would cost more than reading it.
  return blocks.map(select, num_parallel_calls=cycle)


def _read_range_of_file(
  source: SplitSource, slice_: tf.Tensor, offset: tf.Tensor, count: tf.Tensor
) -> tf.data.Dataset:
  """Reads consecutive records from a byte offset on; the arguments are int64 scalars."""
  paths = tf.constant([item.path for item in source.slices])
  # tf.data.TFRecordDataset cannot start in the middle of a file.
  file = tf.data.experimental.from_variant(
    tf.raw_ops.TFRecordDatasetV2(
      filenames=paths[slice_][tf.newaxis],
      compression_type='',
      buffer_size=_READ_BUFFER_BYTES,
      byte_offsets=offset[tf.newaxis],
    ),
    tf.TensorSpec([], tf.string),
  )
  return file.take(count)


def _read_range_in_store(
  source: SplitSource, slice_: tf.Tensor, offset: tf.Tensor, count: tf.Tensor
) -> tf.data.Dataset:
  """As `_read_range_of_file`, for a split in an object store."""

  def read(number: int, start: int, num_records: int) -> np.ndarray:
    item = source.slices[number]
    return store_records.read_range(item, int(start), int(num_records))

  garbage_collection.collect_in_own_thread()
  serialized = tf.numpy_function(
    read, (slice_, offset, count), tf.string, stateful=False
  )
  return tf.data.Dataset.from_tensor_slices(tf.ensure_shape(serialized, [None]))


def with_options(dataset: tf.data.Dataset) -> tf.data.Dataset:
  """Sets the options of every dataset of this package."""
  options = tf.data.Options()
  options.deterministic = True
  # Parallelism and buffers are set where they are used; autotuning would raise them
  # beyond the memory budget.
  options.autotune.enabled = False
  options.threading.max_intra_op_parallelism = 1
  return dataset.with_options(options)
