"""How the memory for records is divided."""

from __future__ import annotations

import dataclasses
import math

import numpy as np

from luna_tfds import records
from trainer.data.split_source import SplitSource

# Fractions of the budget; the rest is for what is being copied.
_SHUFFLE_FRACTION, _BLOCK_FRACTION, _DECODED_FRACTION = 0.25, 0.5, 0.125

# Files that are read side by side. Not as many as there are cores, because the order of
# records must not depend on the machine.
PARALLEL_FILES = 4
# tf.data opens twice as many files ahead, and buffers two blocks of each.
_BLOCKS_IN_FLIGHT = 6 * PARALLEL_FILES

# Records that are read, parsed for their class and rejected together.
MAX_BLOCK_RECORDS = 256
_MIN_BLOCK_RECORDS = 8
_MAX_BATCHES_AHEAD = 8

# Batches that are not trained on. The first layers of a network hold some fifty times as
# much as its images, so that of large images few fit into memory.
_MAX_EVALUATION_RECORDS = 256
_MAX_EVALUATION_BYTES = 4 * 2**20


def evaluation_batch_size(image_shape: tuple[int, ...]) -> int:
  """Returns the records of a batch for evaluation, prediction and validation.

  Args:
    image_shape: shape of one image, whose values count as float32.
  """
  image_bytes = math.prod(image_shape) * np.dtype(np.float32).itemsize
  return max(min(_MAX_EVALUATION_BYTES // image_bytes, _MAX_EVALUATION_RECORDS), 1)


@dataclasses.dataclass(frozen=True)
class MemoryBudget:
  """The memory that input may use for records, and how it is divided.

  Attributes:
    num_bytes: size of the whole budget in bytes.
    record_bytes: what one record takes.
  """

  num_bytes: int
  record_bytes: int

  @classmethod
  def for_source(cls, source: SplitSource, megabytes: int) -> MemoryBudget:
    """Returns the budget for the records of a split."""
    return cls(megabytes * 2**20, records.record_bytes(source.image_shape))

  def holds_split(self, source: SplitSource) -> bool:
    """Whether all records of a split fit."""
    return source.num_bytes <= self.num_bytes

  def holds_nodules(self, count: int) -> bool:
    """Whether so many nodules fit in place of a shuffle buffer."""
    return count * self.record_bytes <= self.num_bytes * _SHUFFLE_FRACTION

  def shuffle_records(self, fraction: float, at_most: float, at_least: int) -> int:
    """Returns the records of a shuffle buffer.

    Args:
      fraction: fraction of the memory for shuffling, where several streams divide it.
      at_most: records beyond which the buffer is of no use.
      at_least: the smallest buffer.
    """
    held = self.num_bytes * _SHUFFLE_FRACTION * fraction / self.record_bytes
    return max(int(min(held, at_most)), at_least)

  def block_records(self, fraction: float) -> int:
    """Returns the records of a block, for a stream with a fraction of the memory."""
    block_bytes = self.num_bytes * _BLOCK_FRACTION * fraction / _BLOCKS_IN_FLIGHT
    wanted = int(block_bytes / self.record_bytes)
    return max(min(wanted, MAX_BLOCK_RECORDS), _MIN_BLOCK_RECORDS)

  def batches_ahead(self, batch_size: int) -> int:
    """Returns how many batches are decoded ahead; an image counts as float32."""
    batch_bytes = 2 * batch_size * self.record_bytes
    wanted = int(self.num_bytes * _DECODED_FRACTION / batch_bytes)
    return max(min(wanted, _MAX_BATCHES_AHEAD), 1)
