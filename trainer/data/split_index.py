"""The index of a split: the features by which training draws records, and their places."""

from __future__ import annotations

import dataclasses

import numpy as np
import tensorflow as tf

from luna_tfds import record_index
from luna_tfds import records
from luna_tfds.record_index import ShardIndex
from trainer.data import store_records
from trainer.data.split_source import ShardSlice
from trainer.data.split_source import SplitSource

_RECORDS_PER_READ = 256


@dataclasses.dataclass(frozen=True, eq=False)
class SplitIndex:
  """The records of a split, numbered from 0 in stored order.

  Attributes:
    is_nodule: [n] bool.
    is_excluded: [n] bool, the feature `excluded`.
    slice_of: [n] int32, the slice of the split that each record is in.
    number_in_file: [n] int32, its number in the file.
  """

  is_nodule: np.ndarray
  is_excluded: np.ndarray
  slice_of: np.ndarray
  number_in_file: np.ndarray

  @property
  def prevalence(self) -> float:
    """Fraction of nodules among the records without excluded findings, as metrics count."""
    counted = ~self.is_excluded
    return float(np.sum(self.is_nodule & counted) / max(np.sum(counted), 1))

  @classmethod
  def of_source(cls, source: SplitSource) -> SplitIndex:
    """Joins the indexes of the shards of an indexed split."""
    nodule: list[np.ndarray] = []
    excluded: list[np.ndarray] = []
    numbers = []
    for item in source.slices:
      index = _index_of(item)
      stop = item.skip + item.take
      for listed, flags in ((index.nodules, nodule), (index.excluded, excluded)):
        of_file = np.zeros(index.num_records, bool)
        of_file[list(listed)] = True
        flags.append(of_file[item.skip : stop])
      numbers.append(np.arange(item.skip, stop, dtype=np.int32))
    takes = [item.take for item in source.slices]
    return cls(
      is_nodule=np.concatenate(nodule),
      is_excluded=np.concatenate(excluded),
      slice_of=np.repeat(np.arange(len(takes), dtype=np.int32), takes),
      number_in_file=np.concatenate(numbers),
    )


def with_index(source: SplitSource) -> SplitSource:
  """Returns the split with the index of each of its shards.

  Datasets of release 1.0.0 do not store it: their records are read once.

  Args:
    source: the split.

  Raises:
    tf.errors.OpError: a record cannot be read.
  """
  if all(item.index for item in source.slices):
    return source
  slices = tuple(
    item if item.index else dataclasses.replace(item, index=_read_index(item))
    for item in source.slices
  )
  return dataclasses.replace(source, slices=slices)


def has_one_class(source: SplitSource) -> bool:
  """Whether a split holds nodules only or non-nodules only, without excluded findings.

  Args:
    source: the split, with an index.
  """
  index = SplitIndex.of_source(source)
  return len(np.unique(index.is_nodule[~index.is_excluded])) < 2


def _index_of(item: ShardSlice) -> ShardIndex:
  if item.index is None:
    raise ValueError(f'{item.path}: the split has no index; call with_index first')
  return item.index


def _read_index(item: ShardSlice) -> ShardIndex:
  """Reads a shard up to the end of the slice."""
  labels, excluded, num_bytes = [], [], []
  dataset = store_records.file_records(item.path).take(item.skip + item.take)
  for block in dataset.batch(_RECORDS_PER_READ):
    parsed = records.parse_batch(block, (), ('label', 'excluded'))
    labels.append(parsed['label'].numpy())
    excluded.append(parsed['excluded'].numpy())
    num_bytes.append(tf.strings.length(block).numpy())
  return ShardIndex.from_records(
    *(np.concatenate(values).tolist() for values in (labels, excluded, num_bytes))
  )


def start_near(item: ShardSlice, numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """Returns where to start reading to reach records of a shard.

  Args:
    item: a slice of the shard, with its index.
    numbers: [n] int, numbers of records in the file.

  Returns:
    Byte offsets [n] int64, and how many records lie between there and each record [n]
    int64.
  """
  entry, skip = np.divmod(numbers, record_index.RECORDS_PER_OFFSET)
  return np.asarray(_index_of(item).offsets, np.int64)[entry], skip.astype(np.int64)
