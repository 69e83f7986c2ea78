"""Splits of tiny records whose images tell which record they are."""

import dataclasses
import hashlib

import numpy as np

from luna_tfds import records
from luna_tfds import tfrecord
from trainer import config as config_lib
from trainer.data import balance as balance_lib
from trainer.data import input_pipeline
from trainer.data import split_source

SHAPE = (4, 4, 1)

# The ways in which training batches are made, as fields of `InputConfig`.
STREAM_FIELDS = {
  'memory': {'balance': 'rejection'},
  'files': {'balance': 'rejection', 'memory_budget_mb': 1},
  'streams': {'balance': 'streams'},
  'streams from files': {'balance': 'streams', 'memory_budget_mb': 1},
  'none': {'balance': 'none'},
  'none from files': {'balance': 'none', 'memory_budget_mb': 1},
}


@dataclasses.dataclass(frozen=True)
class FakeSplit:
  """A split, and the label of each of its records, [n]."""

  source: split_source.SplitSource
  labels: np.ndarray

  def larger_than_any_budget(self):
    """The same split, as if it took a gigabyte."""
    return FakeSplit(dataclasses.replace(self.source, num_bytes=2**30), self.labels)


def write_split(folder, negatives, positives, shards=4, shape=SHAPE, excluded=()):
  """Writes records in random order of classes; each pixel holds the record's number."""
  count = negatives + positives
  rng = np.random.default_rng(1)
  labels = rng.permutation(np.arange(count) < positives).astype(int)
  rows = [
    (np.full(shape, number, np.int16), int(labels[number]), number in excluded)
    for number in range(count)
  ]
  return FakeSplit(write_records(folder, rows, shards), labels)


def write_records(folder, rows, shards=4, split='train'):
  """Writes rows (image, label, excluded) to shards; returns the split.

  The row number is the candidate_id; a shard is a scan, 1.2.<shard>.
  """
  shape = rows[0][0].shape
  encoder = records.RecordEncoder(shape)
  slices = []
  for shard, numbers in enumerate(np.array_split(np.arange(len(rows)), shards)):
    path = folder / records.shard_name(split, shard, shards)
    serialized = [
      encoder.encode(
        records.Record(
          rows[n][0], rows[n][1], f'1.2.{shard}', int(n), excluded=rows[n][2]
        )
      )
      for n in numbers
    ]
    tfrecord.write_tfrecords(path, serialized)
    slices.append(split_source.ShardSlice(str(path), 0, len(numbers)))
  positives = sum(label for _, label, _ in rows)
  return split_source.SplitSource(
    split=split,
    slices=tuple(slices),
    image_shape=shape,
    label_counts=(len(rows) - positives, positives),
    num_bytes=len(rows) * records.record_bytes(shape),
    fingerprint='fake',
  )


def input_config(**fields):
  """An `InputConfig` with small batches."""
  return config_lib.InputConfig(**{'batch_size': 12, **fields})


def train_batches(source, config, **arguments):
  """Training batches, balanced as planned for this split and config."""
  balance = balance_lib.plan_balance(source, config)
  return input_pipeline.train_batches(config, balance, **arguments)


def draw(source, config, batches, **arguments):
  """Numbers and labels of the records of some batches, [batches, batch_size] each."""
  dataset = train_batches(source, config, **arguments).take(batches)
  pairs = [(x.numpy()[:, 0, 0, 0], y.numpy()) for x, y in dataset]
  return tuple(np.stack(parts) for parts in zip(*pairs))


def hash_batches(source, config, batches, **arguments):
  """A hash of the bytes of each of some batches."""
  dataset = train_batches(source, config, **arguments).take(batches)
  return [
    hashlib.sha256(x.numpy().tobytes() + y.numpy().tobytes()).hexdigest()
    for x, y in dataset
  ]


def read_columns(source, names):
  """The features of all records of a split, in stored order, [n, ...] each."""
  batches = list(input_pipeline.evaluation_batches(source, names=tuple(names)))
  return {name: np.concatenate([batch[name] for batch in batches]) for name in names}
