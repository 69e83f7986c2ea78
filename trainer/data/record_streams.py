"""Streams of undecoded training batches, balanced and shuffled.

Which records an epoch draws is decided by `sampling_order`; here they are read. There are
three ways:

- `stream_from_memory`: the split fits the memory budget. It is read once; batches are
  record numbers.
- `single_stream_from_files`: all classes in one stream, by rejection. Chunks of the files
  are read in random order, through a shuffle buffer.
- `class_streams_from_files`: a stream of nodules and one of non-nodules, of which each
  batch gets a fixed number. Nodules that fit into memory are read once.

What makes them fast: which records are drawn is known before they are read, reading
starts in the middle of a file, records are selected in blocks while they are serialised,
and images are decoded a batch at a time.
"""

from __future__ import annotations

from collections.abc import Callable
import dataclasses

import numpy as np
import tensorflow as tf

from luna_tfds import records
from luna_tfds.processes import garbage_collection
from trainer import config as config_lib
from trainer.data import memory_budget
from trainer.data import record_blocks
from trainer.data import sampling_classes
from trainer.data import sampling_order
from trainer.data.balance import Balance
from trainer.data.memory_budget import MemoryBudget
from trainer.data.record_blocks import RANGE_DTYPES
from trainer.data.record_blocks import RecordRanges
from trainer.data.sampling_order import PassRange
from trainer.data.sampling_order import SampledStream
from trainer.data.split_index import SplitIndex
from trainer.data.split_source import SplitSource

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


def stream_from_memory(
  config: config_lib.InputConfig, balance: Balance, steps: int
) -> TrainStream:
  """Holds all records of the split, which are read once.

  Args:
    config: how batches are made.
    balance: how the classes of the split are balanced; made with this config.
    steps: batches of an epoch.
  """
  source, size = balance.source, config.batch_size
  images, labels = _read_all(source)
  if balance.mode == 'streams':
    nodules, non_nodules = sampling_order.class_streams(
      balance, config.seed, size, steps
    )

    def epoch_records(epoch: int) -> np.ndarray:
      """Returns the record numbers of an epoch, [steps, size] int32."""
      is_nodule = sampling_order.nodules_in_batches(
        balance, config.seed, size, steps, epoch
      )
      drawn = np.empty(is_nodule.shape, np.int32)
      drawn[is_nodule] = nodules.records_of_epoch(epoch)
      drawn[~is_nodule] = non_nodules.records_of_epoch(epoch)
      return drawn
  else:
    stream = sampling_order.single_stream(balance, config.seed, size, steps)

    def epoch_records(epoch: int) -> np.ndarray:
      """Returns the record numbers of an epoch, [steps, size] int32."""
      return stream.records_of_epoch(epoch).reshape(steps, size)

  def undecoded_batches(epoch: tf.Tensor) -> tf.data.Dataset:
    """Returns the record numbers of each batch of an epoch."""
    drawn = _call_numpy(epoch_records, (epoch,), tf.int32, [steps, size])
    return tf.data.Dataset.from_tensor_slices(drawn)

  def decode(record_numbers: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    return tf.gather(images, record_numbers), tf.gather(labels, record_numbers)

  return TrainStream(undecoded_batches, decode)


def single_stream_from_files(
  config: config_lib.InputConfig, balance: Balance, steps: int
) -> TrainStream:
  """Reads the records of each epoch from the files, all classes in one stream.

  Args:
    config: how batches are made.
    balance: how the classes of the split are balanced; made with this config.
    steps: batches of an epoch.
  """
  stream = sampling_order.single_stream(balance, config.seed, config.batch_size, steps)
  files = _FileStream(config, balance, stream, steps * config.batch_size)
  return TrainStream(
    lambda epoch: files.records_of_epoch(epoch).batch(
      config.batch_size, drop_remainder=True
    ),
    lambda serialized: _decode(serialized, balance.source),
  )


def class_streams_from_files(
  config: config_lib.InputConfig, balance: Balance, steps: int
) -> TrainStream:
  """Reads nodules and non-nodules from the files, as streams of their own.

  Args:
    config: how batches are made.
    balance: how the classes of the split are balanced; made with this config.
    steps: batches of an epoch.
  """
  source, size = balance.source, config.batch_size
  nodules, non_nodules = sampling_order.class_streams(balance, config.seed, size, steps)
  budget = MemoryBudget.for_source(source, config.memory_budget_mb)
  epoch_nodules = float(steps * size * balance.nodule_fraction)
  nodules_of: _EpochFn
  if budget.holds_nodules(balance.counts.nodule):
    nodules_of = _held_stream(balance, nodules)
  else:
    nodules_of = _FileStream(
      config, balance, nodules, epoch_nodules, memory_fraction=0.5
    ).records_of_epoch
  non_nodules_of = _FileStream(
    config, balance, non_nodules, steps * size - epoch_nodules, memory_fraction=0.5
  ).records_of_epoch

  def classes_in_order(epoch: int) -> np.ndarray:
    """Returns the class of each record of an epoch, 1 for a nodule."""
    is_nodule = sampling_order.nodules_in_batches(
      balance, config.seed, size, steps, epoch
    )
    return is_nodule.ravel().astype(np.int64)

  def undecoded_batches(epoch: tf.Tensor) -> tf.data.Dataset:
    """Returns the batches of an epoch, of serialised records."""
    classes = _call_numpy(classes_in_order, (epoch,), tf.int64, [steps * size])
    mixed = tf.data.Dataset.choose_from_datasets(
      [non_nodules_of(epoch), nodules_of(epoch)],
      tf.data.Dataset.from_tensor_slices(classes),
      stop_on_empty_dataset=False,
    )
    return mixed.batch(size, drop_remainder=True)

  return TrainStream(undecoded_batches, lambda serialized: _decode(serialized, source))


class _FileStream:
  """Serialised records, read from the files in chunks and shuffled, pass after pass."""

  def __init__(
    self,
    config: config_lib.InputConfig,
    balance: Balance,
    stream: SampledStream,
    epoch_records: float,
    memory_fraction: float = 1.0,
  ):
    """Plans the reading.

    Args:
      config: how batches are made.
      balance: how the classes of the split are balanced.
      stream: which records are drawn.
      epoch_records: records of an epoch, on average.
      memory_fraction: part of the memory budget; several streams divide it.
    """
    self._source = balance.source
    self._index = SplitIndex.of_source(self._source)
    self._stream = stream
    self._seed = config.seed
    self._chunk_of = sampling_order.chunk_numbers(
      self._index, records.record_bytes(self._source.image_shape)
    )
    budget = MemoryBudget.for_source(self._source, config.memory_budget_mb)
    self._block_records = budget.block_records(memory_fraction)
    self._shuffle_records = budget.shuffle_records(
      memory_fraction,
      at_most=min(epoch_records, stream.sampler.drawn_per_pass),
      at_least=config.batch_size,
    )

  def records_of_epoch(self, epoch: tf.Tensor) -> tf.data.Dataset:
    """Returns the serialised records of an epoch.

    Args:
      epoch: its number, int64 scalar.
    """
    rows = _call_numpy(self._pass_ranges, (epoch,), tf.int64, [None, 3])
    return tf.data.Dataset.from_tensor_slices(rows).flat_map(self._read_pass_range)

  def _pass_ranges(self, epoch: int) -> np.ndarray:
    """Returns the `PassRange`s of an epoch, [passes, 3] int64."""
    return np.array(list(self._stream.pass_ranges(epoch)), np.int64).reshape(-1, 3)

  def _read_pass_range(self, row: tf.Tensor) -> tf.data.Dataset:
    """Reads what an epoch draws in one pass; `row` is a `PassRange`, [3] int64."""
    # Sets the seed of this function's graph alone: else the order of the shuffle buffer
    # would depend on the program's global seed too.
    tf.random.set_seed(1)
    pass_range = PassRange(*tf.unstack(row, 3))
    ranges = RecordRanges(
      *_call_numpy(self._record_ranges, pass_range, list(RANGE_DTYPES), [None])
    )
    blocks = record_blocks.range_blocks(self._source, ranges, self._block_records)
    return blocks.unbatch().shuffle(
      self._shuffle_records,
      seed=pass_range.pass_number * 2**20 + self._seed % 2**20,
      reshuffle_each_iteration=False,
    )

  def _record_ranges(self, pass_number: int, start: int, stop: int) -> RecordRanges:
    drawn = self._stream.sampler.records_of_pass_by_chunk(pass_number, self._chunk_of)
    return record_blocks.find_ranges(
      drawn[start:stop], self._chunk_of, self._index, self._source
    )


def _held_stream(balance: Balance, stream: SampledStream) -> _EpochFn:
  """Serialised nodules of an epoch, which are read once and held."""
  is_nodule = balance.record_classes == sampling_classes.NODULE
  held = _read_serialized(balance.source, is_nodule)
  # Position among the held records, by number of record.
  position = np.cumsum(is_nodule) - 1

  def positions(epoch: int) -> np.ndarray:
    return np.take(position, stream.records_of_epoch(epoch)).astype(np.int64)

  def epoch_dataset(epoch: tf.Tensor) -> tf.data.Dataset:
    drawn = _call_numpy(positions, (epoch,), tf.int64, [None])
    return tf.data.Dataset.from_tensor_slices(drawn).map(lambda i: held[i])

  return epoch_dataset


def _read_serialized(source: SplitSource, is_wanted: np.ndarray) -> tf.Tensor:
  """Reads some records of a split; `is_wanted` is [n] bool. Returns [k] string."""
  blocks = record_blocks.stored_blocks(source, memory_budget.MAX_BLOCK_RECORDS)
  start, wanted = 0, []
  for block in record_blocks.with_options(blocks):
    stop = start + len(block)
    wanted.append(tf.boolean_mask(block, is_wanted[start:stop]))
    start = stop
  return tf.concat(wanted, 0)


def _read_all(source: SplitSource) -> tuple[tf.Variable, tf.Variable]:
  """Reads all records: images [n, *image_shape] int16 HU, labels [n] int64.

  Variables are filled in place: a tensor would be copied when it is complete.
  """
  count = source.num_records
  # Made by functions, or else the first change copies the variable.
  images = tf.Variable(
    lambda: tf.zeros([count, *source.image_shape], tf.int16), trainable=False
  )
  labels = tf.Variable(lambda: tf.zeros([count], tf.int64), trainable=False)
  start = 0
  blocks = record_blocks.stored_blocks(source, memory_budget.MAX_BLOCK_RECORDS)
  for block in record_blocks.with_options(blocks):
    positions = tf.range(start, start + len(block))
    for variable, values in zip((images, labels), _decode(block, source)):
      variable.scatter_update(tf.IndexedSlices(values, positions))
    start += len(block)
  return images, labels


def _call_numpy(
  function: Callable[..., np.ndarray | tuple[np.ndarray, ...]],
  arguments: tuple[tf.Tensor, ...],
  dtypes: tf.DType | list[tf.DType],
  shape: list[int | None],
) -> tf.Tensor | list[tf.Tensor]:
  """Calls a function of integers in a tf.data graph.

  Args:
    function: returns arrays of these dtypes.
    arguments: integer scalars.
    dtypes: dtype of the result, or the dtypes of several results.
    shape: shape of each result.
  """
  garbage_collection.collect_in_own_thread()
  results = tf.numpy_function(
    lambda *numbers: function(*map(int, numbers)), arguments, dtypes
  )
  for result in results if isinstance(dtypes, list) else [results]:
    result.set_shape(shape)
  return results


def _decode(serialized: tf.Tensor, source: SplitSource) -> tuple[tf.Tensor, tf.Tensor]:
  parsed = records.parse_batch(serialized, source.image_shape, ('image', 'label'))
  return parsed['image'], parsed['label']
