"""Voxels that are stored as a plain array: reads regions without the rest of the file.

The rows of a region are read by position (`pread`), not through a memory map. Both load
the same pages of the file. But where the file is truncated or the disk fails during the
extraction, a memory map ends the process (SIGBUS), and `pread` raises an error; and the
pages of a memory map count as memory of the process.

The system is told which parts of the file are wanted next, so that it loads them from the
disk meanwhile. By itself it would load what follows the last region instead, most of which
is never used.
"""

from __future__ import annotations

import collections
from collections.abc import Callable, Iterable, Iterator
import dataclasses
import functools
import os
import pathlib

import numpy as np

from luna_tfds.errors import ScanError
from luna_tfds.geometry import Box

# Bytes that the system loads ahead. More brings nothing on a local disk: 2 MiB are the
# regions of 40 axial patches.
_BYTES_AHEAD = 2**21

# macOS lacks it.
_HAS_FADVISE = hasattr(os, 'posix_fadvise')


@dataclasses.dataclass(frozen=True)
class RawVoxels:
  """An array of voxels in a file, in C order.

  Attributes:
    path: the file.
    offset: position of the first byte of the voxels in it.
    shape_zyx: shape of the array as it is stored.
    dtype: type of a voxel, with its byte order.
  """

  path: pathlib.Path
  offset: int
  shape_zyx: tuple[int, ...]
  dtype: np.dtype

  def read_regions(self, boxes: Iterable[Box]) -> Iterator[np.ndarray]:
    """Reads regions, one after another; it needs memory for one.

    Args:
      boxes: regions inside the array, in stored orientation; a side may be empty.

    Yields:
      For each box, an array [z, y, x] of `dtype`; it may be read-only.

    Raises:
      ScanError: the file cannot be read, or ends before the voxels.
    """
    try:
      with self.path.open('rb', buffering=0) as file:
        read = functools.partial(_read_at, file.fileno())
        for box, ranges in self._loaded_ahead(boxes, file.fileno()):
          yield self._cut(box, ranges, read)
    except OSError as error:
      raise ScanError(f'{self.path}: {error.strerror}') from error

  def _loaded_ahead(
    self, boxes: Iterable[Box], descriptor: int
  ) -> Iterator[tuple[Box, list[tuple[int, int]]]]:
    """Yields the regions, while the system loads those that come next.

    Args:
      boxes: regions inside the array, in stored orientation.
      descriptor: the open file.

    Yields:
      (box, its `byte_ranges`).
    """
    if _HAS_FADVISE:
      os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_RANDOM)  # no other reading ahead
    ahead: collections.deque[tuple[Box, list[tuple[int, int]]]] = collections.deque()
    bytes_ahead = 0
    for box in boxes:
      ranges = self.byte_ranges(box)
      for start, num_bytes in ranges:
        bytes_ahead += num_bytes
        if _HAS_FADVISE:
          os.posix_fadvise(descriptor, start, num_bytes, os.POSIX_FADV_WILLNEED)
      ahead.append((box, ranges))
      while bytes_ahead > _BYTES_AHEAD:
        box, ranges = ahead.popleft()
        for _, num_bytes in ranges:
          bytes_ahead -= num_bytes
        yield box, ranges
    yield from ahead

  def byte_ranges(self, box: Box) -> list[tuple[int, int]]:
    """Returns the (position, length) in the file of what is read for a region.

    There is one range for each slice, from the first voxel of the region to its last.
    """
    (z, y, x), size_zyx = box
    num_bytes = self._bytes_of_slice(size_zyx)
    if not num_bytes:
      return []
    slice_bytes, row_bytes, voxel_bytes = self._strides
    start = self.offset + z * slice_bytes + y * row_bytes + x * voxel_bytes
    return [(start + k * slice_bytes, num_bytes) for k in range(size_zyx[0])]

  def bytes_to_read(self, size_zyx: tuple[int, ...]) -> int:
    """Returns the sum of the lengths of `byte_ranges` for a region of this size."""
    return size_zyx[0] * self._bytes_of_slice(size_zyx)

  def _bytes_of_slice(self, size_zyx: tuple[int, ...]) -> int:
    depth, height, width = size_zyx
    if not (depth and height and width):
      return 0
    _, row_bytes, voxel_bytes = self._strides
    return (height - 1) * row_bytes + width * voxel_bytes

  @functools.cached_property
  def _strides(self) -> tuple[int, int, int]:
    """Bytes from a slice, a row and a voxel to the next."""
    _, rows, columns = self.shape_zyx
    voxel_bytes = self.dtype.itemsize
    return rows * columns * voxel_bytes, columns * voxel_bytes, voxel_bytes

  def _cut(
    self,
    box: Box,
    ranges: Iterable[tuple[int, int]],
    read: Callable[[int, int], bytes | memoryview],
  ) -> np.ndarray:
    """Returns the voxels of a region.

    Args:
      box: the region.
      ranges: its `byte_ranges`.
      read: returns bytes of the file, from a position and of a number; fewer at its end.
    """
    shape = (1, *box.size_zyx[1:])
    slices = []
    for start, num_bytes in ranges:
      buffer = read(start, num_bytes)
      if len(buffer) != num_bytes:
        raise ScanError(f'{self.path}: truncated while it was read')
      slices.append(np.ndarray(shape, self.dtype, buffer, strides=self._strides))
    if not slices:
      return np.empty(box.size_zyx, self.dtype)
    return slices[0] if len(slices) == 1 else np.concatenate(slices)


def _read_at(descriptor: int, start: int, num_bytes: int) -> bytes:
  """Reads bytes of a file from a position; fewer only at its end."""
  data = os.pread(descriptor, num_bytes, start)
  # A system call reads at most 2 GiB, and may be interrupted by a signal.
  while len(data) < num_bytes:
    more = os.pread(descriptor, num_bytes - len(data), start + len(data))
    if not more:
      break
    data += more
  return data
