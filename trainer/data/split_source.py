"""The records of a split: which stretches of which files."""

from __future__ import annotations

import dataclasses

import numpy as np

from luna_tfds.files import store_urls
from luna_tfds.record_index import ShardIndex


@dataclasses.dataclass(frozen=True)
class ShardSlice:
  """A run of consecutive records of one shard.

  Attributes:
    path: the file.
    skip: records left out at its start.
    take: records taken after them.
    index: index of the records of the shard; None if the dataset does not store it.
  """

  path: str
  skip: int
  take: int
  index: ShardIndex | None = dataclasses.field(default=None, compare=False, repr=False)


@dataclasses.dataclass(frozen=True)
class SplitSource:
  """The records of a split; what they are read from, without reading them.

  Attributes:
    split: the TFDS split string.
    slices: parts of the files that hold them, in stored order.
    image_shape: shape of one image.
    label_counts: records of non-nodules and of nodules.
    num_bytes: about what the records take on disk.
    fingerprint: fingerprint of the dataset; '' if unknown.
  """

  split: str
  slices: tuple[ShardSlice, ...]
  image_shape: tuple[int, ...]
  label_counts: tuple[int, int]
  num_bytes: int
  fingerprint: str

  @property
  def num_records(self) -> int:
    """Records of the split."""
    return sum(self.label_counts)

  @property
  def is_in_store(self) -> bool:
    """Whether the files are in an object store."""
    return any(store_urls.is_url(item.path) for item in self.slices)

  @property
  def nodule_fraction(self) -> float:
    """Fraction of nodules among all records; see also `SplitIndex.prevalence`."""
    return self.label_counts[1] / max(self.num_records, 1)

  def num_shared_records(self, other: SplitSource) -> int:
    """Counts the records that this split and another one have in common.

    Args:
      other: a split of the same dataset; records of different files are different.
    """
    return int(self.shared_positions(other).sum())

  def shared_positions(self, other: SplitSource) -> np.ndarray:
    """Returns which records of another split are in this one too.

    Args:
      other: a split of the same dataset; records of different files are different.

    Returns:
      [n] bool, in the stored order of the other split.
    """
    shared = np.zeros(sum(b.take for b in other.slices), bool)
    position = 0
    for b in other.slices:
      for a in self.slices:
        if a.path == b.path:
          start, stop = max(a.skip, b.skip), min(a.skip + a.take, b.skip + b.take)
          if start < stop:
            shared[position + start - b.skip : position + stop - b.skip] = True
      position += b.take
    return shared
