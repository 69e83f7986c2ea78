"""From stored records to batches: balanced, augmented, in bounded memory.

Training and evaluation each have one function here, `train_batches` and
`evaluation_batches`. Training reads in one of three ways, each a function of its own:

- `_from_memory`: the split fits the budget; it is read once, and a pass over it is a
  permutation of indices.
- `_from_files`: files in random order, rejection, a shuffle buffer.
- `_from_streams`: nodules and others from streams of their own, where rejection would
  read a hundred records for one it keeps.

What makes it fast: records travel as serialised strings in blocks, a block's labels are
parsed alone and judged together, and images are decoded a batch at a time, after the
rejected records are gone. What makes it exact: every random number is a stateless
function of (seed, what for, epoch, pass or step).
"""

from __future__ import annotations

from collections.abc import Callable
import math
import os
import sys

import numpy as np
import tensorflow as tf

from luna_tfds import records
from trainer import augment as augment_lib
from trainer import balance as balance_lib
from trainer import sources
from trainer.sources import Source

# Part of this module's surface: what `train_batches` takes and tells.
InputConfig = balance_lib.InputConfig
Balance = balance_lib.Balance
plan_balance = balance_lib.plan_balance

# Records read, parsed for their label and judged together.
_BLOCK = 256
_PARALLEL_FILES = 4
# tf.data opens twice as many files ahead, and buffers two blocks of each.
_BLOCKS_IN_FLIGHT = 6 * _PARALLEL_FILES
# Shares of the memory budget; the rest is room for what is being copied.
_SHUFFLE_SHARE, _BLOCK_SHARE, _DECODED_SHARE = 0.25, 0.5, 0.125

# An epoch of tokens, whatever stands for a batch before it is decoded; and their decoder
# to (image, label).
_Regime = tuple[
  Callable[[tf.Tensor], tf.data.Dataset],
  Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor]],
]


def default_steps_per_epoch(source: Source, config: InputConfig) -> int:
  """Batches of one pass over the source, balanced: what counts as an epoch."""
  return math.ceil(plan_balance(source, config).kept_per_pass / config.batch_size)


def train_batches(
  source: Source,
  config: InputConfig,
  steps_per_epoch: int | None = None,
  start_epoch: int = 0,
  start_step: int = 0,
  *,
  announce: bool = True,
) -> tf.data.Dataset:
  """Makes an endless stream of training batches.

  Every epoch has an order of its own: files, records, rejections and augmentation
  follow from (config, steps_per_epoch, epoch) and nothing else, TensorFlow's global
  seed included. So a stream that starts at `start_epoch`, `start_step` goes on with
  exactly the batches, bit by bit, of one that was there all the time, in every regime.
  Batches left out by `start_step` are read, not decoded or augmented; epochs left out
  cost nothing.

  Args:
    source: where the records are.
    config: how batches are made.
    steps_per_epoch: batches of an epoch; one balanced pass over the source if None.
    start_epoch: epochs left out.
    start_step: batches of that epoch left out.
    announce: whether a line on stderr says how the classes are balanced.

  Returns:
    Dataset of (image, label): image [batch_size, *image_shape] HU, int16 or (if the
    augmentation interpolates) float32; label [batch_size] float32.
  """
  balance = plan_balance(source, config)
  steps = steps_per_epoch or default_steps_per_epoch(source, config)
  in_memory = balance.mode != 'streams' and source.num_bytes <= _budget_bytes(config)
  if announce:
    where = 'held in memory' if in_memory else 'streamed'
    print(f'{balance}; {where}', file=sys.stderr)
  make = _from_streams if balance.mode == 'streams' else _from_files
  tokens_of, decode = (_from_memory if in_memory else make)(
    source, config, balance, steps
  )

  def epoch_tokens(epoch: tf.Tensor) -> tf.data.Dataset:
    skip = tf.where(epoch == start_epoch, tf.cast(start_step, tf.int64), 0)
    numbers = _passes(epoch).take(steps)
    # Skipped before they are decoded: skipping is cheap.
    return tf.data.Dataset.zip(numbers, tokens_of(epoch).take(steps)).skip(skip)

  def finish(number: tf.Tensor, token: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    image, label = decode(token)
    image = tf.ensure_shape(image, [config.batch_size, *source.image_shape])
    image = augment_lib.augment(image, config.augment, _seed(config, 'augment', number))
    return image, tf.ensure_shape(tf.cast(label, tf.float32), [config.batch_size])

  ahead = _decoded_ahead(source, config)
  dataset = tf.data.Dataset.range(start_epoch, 2**20).flat_map(epoch_tokens)
  # Decoding last: what was rejected is never decoded. Outside of the flat_map, so that
  # batches of two epochs are decoded side by side.
  dataset = dataset.map(finish, num_parallel_calls=min(ahead, _cores() + 1))
  return _with_options(dataset.prefetch(ahead))


def evaluation_batches(
  source: Source, batch_size: int = 256, names: tuple[str, ...] | None = None
) -> tf.data.Dataset:
  """Makes batches of every record exactly once, in the order they are stored.

  That is the order of the split string's shards and, in a shard, that of the file
  (the extraction orders a shard by a hash of the key), the same in every run.

  Args:
    source: where the records are.
    batch_size: records of a batch; the last one may be smaller.
    names: features wanted; all by default.

  Returns:
    Dataset of dicts of the features, [n, ...] each; n is static if all batches are
    full.
  """
  full = source.num_records % batch_size == 0

  def decode(serialized: tf.Tensor) -> dict[str, tf.Tensor]:
    parsed = records.parse_batch(serialized, source.image_shape, names)
    size = batch_size if full else None
    return {k: tf.ensure_shape(v, [size, *v.shape[1:]]) for k, v in parsed.items()}

  dataset = _blocks(source, min(batch_size, _BLOCK)).prefetch(2)
  dataset = dataset.rebatch(batch_size).map(decode, num_parallel_calls=2)
  # Keras stops at a known length. At an unknown one it takes a step too many, which
  # fails for want of data, but by then has counted a batch of static size.
  length = tf.data.experimental.assert_cardinality(-(-source.num_records // batch_size))
  return _with_options(dataset.prefetch(2).apply(length))


def _from_memory(
  source: Source, config: InputConfig, balance: Balance, steps: int
) -> _Regime:
  """All records fit: they are read once, and each pass is a permutation of them."""
  del steps
  count = source.num_records
  images = np.empty((count, *source.image_shape), np.int16)
  labels, kinds = np.empty(count, np.int64), np.empty(count, np.int64)
  kinds_of = sources.kind_function(config.drop_excluded, config.hard_negatives)
  start = 0
  for block in _with_options(_blocks(source, _BLOCK)):
    stop = start + len(block)
    parsed = records.parse_batch(block, source.image_shape, ('image', 'label'))
    images[start:stop], labels[start:stop] = parsed['image'], parsed['label']
    kinds[start:stop] = kinds_of(block)
    start = stop
  held, held_labels = tf.convert_to_tensor(images), tf.convert_to_tensor(labels)
  keep = tf.gather(tf.constant(balance.keep), kinds)

  def one_pass(number: tf.Tensor) -> tf.data.Dataset:
    draws = tf.random.stateless_uniform([count], _seed(config, 'reject', number))
    kept = tf.boolean_mask(tf.range(count), draws < keep)
    order = tf.random.experimental.stateless_shuffle(
      kept, _seed(config, 'order', number)
    )
    return tf.data.Dataset.from_tensors(order)

  def tokens_of(epoch: tf.Tensor) -> tf.data.Dataset:
    orders = _passes(epoch).flat_map(one_pass)
    return orders.rebatch(config.batch_size, drop_remainder=True)

  def decode(token: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    return tf.gather(held, token), tf.gather(held_labels, token)

  return tokens_of, decode


def _from_files(
  source: Source, config: InputConfig, balance: Balance, steps: int
) -> _Regime:
  """Reads files in random order, rejects a block at a time, shuffles what is left."""
  rotate = steps * config.batch_size < 0.9 * balance.kept_per_pass
  stream = _stream(source, config, balance.keep, rotate, balance.kept_per_pass)

  def tokens_of(epoch: tf.Tensor) -> tf.data.Dataset:
    return stream(epoch).batch(config.batch_size, drop_remainder=True)

  return tokens_of, lambda token: _decode(token, source)


def _from_streams(
  source: Source, config: InputConfig, balance: Balance, steps: int
) -> _Regime:
  """Draws each batch from a stream of nodules and a stream of all the others."""
  sizes, prior = balance_lib.nodules_of_batches(config)
  # A hard non-nodule is kept whole, another one less often.
  weight = balance.keep[0] / balance.keep[2]
  easy, positives, hard, _ = sources.count_kinds(
    source, config.drop_excluded, config.hard_negatives
  )
  negatives = weight * easy + hard
  drawn = steps * config.batch_size
  if _fits(source, config, positives):
    nodules = _held_nodules(source, config, sizes)
  else:
    nodules = _nodules_of_files(
      source, config, sizes, drawn * prior < 0.9 * positives, positives
    )
  others = _stream(
    source,
    config,
    (weight, 0.0, 1.0, 0.0),
    rotate=drawn * (1 - prior) < 0.9 * negatives,
    # No larger than what a short epoch draws: filling the buffer takes reading.
    most_held=min(negatives, max(drawn * (1 - prior) / 4, 4096)),
    share=0.5,
  )

  def mix(number: tf.Tensor, some: tf.Tensor, rest: tf.Tensor) -> tf.Tensor:
    # Mixed, so that a batch cut in parts for several devices has both in each.
    seed = _seed(config, 'mix', number)
    order = tf.random.experimental.stateless_shuffle(tf.range(config.batch_size), seed)
    return tf.gather(tf.concat([some, rest], 0), order)

  def tokens_of(epoch: tf.Tensor) -> tf.data.Dataset:
    counts = [config.batch_size - size for size in sizes]
    rest = _cut(others(epoch).batch(sum(counts), drop_remainder=True), counts)
    return tf.data.Dataset.zip(_passes(epoch), nodules(epoch), rest).map(mix)

  return tokens_of, lambda token: _decode(token, source)


def _nodules_of_files(
  source: Source, config: InputConfig, sizes: list[int], rotate: bool, most_held: float
) -> Callable[[tf.Tensor], tf.data.Dataset]:
  """Serialised nodules of an epoch in batches of `sizes`, read as the others are."""
  stream = _stream(source, config, (0.0, 1.0, 0.0, 0.0), rotate, most_held, 0.5)
  return lambda epoch: _cut(stream(epoch).batch(sum(sizes), drop_remainder=True), sizes)


def _stream(
  source: Source,
  config: InputConfig,
  keep: tuple[float, float, float, float],
  rotate: bool,
  most_held: float,
  share: float = 1.0,
) -> Callable[[tf.Tensor], tf.data.Dataset]:
  """Serialised records of an epoch, pass after pass, rejected and shuffled.

  Args:
    source: where the records are.
    config: how batches are made.
    keep: with which probability each kind is kept.
    rotate: whether files are entered at a random place, for an epoch that is shorter
      than a pass.
    most_held: records beyond which a shuffle buffer is of no use.
    share: of the memory, where several streams divide it.
  """
  kinds_of = sources.kind_function(config.drop_excluded, config.hard_negatives)
  table = tf.constant(keep)
  held = _budget_bytes(config) * _SHUFFLE_SHARE * share
  held = min(held / records.record_bytes(source.image_shape), most_held)
  held = max(int(held), config.batch_size)
  block_size = _block_size(source, config, share)
  everything = min(keep) == 1.0

  def one_pass(number: tf.Tensor) -> tf.data.Dataset:
    # Of this function's graph alone: else the buffer's order would depend on the
    # program's global seed too.
    tf.random.set_seed(1)

    def reject(index: tf.Tensor, block: tf.Tensor) -> tf.Tensor:
      seed = _seed(config, 'reject', number) + [0, index]
      kept = tf.gather(table, kinds_of(block))
      draws = tf.random.stateless_uniform(tf.shape(kept), seed)
      return tf.boolean_mask(block, draws < kept)

    blocks = _blocks(source, block_size, config, number, rotate)
    if not everything:
      blocks = blocks.enumerate().map(reject, num_parallel_calls=_PARALLEL_FILES)
    # Shuffled after the rejection: the buffer holds what will be used.
    seed = tf.random.stateless_uniform(
      [], _seed(config, 'shuffle', number), None, None, tf.int64
    )
    return blocks.unbatch().shuffle(held, seed=seed, reshuffle_each_iteration=False)

  return lambda epoch: _passes(epoch).flat_map(one_pass)


def _held_nodules(
  source: Source, config: InputConfig, sizes: list[int]
) -> Callable[[tf.Tensor], tf.data.Dataset]:
  """Serialised nodules of an epoch in batches of `sizes`, from memory."""
  kinds_of = sources.kind_function(config.drop_excluded, config.hard_negatives)
  blocks = _blocks(source, _BLOCK).map(
    lambda block: tf.boolean_mask(block, kinds_of(block) == sources.NODULE),
    num_parallel_calls=min(_cores(), 2),
  )
  nodules = tf.concat(list(_with_options(blocks)), 0)

  def one_pass(number: tf.Tensor) -> tf.data.Dataset:
    order = tf.random.experimental.stateless_shuffle(
      tf.range(tf.shape(nodules)[0]), _seed(config, 'nodules', number)
    )
    return tf.data.Dataset.from_tensors(order)

  def batches(epoch: tf.Tensor) -> tf.data.Dataset:
    orders = _passes(epoch).flat_map(one_pass)
    picks = _cut(orders.rebatch(sum(sizes), drop_remainder=True), sizes)
    return picks.map(lambda index: tf.gather(nodules, index))

  return batches


def _cut(cycles: tf.data.Dataset, sizes: list[int]) -> tf.data.Dataset:
  """Cuts each element [sum(sizes)] into batches of the sizes given, which may be 0."""
  stops = tf.constant(np.cumsum(sizes), tf.int64)
  starts = stops - tf.constant(sizes, tf.int64)
  return cycles.flat_map(
    lambda cycle: tf.data.Dataset.range(len(sizes)).map(
      lambda k: cycle[starts[k] : stops[k]]
    )
  )


def _blocks(
  source: Source,
  block: int,
  config: InputConfig | None = None,
  number: tf.Tensor | None = None,
  rotate: bool = False,
) -> tf.data.Dataset:
  """Reads serialised records in blocks [n].

  Args:
    source: where the records are.
    block: records of a block; those of one block come from one file.
    config: how batches are made. If None, records come in stored order; else files are
      shuffled, and several are read in turn.
    number: of the pass.
    rotate: whether each file is entered at a random place and read round, so that a
      stream that is cut short does not always see the heads of the files.
  """
  count = len(source.pieces)
  paths = tf.constant([piece.path for piece in source.pieces])
  skips = tf.constant([piece.skip for piece in source.pieces], tf.int64)
  takes = tf.constant([piece.take for piece in source.pieces], tf.int64)
  order = tf.range(count)
  if config is not None:
    seed = _seed(config, 'order', number)
    order = tf.random.experimental.stateless_shuffle(order, seed)
    turns = tf.random.stateless_uniform([count], _seed(config, 'turn', number))

  def read(index: tf.Tensor) -> tf.data.Dataset:
    skip, take = skips[index], takes[index]
    file = tf.data.TFRecordDataset(paths[index], buffer_size=2**20)
    file = file.skip(skip).take(take)
    if rotate:
      turn = tf.cast(turns[index] * tf.cast(take, tf.float32), tf.int64)
      file = file.skip(turn).concatenate(file.take(turn))
    return file.batch(block)

  files = tf.data.Dataset.from_tensor_slices(order)
  if config is None:
    return files.flat_map(read)
  # Not as many as there are cores: the order must not depend on the machine.
  cycle = min(_PARALLEL_FILES, count)
  return files.interleave(read, cycle_length=cycle, num_parallel_calls=cycle)


def _decode(serialized: tf.Tensor, source: Source) -> tuple[tf.Tensor, tf.Tensor]:
  parsed = records.parse_batch(serialized, source.image_shape, ('image', 'label'))
  return parsed['image'], parsed['label']


def _passes(epoch: tf.Tensor) -> tf.data.Dataset:
  """Numbers the passes or batches of an epoch; no two of a run share a number."""
  return tf.data.Dataset.range(2**20).map(lambda k: epoch * 2**20 + k)


def _seed(config: InputConfig, purpose: str, number: tf.Tensor) -> tf.Tensor:
  """A seed [2] int64 for stateless ops: what for, and which pass or batch."""
  purposes = ('order', 'turn', 'reject', 'shuffle', 'nodules', 'mix', 'augment')
  first = tf.constant(config.seed * len(purposes) + purposes.index(purpose), tf.int64)
  # `number` is spread out: adding the number of a block gives no other pass's seed.
  return tf.stack([first, tf.cast(number, tf.int64) * 2**22])


def _budget_bytes(config: InputConfig) -> int:
  return config.memory_budget_mb * 2**20


def _fits(source: Source, config: InputConfig, nodules: int) -> bool:
  """Whether the nodules may be held: then they take the place of a shuffle buffer."""
  held = nodules * records.record_bytes(source.image_shape)
  return held <= _budget_bytes(config) * _SHUFFLE_SHARE


def _block_size(source: Source, config: InputConfig, share: float) -> int:
  bytes_of_block = _budget_bytes(config) * _BLOCK_SHARE * share / _BLOCKS_IN_FLIGHT
  record_bytes = records.record_bytes(source.image_shape)
  return max(min(int(bytes_of_block / record_bytes), _BLOCK), 8)


def _decoded_ahead(source: Source, config: InputConfig) -> int:
  """Batches decoded ahead, counted as float32."""
  batch_bytes = 2 * config.batch_size * records.record_bytes(source.image_shape)
  return max(min(int(_budget_bytes(config) * _DECODED_SHARE / batch_bytes), 8), 1)


def _cores() -> int:
  return len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else 4


def _with_options(dataset: tf.data.Dataset) -> tf.data.Dataset:
  options = tf.data.Options()
  options.deterministic = True
  # Parallelism and buffers are set above; autotuning would raise them beyond the budget.
  options.autotune.enabled = False
  options.threading.max_intra_op_parallelism = 1
  return dataset.with_options(options)
