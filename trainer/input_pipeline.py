"""From stored records to batches: balanced, augmented, in bounded memory.

Training and evaluation each have one function here, `train_batches` and
`evaluation_batches`. What makes it fast: records travel as serialised strings in blocks,
only labels are parsed before the balance is struck, and images are decoded a batch at a
time, after the rejected records are gone.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

from absl import logging
import tensorflow as tf

from luna_tfds import records
from trainer import augment as augment_lib
from trainer.sources import Source

BALANCES = ('auto', 'rejection', 'streams', 'none')

# Records read, parsed for their label and judged together.
_BLOCK = 512
_PARALLEL_FILES = 8
# Where rejection would read more than so many records for one it keeps, separate
# streams are better.
_MAX_AMPLIFICATION = 20.0
# Of the memory budget: for records held back to shuffle them, or to cache them.
_SHUFFLE_SHARE = 0.5


@dataclasses.dataclass(frozen=True)
class InputConfig:
  """How training batches are made.

  Attributes:
    batch_size: records of a batch.
    balance: 'rejection' keeps each record with its class's probability; 'streams'
      draws the classes from streams of their own; 'none' leaves the classes as they
      are; 'auto' takes rejection unless it would read too much for what it keeps.
    positive_fraction: share of nodules in the balanced stream.
    augment: what is varied.
    seed: of the order, of the rejection, of the augmentation.
    memory_budget_mb: for records held in memory; shuffling and caching follow from it.
  """

  batch_size: int = 96
  balance: str = 'auto'
  positive_fraction: float = 0.5
  augment: augment_lib.AugmentConfig = augment_lib.RECIPES['none']
  seed: int = 0
  memory_budget_mb: int = 256

  def __post_init__(self):
    if self.batch_size < 1:
      raise ValueError(f'batch_size must be at least 1. Received: {self.batch_size}')
    if self.balance not in BALANCES:
      raise ValueError(
        f'balance must be one of {", ".join(BALANCES)}. Received: {self.balance!r}'
      )
    if not 0 < self.positive_fraction < 1:
      raise ValueError(
        'positive_fraction must lie between 0 and 1. Received: '
        f'{self.positive_fraction}'
      )
    if self.memory_budget_mb < 1:
      raise ValueError(
        f'memory_budget_mb must be at least 1. Received: {self.memory_budget_mb}'
      )


@dataclasses.dataclass(frozen=True)
class Balance:
  """How the classes of a source are balanced.

  Attributes:
    mode: 'rejection', 'streams' or 'none'.
    keep: probability with which a non-nodule and a nodule is kept.
    amplification: records that rejection reads for one it keeps.
    prior: share of nodules in the stream that results.
    kept_per_pass: records kept, on average, of one pass over the source.
  """

  mode: str
  keep: tuple[float, float]
  amplification: float
  prior: float
  kept_per_pass: float


def plan_balance(source: Source, config: InputConfig) -> Balance:
  """Works out how to balance a source; the class counts say it all, so no warm-up.

  Args:
    source: where the records are.
    config: the wanted share of nodules, and the mode.

  Raises:
    ValueError: a class that is wanted is not there.
  """
  negatives, positives = source.label_counts
  wanted = config.positive_fraction
  if config.balance == 'none':
    return Balance('none', (1.0, 1.0), 1.0, source.prior, source.num_records)
  if not negatives or not positives:
    raise ValueError(
      f'the split {source.split!r} holds {negatives} non-nodules and {positives} '
      'nodules; both are needed to balance them (--balance=none takes them as they are)'
    )
  # The class that is short is kept whole.
  ratio = wanted / (1 - wanted) * negatives / positives
  keep = (min(1.0, 1 / ratio), min(1.0, ratio))
  kept = keep[0] * negatives + keep[1] * positives
  amplification = source.num_records / kept
  mode = config.balance
  if mode == 'auto':
    mode = 'streams' if amplification > _MAX_AMPLIFICATION else 'rejection'
    logging.info(
      'balance: %s; rejection would read %.1f records for one it keeps',
      mode,
      amplification,
    )
  return Balance(mode, keep, amplification, wanted, kept)


def default_steps_per_epoch(source: Source, config: InputConfig) -> int:
  """Batches of one pass over the source, balanced: what counts as an epoch."""
  return math.ceil(plan_balance(source, config).kept_per_pass / config.batch_size)


def train_batches(
  source: Source,
  config: InputConfig,
  steps_per_epoch: int | None = None,
  start_epoch: int = 0,
  start_step: int = 0,
) -> tf.data.Dataset:
  """Makes an endless stream of training batches.

  Every epoch has an order of its own: files, records, rejections and augmentation
  follow from (seed, epoch) alone. So a stream that starts at `start_epoch` goes on
  exactly as one that was there all the time; `start_step` is exact too, but the
  batches it leaves out are read, not augmented.

  Args:
    source: where the records are.
    config: how batches are made.
    steps_per_epoch: batches of an epoch; one balanced pass over the source if None.
    start_epoch: epochs left out.
    start_step: batches of that epoch left out.

  Returns:
    Dataset of (image, label): image [batch_size, *image_shape] HU, int16 or (if the
    augmentation interpolates) float32; label [batch_size] float32.
  """
  balance = plan_balance(source, config)
  steps = steps_per_epoch or default_steps_per_epoch(source, config)
  if balance.mode == 'streams':
    batches_of = _streams(source, config)
  elif source.num_bytes <= _budget_bytes(config):
    batches_of = _from_memory(source, config, balance)
  else:
    batches_of = _from_files(source, config, balance)

  def epoch_batches(epoch: tf.Tensor) -> tf.data.Dataset:
    skip = tf.where(epoch == start_epoch, tf.cast(start_step, tf.int64), 0)
    indexed = tf.data.Dataset.zip(
      tf.data.Dataset.range(steps), batches_of(epoch).take(steps)
    ).skip(skip)
    return indexed.map(lambda step, batch: (epoch, step, batch))

  def decode(
    epoch: tf.Tensor, step: tf.Tensor, serialized: tf.Tensor
  ) -> tuple[tf.Tensor, tf.Tensor]:
    serialized = tf.ensure_shape(serialized, [config.batch_size])
    parsed = records.parse_batch(serialized, source.image_shape, ['image', 'label'])
    seed = _seed(config.seed, 'augment', epoch * steps + step)
    image = augment_lib.augment(parsed['image'], config.augment, seed)
    return image, tf.cast(parsed['label'], tf.float32)

  dataset = tf.data.Dataset.range(start_epoch, tf.int64.max).flat_map(epoch_batches)
  # Decoding last: what was rejected is never decoded.
  dataset = dataset.map(decode, num_parallel_calls=tf.data.AUTOTUNE)
  return _with_options(dataset.prefetch(_prefetch(source, config)))


def evaluation_batches(
  source: Source, batch_size: int = 256, names: tuple[str, ...] | None = None
) -> tf.data.Dataset:
  """Makes batches of every record exactly once, in the order they are stored.

  Args:
    source: where the records are.
    batch_size: records of a batch; the last one may be smaller.
    names: features wanted; all by default.

  Returns:
    Dataset of dicts of the features, [n, ...] each.
  """

  def decode(serialized: tf.Tensor) -> dict[str, tf.Tensor]:
    return records.parse_batch(serialized, source.image_shape, names)

  dataset = _blocks(source, None, 1, batch_size).unbatch().batch(batch_size)
  dataset = dataset.map(decode, num_parallel_calls=tf.data.AUTOTUNE)
  return _with_options(dataset.prefetch(2))


def _from_memory(source: Source, config: InputConfig, balance: Balance) -> Any:
  """All records fit: they are read once, and each pass is a permutation of them."""
  blocks = list(_with_options(_blocks(source, None, 1, _BLOCK)))
  serialized = tf.concat(blocks, 0)
  labels = records.parse_batch(serialized, source.image_shape, ['label'])['label']
  keep = tf.gather(tf.constant(balance.keep), labels)

  def one_pass(number: tf.Tensor) -> tf.data.Dataset:
    seed = _seed(config.seed, 'order', number)
    draws = tf.random.stateless_uniform([source.num_records], seed)
    kept = tf.boolean_mask(tf.range(source.num_records), draws < keep)
    # Its own seed: the draws must not tell the order.
    order = tf.random.experimental.stateless_shuffle(kept, seed + [0, 1])
    return tf.data.Dataset.from_tensor_slices(order)

  def batches(epoch: tf.Tensor) -> tf.data.Dataset:
    indices = _passes(epoch).flat_map(one_pass)
    # Whole batches of indices, then one gather: strings are not handled one by one.
    indices = indices.batch(config.batch_size, drop_remainder=True)
    return indices.map(lambda index: tf.gather(serialized, index))

  return batches


def _from_files(source: Source, config: InputConfig, balance: Balance) -> Any:
  """Reads files in random order, rejects a block at a time, shuffles what is left."""
  record_bytes = records.record_bytes(source.image_shape)
  held = int(_budget_bytes(config) * _SHUFFLE_SHARE / record_bytes)
  held = max(min(held, math.ceil(balance.kept_per_pass)), config.batch_size)

  def one_pass(number: tf.Tensor) -> tf.data.Dataset:
    seed = _seed(config.seed, 'order', number)
    blocks = _blocks(source, seed, _PARALLEL_FILES, _block_size(source, config))
    if balance.mode == 'rejection':
      blocks = blocks.enumerate().map(
        lambda index, block: _reject(block, balance, seed + [0, 1 + index]),
        num_parallel_calls=tf.data.AUTOTUNE,
      )
    # Shuffled after the rejection: the buffer holds what will be used.
    return blocks.unbatch().shuffle(held, seed=seed[0], reshuffle_each_iteration=False)

  def batches(epoch: tf.Tensor) -> tf.data.Dataset:
    return (
      _passes(epoch).flat_map(one_pass).batch(config.batch_size, drop_remainder=True)
    )

  return batches


def _reject(block: tf.Tensor, balance: Balance, seed: tf.Tensor) -> tf.Tensor:
  """Keeps each record of a block [n] with the probability of its class."""
  labels = records.parse_batch(block, (), ['label'])['label']
  draws = tf.random.stateless_uniform(tf.shape(labels), seed)
  return tf.boolean_mask(block, draws < tf.gather(tf.constant(balance.keep), labels))


def _streams(source: Source, config: InputConfig) -> Any:
  """Draws each batch from a stream of nodules and a stream of all the others."""
  positives = round(config.batch_size * config.positive_fraction)
  positives = min(max(positives, 1), max(config.batch_size - 1, 1))
  nodules = _of_class(_blocks(source, None, 1, _BLOCK), 1)
  nodules = tf.concat(list(_with_options(nodules)), 0)
  count = source.label_counts[1]

  def nodule_pass(number: tf.Tensor) -> tf.data.Dataset:
    order = tf.random.experimental.stateless_shuffle(
      tf.range(count), _seed(config.seed, 'nodules', number)
    )
    return tf.data.Dataset.from_tensor_slices(order)

  def other_pass(number: tf.Tensor) -> tf.data.Dataset:
    seed = _seed(config.seed, 'order', number)
    blocks = _blocks(source, seed, _PARALLEL_FILES, _block_size(source, config), True)
    held = int(_budget_bytes(config) * _SHUFFLE_SHARE) // records.record_bytes(
      source.image_shape
    )
    held = max(min(held, 4096), config.batch_size)
    others = _of_class(blocks, 0).unbatch()
    return others.shuffle(held, seed=seed[0], reshuffle_each_iteration=False)

  def batches(epoch: tf.Tensor) -> tf.data.Dataset:
    picks = _passes(epoch).flat_map(nodule_pass).batch(positives, drop_remainder=True)
    some = picks.map(lambda index: tf.gather(nodules, index))
    if positives == config.batch_size:
      return some
    others = _passes(epoch).flat_map(other_pass)
    others = others.batch(config.batch_size - positives, drop_remainder=True)
    both = tf.data.Dataset.zip(some, others)
    return both.map(lambda nodule, other: tf.concat([nodule, other], 0))

  return batches


def _of_class(blocks: tf.data.Dataset, label: int) -> tf.data.Dataset:
  def keep(block: tf.Tensor) -> tf.Tensor:
    labels = records.parse_batch(block, (), ['label'])['label']
    return tf.boolean_mask(block, labels == label)

  return blocks.map(keep, num_parallel_calls=tf.data.AUTOTUNE)


def _blocks(
  source: Source,
  seed: tf.Tensor | None,
  parallel_files: int,
  block: int,
  rotate: bool = False,
) -> tf.data.Dataset:
  """Reads serialised records in blocks [n].

  Args:
    source: where the records are.
    seed: [2]; shuffles the files. In stored order if None.
    parallel_files: files read in turn.
    block: records of a block; those of one block come from one file.
    rotate: whether each file is entered at a random place and read round, so that a
      stream that is cut short does not always see the heads of the files.
  """
  paths = tf.constant([piece.path for piece in source.pieces])
  skips = tf.constant([piece.skip for piece in source.pieces], tf.int64)
  takes = tf.constant([piece.take for piece in source.pieces], tf.int64)
  order = tf.range(len(source.pieces))
  turns = tf.zeros([len(source.pieces)])
  if seed is not None:
    order = tf.random.experimental.stateless_shuffle(order, seed)
    if rotate:
      turns = tf.random.stateless_uniform([len(source.pieces)], seed)

  def read(index: tf.Tensor) -> tf.data.Dataset:
    skip, take = skips[index], takes[index]
    file = tf.data.TFRecordDataset(paths[index], buffer_size=2**20)
    file = file.skip(skip).take(take)
    if rotate:
      turn = tf.cast(turns[index] * tf.cast(take, tf.float32), tf.int64)
      file = file.skip(turn).concatenate(file.take(turn))
    return file.batch(block)

  files = tf.data.Dataset.from_tensor_slices(order)
  if parallel_files == 1:
    return files.flat_map(read)
  return files.interleave(
    read,
    cycle_length=min(parallel_files, len(source.pieces)),
    num_parallel_calls=tf.data.AUTOTUNE,
    deterministic=True,
  )


def _passes(epoch: tf.Tensor) -> tf.data.Dataset:
  """Numbers the passes of an epoch; no two of a run share a number."""
  return tf.data.Dataset.range(2**20).map(lambda k: epoch * 2**20 + k)


def _seed(seed: int, purpose: str, number: tf.Tensor) -> tf.Tensor:
  """A seed [2] for stateless ops: what for, and which epoch, pass or batch."""
  purposes = {'order': 1, 'nodules': 2, 'augment': 3}
  first = tf.constant(seed * 8 + purposes[purpose], tf.int64)
  # `number` is spread out, so that adding small offsets gives no other number's seed.
  return tf.stack([first, tf.cast(number, tf.int64) * 2**20])


def _budget_bytes(config: InputConfig) -> int:
  return config.memory_budget_mb * 2**20


def _block_size(source: Source, config: InputConfig) -> int:
  """Blocks on their way take at most a quarter of the budget."""
  share = _budget_bytes(config) // 4 // (2 * _PARALLEL_FILES)
  return max(min(share // records.record_bytes(source.image_shape), _BLOCK), 1)


def _prefetch(source: Source, config: InputConfig) -> int:
  """Batches decoded ahead: float32 images, at most an eighth of the budget."""
  batch_bytes = 2 * config.batch_size * records.record_bytes(source.image_shape)
  return max(min(_budget_bytes(config) // 8 // batch_bytes, 8), 1)


def _with_options(dataset: tf.data.Dataset) -> tf.data.Dataset:
  options = tf.data.Options()
  options.deterministic = True
  # Autotuning must not raise buffers beyond the budget.
  options.autotune.ram_budget = 2**28
  options.threading.max_intra_op_parallelism = 1
  return dataset.with_options(options)
