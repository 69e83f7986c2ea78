"""The sampling grid of a scan: world mm (x, y, z) <-> voxel indices (z, y, x).

This is the only module in which the order of axes changes.
"""

from __future__ import annotations

from collections.abc import Sequence
import dataclasses
import functools
import math
from typing import NamedTuple

import numpy as np

# A direction matrix whose entries differ from -1, 0 or 1 by at most this is
# axis-aligned. At 500 mm from the origin the difference moves a point by 0.05 mm.
_DIRECTION_TOLERANCE = 1e-4

# Indices are rounded to this many decimals before they are rounded to voxels. Candidates
# half-way between two slices are common (coordinates and spacings are short decimals),
# and the last bit of a division must not decide which slice is used.
_INDEX_DECIMALS = 9

# The direction of a scan whose axes are those of the world.
IDENTITY: tuple[float, ...] = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)


@dataclasses.dataclass(frozen=True)
class Grid:
  """The sampling grid of a scan.

  Attributes:
    shape_zyx: number of slices, rows and columns.
    spacing_xyz_mm: distance between voxel centres along columns, rows, slices.
    origin_xyz_mm: world position of the centre of voxel (0, 0, 0).
    direction: 3x3, row-major; column k is the world direction of axis k (x, y, z).
  """

  shape_zyx: tuple[int, ...]
  spacing_xyz_mm: tuple[float, ...]
  origin_xyz_mm: tuple[float, ...]
  direction: tuple[float, ...] = IDENTITY

  def __post_init__(self) -> None:
    if min(self.shape_zyx) < 1:
      raise ValueError(f'the scan has no voxels: shape (z, y, x) {self.shape_zyx}')
    if not all(np.isfinite(s) and s > 0 for s in self.spacing_xyz_mm):
      raise ValueError(
        f'spacing must be positive on every axis; received {self.spacing_xyz_mm} mm'
      )
    if not np.isfinite(self.origin_xyz_mm).all():
      raise ValueError(f'the origin must be finite; received {self.origin_xyz_mm} mm')
    if not np.isfinite(self.direction).all():
      raise ValueError(f'the direction must be finite; received {self.direction}')

  @property
  def spacing_zyx_mm(self) -> tuple[float, ...]:
    """The spacing in array order."""
    return self.spacing_xyz_mm[::-1]

  @property
  def num_voxels(self) -> int:
    """Number of voxels of the scan."""
    return math.prod(self.shape_zyx)


@dataclasses.dataclass(frozen=True)
class Orientation:
  """Converts an array as stored to world orientation: axes along world z, y, x.

  Attributes:
    axes: `array.transpose(axes)` puts the axes in world order (z, y, x).
    flipped: whether each axis, after the transposition, points against the world's.
  """

  axes: tuple[int, ...]
  flipped: tuple[bool, ...]

  @functools.cached_property
  def is_identity(self) -> bool:
    """Whether the stored array is in world orientation, as in most scans."""
    return self.axes == (0, 1, 2) and not any(self.flipped)

  def apply(self, array: np.ndarray) -> np.ndarray:
    """Returns a view of `array` [z, y, x as stored] in world orientation."""
    if self.is_identity:
      return array
    steps = tuple(slice(None, None, -1 if f else 1) for f in self.flipped)
    return array.transpose(self.axes)[steps]

  def box_as_stored(self, box: Box, shape_zyx: Sequence[int]) -> Box:
    """Maps a box of the world-oriented array to the stored array.

    Args:
      box: a box inside the scan, world orientation.
      shape_zyx: shape of the scan in world orientation.

    Returns:
      The box of the same voxels in the stored array, (z, y, x) as stored.
    """
    if self.is_identity:
      return box
    start, size = list(box.start_zyx), list(box.size_zyx)
    for world_axis, stored_axis in enumerate(self.axes):
      first, extent = box.start_zyx[world_axis], box.size_zyx[world_axis]
      if self.flipped[world_axis]:
        first = shape_zyx[world_axis] - first - extent
      start[stored_axis], size[stored_axis] = first, extent
    return Box(tuple(start), tuple(size))


class Box(NamedTuple):
  """A box of voxels; it may extend beyond the scan.

  A tuple, as one is made for each of half a million candidates, and a dataclass takes
  twice as long.

  Attributes:
    start_zyx: index of its first voxel; may be negative.
    size_zyx: number of voxels along each axis.
  """

  start_zyx: tuple[int, ...]
  size_zyx: tuple[int, ...]

  def intersection(self, shape_zyx: Sequence[int]) -> Box:
    """Returns the part inside a scan of shape `shape_zyx`; a side of it may be 0."""
    # Most boxes are inside; the general case takes ten times as long.
    (z, y, x), (depth, height, width) = self.start_zyx, self.size_zyx
    slices, rows, columns = shape_zyx
    if (
      0 <= z <= slices - depth and 0 <= y <= rows - height and 0 <= x <= columns - width
    ):
      return self
    start = [min(max(s, 0), n) for s, n in zip(self.start_zyx, shape_zyx)]
    stop = [
      min(max(s + k, 0), n) for s, k, n in zip(self.start_zyx, self.size_zyx, shape_zyx)
    ]
    return Box(tuple(start), tuple(b - a for a, b in zip(start, stop)))

  @property
  def num_voxels(self) -> int:
    """Number of voxels in the box."""
    return math.prod(self.size_zyx)

  def slices(self) -> tuple[slice, ...]:
    """Returns the box as an index of an array [z, y, x]."""
    return tuple(slice(s, s + k) for s, k in zip(self.start_zyx, self.size_zyx))


def orient(grid: Grid) -> tuple[Grid, Orientation]:
  """Converts a grid to identity direction.

  Args:
    grid: grid of the scan as stored. Its direction may flip or permute axes.

  Returns:
    The grid of the same voxels with identity direction, and the orientation that
    converts a stored array to it.

  Raises:
    ValueError: the direction is oblique: the axes of the scan are not parallel to the
      axes of the world.
  """
  direction = np.reshape(grid.direction, (3, 3))
  signs = np.rint(direction)
  axis_aligned = (
    np.abs(direction - signs).max() <= _DIRECTION_TOLERANCE
    and (np.abs(signs).sum(axis=0) == 1).all()
    and (np.abs(signs).sum(axis=1) == 1).all()
  )
  if not axis_aligned:
    raise ValueError(
      f'the direction {np.round(direction, 4).tolist()} is oblique: the axes of the '
      'scan are not parallel to x, y and z; resample the scan to an axis-aligned grid'
    )
  # The nonzero entry of row i of `signs` is in the column of the stored axis (order x,
  # y, z) that is parallel to world axis i.
  stored_xyz = np.abs(signs).argmax(axis=1)
  flipped_xyz = signs[np.arange(3), stored_xyz] == -1
  shape_stored_xyz = np.array(grid.shape_zyx[::-1])
  last_voxel_xyz_mm = voxel_to_world(np.array(grid.shape_zyx) - 1, grid)
  oriented = Grid(
    shape_zyx=tuple(int(n) for n in shape_stored_xyz[stored_xyz][::-1]),
    spacing_xyz_mm=tuple(grid.spacing_xyz_mm[a] for a in stored_xyz),
    origin_xyz_mm=tuple(
      float(last_voxel_xyz_mm[i] if flipped_xyz[i] else grid.origin_xyz_mm[i])
      for i in range(3)
    ),
  )
  orientation = Orientation(
    axes=tuple(int(2 - a) for a in stored_xyz[::-1]),
    flipped=tuple(bool(f) for f in flipped_xyz[::-1]),
  )
  return oriented, orientation


def world_to_voxel(points_xyz_mm: np.ndarray, grid: Grid) -> np.ndarray:
  """Converts world points to fractional voxel indices: `D^-1 (p - origin) / spacing`.

  Args:
    points_xyz_mm: [..., 3] float, mm, as in LUNA16's CSV files.
    grid: sampling grid of the scan.

  Returns:
    [..., 3] float64 indices (z, y, x); integers are voxel centres.

  Raises:
    ValueError: the last axis of `points_xyz_mm` is not 3.
  """
  points = _points(points_xyz_mm, 'points_xyz_mm')
  direction = np.reshape(grid.direction, (3, 3))
  offsets = (points - np.asarray(grid.origin_xyz_mm)) @ np.linalg.inv(direction).T
  indices_xyz: np.ndarray = offsets / np.asarray(grid.spacing_xyz_mm)
  return indices_xyz[..., ::-1]


def voxel_to_world(indices_zyx: np.ndarray, grid: Grid) -> np.ndarray:
  """Converts fractional voxel indices to world points; inverse of `world_to_voxel`.

  Args:
    indices_zyx: [..., 3] float; integers are voxel centres.
    grid: sampling grid of the scan.

  Returns:
    [..., 3] float64 points (x, y, z) in mm.

  Raises:
    ValueError: the last axis of `indices_zyx` is not 3.
  """
  indices = _points(indices_zyx, 'indices_zyx')
  offsets = indices[..., ::-1] * np.asarray(grid.spacing_xyz_mm)
  direction = np.reshape(grid.direction, (3, 3))
  points: np.ndarray = offsets @ direction.T + np.asarray(grid.origin_xyz_mm)
  return points


def nearest_voxel(indices: np.ndarray) -> np.ndarray:
  """Rounds fractional indices to voxels, halves upwards: `floor(index + 0.5)`.

  Args:
    indices: float, of any shape: indices of all axes, or of one.

  Returns:
    int64, of the same shape.
  """
  rounded = np.round(np.asarray(indices, np.float64), _INDEX_DECIMALS)
  nearest: np.ndarray = np.floor(rounded + 0.5).astype(np.int64)
  return nearest


def is_outside(indices_zyx: np.ndarray, grid: Grid) -> np.ndarray:
  """Returns which points are outside a scan: whose nearest voxel does not exist.

  Args:
    indices_zyx: [n, 3] fractional indices.
    grid: grid of the scan.

  Returns:
    [n] bool.
  """
  nearest = nearest_voxel(indices_zyx)
  result: np.ndarray = np.any((nearest < 0) | (nearest >= grid.shape_zyx), axis=1)
  return result


def _points(values: np.ndarray, name: str) -> np.ndarray:
  values = np.asarray(values)
  if values.ndim < 1 or values.shape[-1] != 3:
    raise ValueError(f'the last axis of {name} must be 3. Received: {values.shape}')
  return values
