"""The classes by which training samples records: finer than the labels."""

from __future__ import annotations

from collections.abc import Callable
import dataclasses
from typing import TypeAlias

import numpy as np
import tensorflow as tf

from luna_tfds import records
from luna_tfds.errors import UsageError
from trainer import config as config_lib
from trainer.data import hard_negatives
from trainer.data.split_source import SplitSource

NON_NODULE, NODULE, HARD_NEGATIVE, DROPPED = range(4)

_RECORDS_PER_READ = 256

# From serialised records [n] string to their classes [n] int64.
ClassFn: TypeAlias = Callable[[tf.Tensor], tf.Tensor]


@dataclasses.dataclass(frozen=True)
class ClassCounts:
  """How many records of a split each sampling class has."""

  non_nodule: int
  nodule: int
  hard_negative: int = 0
  dropped: int = 0

  @property
  def negatives(self) -> int:
    """Non-nodules that are sampled, hard ones included."""
    return self.non_nodule + self.hard_negative


@dataclasses.dataclass(frozen=True)
class KeepProbabilities:
  """With which probability a record of each sampling class is kept in one pass."""

  non_nodule: float
  nodule: float
  hard_negative: float
  dropped: float = 0.0

  @property
  def by_class(self) -> tuple[float, float, float, float]:
    """The probabilities, indexed by sampling class."""
    return self.non_nodule, self.nodule, self.hard_negative, self.dropped


@dataclasses.dataclass(frozen=True)
class SamplingClasses:
  """How records are sorted into sampling classes.

  Attributes:
    drop_excluded: whether records that hit an excluded finding are of class DROPPED.
    hard_negative_keys: keys of the records of class HARD_NEGATIVE.
    hard_negatives: the file they were read from; '' for none.
  """

  drop_excluded: bool = False
  hard_negative_keys: tuple[str, ...] = ()
  hard_negatives: str = ''

  @classmethod
  def from_config(cls, config: config_lib.InputConfig) -> SamplingClasses:
    """Reads the file of hard negatives, if there is one.

    Raises:
      UsageError: the file is wrong.
    """
    path = config.hard_negatives
    keys = hard_negatives.read_hard_negatives(path) if path else ()
    return cls(config.drop_excluded, keys, path)

  @property
  def are_labels(self) -> bool:
    """Whether the classes are the labels: nothing is dropped, nothing is hard."""
    return not self.drop_excluded and not self.hard_negative_keys

  def make_class_fn(self) -> ClassFn:
    """Returns a function from serialised records to sampling classes.

    Returns:
      A function from [n] string to [n] int64, for tf.data graphs and eager code.
    """
    names = ['label', *(['excluded'] if self.drop_excluded else [])]
    table = None
    if self.hard_negative_keys:
      names += ['seriesuid', 'candidate_id']
      keys = tf.constant(self.hard_negative_keys)
      values = tf.fill(tf.shape(keys), tf.constant(HARD_NEGATIVE, tf.int64))
      table = tf.lookup.StaticHashTable(
        tf.lookup.KeyValueTensorInitializer(keys, values), NON_NODULE
      )

    def class_of(serialized: tf.Tensor) -> tf.Tensor:
      parsed = records.parse_batch(serialized, (), names)
      classes = parsed['label']
      if table is not None:
        keys = records.batch_keys(parsed)
        classes = tf.where(classes == NODULE, classes, table.lookup(keys))
      if self.drop_excluded:
        dropped = tf.constant(DROPPED, tf.int64)
        classes = tf.where(parsed['excluded'], dropped, classes)
      return classes

    return class_of

  def count(self, source: SplitSource) -> ClassCounts:
    """Counts the records of each class.

    The labels are counted in the metadata. Which records are excluded or hard is found
    by reading the records of the split once.

    Args:
      source: the split.

    Raises:
      UsageError: none of the hard negatives is in the split.
    """
    if self.are_labels:
      return ClassCounts(*source.label_counts)
    counts = np.zeros(4, np.int64)
    class_fn = self.make_class_fn()
    for item in source.slices:
      dataset = tf.data.TFRecordDataset(item.path).skip(item.skip).take(item.take)
      dataset = dataset.batch(_RECORDS_PER_READ).map(class_fn, num_parallel_calls=2)
      for classes in dataset:
        counts += np.bincount(classes.numpy(), minlength=4)
    if self.hard_negative_keys and not counts[HARD_NEGATIVE]:
      raise UsageError(
        f'{self.hard_negatives}: none of its hard non-nodules is in the split '
        f'{source.split!r}; score that split with luna16-evaluate first'
      )
    return ClassCounts(*counts.tolist())
