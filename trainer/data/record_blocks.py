"""Reads the serialised records of a split in blocks."""

from __future__ import annotations

import dataclasses

import numpy as np
import tensorflow as tf

from trainer.data import memory_budget
from trainer.data import split_index
from trainer.data import store_records
from trainer.data.split_index import SplitIndex
from trainer.data.split_source import SplitSource

_READ_BUFFER_BYTES = 2**20


@dataclasses.dataclass(frozen=True, eq=False)
class Runs:
  """Runs of consecutive records, and which of these are drawn.

  Tensors or arrays of one entry for each of k runs, but for `is_drawn`.

  Attributes:
    slice_of: [k] int64, the slice of the split.
    offset: [k] int64, byte offset in the file of the first record of the run.
    first: [k] int64, entry of `is_drawn` for the first record of the run.
    stop: [k] int64, entry after that of its last record.
    is_drawn: [records of all runs] bool.
  """

  slice_of: np.ndarray
  offset: np.ndarray
  first: np.ndarray
  stop: np.ndarray
  is_drawn: np.ndarray


def find_runs(
  records: np.ndarray, chunk_of: np.ndarray, index: SplitIndex, source: SplitSource
) -> Runs:
  """Divides records that are to be read into runs.

  Args:
    records: [k] int, numbers of records; those of one chunk are ascending neighbours.
    chunk_of: [n] int32, the chunk of each record of the split.
    index: of the split.
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
  run_of = np.repeat(np.arange(len(starts)), ends - starts + 1)
  is_drawn[records - first_records[run_of] + first[run_of]] = True
  return Runs(slice_of, offset, first, stop, is_drawn)


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
    return store_records.read_run(item, int(offset), count)[int(extra) :]

  def block(row: tf.Tensor) -> tf.Tensor:
    serialized = tf.numpy_function(read, tf.unstack(row, 3), tf.string, stateful=False)
    return tf.ensure_shape(serialized, [None])

  parallel = memory_budget.PARALLEL_FILES
  table = np.array(rows, np.int64).reshape(-1, 3)
  return tf.data.Dataset.from_tensor_slices(table).map(
    block, num_parallel_calls=parallel
  )


def run_blocks(source: SplitSource, runs: Runs, block_records: int) -> tf.data.Dataset:
  """Reads runs of records in a given order, several side by side.

  Args:
    source: the split.
    runs: the runs.
    block_records: records of a block; those of one block come from one run.

  Returns:
    Dataset of [n] string.
  """
  paths = tf.constant([item.path for item in source.slices])

  def read_run(slice_: int, offset: int, count: int) -> np.ndarray:
    return store_records.read_run(source.slices[slice_], int(offset), int(count))

  def run_in_store(
    slice_: tf.Tensor, offset: tf.Tensor, count: tf.Tensor
  ) -> tf.data.Dataset:
    arguments = (slice_, offset, count)
    serialized = tf.numpy_function(read_run, arguments, tf.string, stateful=False)
    return tf.data.Dataset.from_tensor_slices(tf.ensure_shape(serialized, [None]))

  def read(
    slice_: tf.Tensor, offset: tf.Tensor, first: tf.Tensor, stop: tf.Tensor
  ) -> tf.data.Dataset:
    if source.is_in_store:
      file = run_in_store(slice_, offset, stop - first)
    else:
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
    blocks = file.take(stop - first).batch(block_records)
    return tf.data.Dataset.zip(
      blocks, tf.data.Dataset.range(first, stop, block_records)
    )

  def select(block: tf.Tensor, first: tf.Tensor) -> tf.Tensor:
    stop = first + tf.size(block, tf.int64)
    return tf.boolean_mask(block, runs.is_drawn[first:stop])

  files = tf.data.Dataset.from_tensor_slices(
    (runs.slice_of, runs.offset, runs.first, runs.stop)
  )
  cycle = memory_budget.PARALLEL_FILES
  blocks = files.interleave(read, cycle_length=cycle, num_parallel_calls=cycle)
  # Outside of the interleaving: a function in each run would cost more than reading it.
  return blocks.map(select, num_parallel_calls=cycle)


def with_options(dataset: tf.data.Dataset) -> tf.data.Dataset:
  """Sets the options of every dataset of this package."""
  options = tf.data.Options()
  options.deterministic = True
  # Parallelism and buffers are set where they are used; autotuning would raise them
  # beyond the memory budget.
  options.autotune.enabled = False
  options.threading.max_intra_op_parallelism = 1
  return dataset.with_options(options)
