"""The classes by which training samples records: finer than the labels."""

from __future__ import annotations

import dataclasses

import numpy as np

from luna_tfds import records
from luna_tfds.errors import UsageError
from trainer import config as config_lib
from trainer.data import hard_negatives
from trainer.data import record_blocks
from trainer.data.split_index import SplitIndex
from trainer.data.split_source import SplitSource

NON_NODULE, NODULE, HARD_NEGATIVE, DROPPED = range(4)

_RECORDS_PER_READ = 256


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

  def of_records(self, source: SplitSource) -> np.ndarray:
    """Returns the sampling class of each record of a split.

    Which records are nodules or excluded is known from the index. Which ones are hard is
    found by reading the split once.

    Args:
      source: the split, with an index.

    Returns:
      [n] int8, in stored order.

    Raises:
      UsageError: none of the hard negatives is in the split.
    """
    index = SplitIndex.of_source(source)
    classes = np.where(index.is_nodule, NODULE, NON_NODULE).astype(np.int8)
    if self.hard_negative_keys:
      classes[self._are_hard(source) & ~index.is_nodule] = HARD_NEGATIVE
    if self.drop_excluded:
      classes[index.is_excluded] = DROPPED
    if self.hard_negative_keys and not (classes == HARD_NEGATIVE).any():
      raise UsageError(
        f'{self.hard_negatives}: none of its hard non-nodules is in the split '
        f'{source.split!r}; score that split with luna16-evaluate first'
      )
    return classes

  def _are_hard(self, source: SplitSource) -> np.ndarray:
    """Returns whether each record is listed as a hard negative, [n] bool."""
    hard = np.array(self.hard_negative_keys, np.bytes_)
    found = []
    for block in record_blocks.stored_blocks(source, _RECORDS_PER_READ):
      parsed = records.parse_batch(block, (), ('seriesuid', 'candidate_id'))
      found.append(np.isin(records.batch_keys(parsed).numpy().astype(np.bytes_), hard))
    return np.concatenate(found)


def count_classes(classes: np.ndarray) -> ClassCounts:
  """Counts the records of each sampling class; `classes` is [n] int8."""
  return ClassCounts(*np.bincount(classes, minlength=4).tolist())
