"""Voxels that are stored as a plain array in an object store: reads regions by ranges."""

from __future__ import annotations

import bisect
from collections.abc import Iterable, Iterator, Sequence
import dataclasses

import numpy as np

from luna_tfds.files.store_path import StorePath
from luna_tfds.geometry import Box
from luna_tfds.scans.raw_voxels import RawVoxels

# A gap between two ranges that is read with them: about what is transferred in the time
# that a request takes, when several are in flight.
MAX_GAP_BYTES = 2**16

# Ranges of at least this size are read and held at a time, so that many requests are in
# flight while memory is bounded.
BATCH_BYTES = 2**24

# No range is longer, so that a region of a whole scan is read by several requests.
MAX_RANGE_BYTES = 2**23


@dataclasses.dataclass(frozen=True)
class StoreVoxels(RawVoxels):
  """An array of voxels in an object, in C order.

  Attributes:
    path: the object.
    offset: position of the first byte of the voxels in it.
    shape_zyx: shape of the array as it is stored.
    dtype: type of a voxel, with its byte order.
  """

  path: StorePath

  def read_regions(self, boxes: Iterable[Box]) -> Iterator[np.ndarray]:
    """Reads regions in batches; it needs memory for a batch or for one region.

    Neighbouring ranges are read by one request, and several requests are in flight.

    Args:
      boxes: regions inside the array, in stored orientation; a side may be empty.

    Yields:
      For each box, an array [z, y, x] of `dtype`; it may be read-only.

    Raises:
      OSError: the object cannot be read, or ends before the voxels.
    """
    for batch in self._batches(boxes):
      blocks = self._read(batch)
      for box in batch:
        yield self._cut(box, self.byte_ranges(box), blocks.read)

  def _batches(self, boxes: Iterable[Box]) -> Iterator[list[Box]]:
    batch: list[Box] = []
    num_bytes = 0
    for box in boxes:
      batch.append(box)
      num_bytes += sum(length for _, length in self.byte_ranges(box))
      if num_bytes >= BATCH_BYTES:
        yield batch
        batch, num_bytes = [], 0
    if batch:
      yield batch

  def _read(self, boxes: Sequence[Box]) -> _Blocks:
    merged = merge_ranges(
      (start, start + num_bytes)
      for box in boxes
      for start, num_bytes in self.byte_ranges(box)
    )
    pieces = [piece for start, stop in merged for piece in _pieces(start, stop)]
    data = iter(self.path.read_ranges(pieces))
    return _Blocks(
      [start for start, _ in merged],
      [_join([next(data) for _ in _pieces(*each)]) for each in merged],
    )


def merge_ranges(ranges: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
  """Joins ranges that overlap, or between which there is at most `MAX_GAP_BYTES`.

  Args:
    ranges: (start, stop) in bytes, in any order.

  Returns:
    Ranges in ascending order that contain all of them.
  """
  merged: list[tuple[int, int]] = []
  for start, stop in sorted(ranges):
    if merged and start - merged[-1][1] <= MAX_GAP_BYTES:
      merged[-1] = (merged[-1][0], max(stop, merged[-1][1]))
    else:
      merged.append((start, stop))
  return merged


@dataclasses.dataclass(frozen=True)
class _Blocks:
  """Parts of an object that were read.

  Attributes:
    starts: position of each block in the object, ascending.
    blocks: the bytes.
  """

  starts: list[int]
  blocks: list[bytes]

  def read(self, start: int, num_bytes: int) -> memoryview:
    """Returns bytes of the object; they must be in one block."""
    k = bisect.bisect_right(self.starts, start) - 1
    first = start - self.starts[k]
    return memoryview(self.blocks[k])[first : first + num_bytes]


def _pieces(start: int, stop: int) -> list[tuple[int, int]]:
  """Divides a range into ranges of at most MAX_RANGE_BYTES."""
  return [
    (first, min(first + MAX_RANGE_BYTES, stop))
    for first in range(start, stop, MAX_RANGE_BYTES)
  ]


def _join(pieces: Sequence[bytes]) -> bytes:
  return pieces[0] if len(pieces) == 1 else b''.join(pieces)
