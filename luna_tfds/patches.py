"""Patch geometry: the source region of a patch, padding, resampling to a spacing in mm.

Pure functions on arrays of Hounsfield units in world orientation (z, y, x).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
import dataclasses
import math
from typing import Any

import numpy as np

from luna_tfds import dataclass_json
from luna_tfds import geometry
from luna_tfds.hounsfield import AIR_HU

LAYOUTS = ('axial', 'stack', 'cube')

# A patch of 256 slices of 512x512 samples, which is larger than a lung.
MAX_SAMPLES = 2**26

# From a hundredth of the voxels of a scan to half of a chest.
SPACING_RANGE_MM = (0.01, 100.0)


@dataclasses.dataclass(frozen=True)
class PatchSpec:
  """Shape, spacing and layout of a patch.

  Attributes:
    shape_zyx: number of samples along z, y, x.
    spacing_mm: distance between samples on all axes; None keeps the scan's own voxels.
    layout: 'axial' is one slice [height, width, 1]; 'stack' is a slice and its
      neighbours as channels [height, width, depth]; 'cube' is
      [depth, height, width, 1].
  """

  shape_zyx: tuple[int, ...] = (1, 50, 50)
  spacing_mm: float | None = None
  layout: str = 'axial'

  def __post_init__(self) -> None:
    if len(self.shape_zyx) != 3 or min(self.shape_zyx) < 1:
      raise ValueError(
        f'a patch must have a positive size on 3 axes. Received: {self.shape_zyx}'
      )
    if self.layout not in LAYOUTS:
      raise ValueError(f'layout must be one of {LAYOUTS}. Received: {self.layout!r}')
    if self.layout == 'axial' and self.shape_zyx[0] != 1:
      raise ValueError(
        f'an axial patch must have one slice. Received: {self.shape_zyx}'
      )
    if math.prod(self.shape_zyx) > MAX_SAMPLES:
      raise ValueError(
        f'patch_shape must have at most {MAX_SAMPLES} samples. '
        f'Received: {self.shape_zyx}'
      )
    low, high = SPACING_RANGE_MM
    if self.spacing_mm is not None and not low <= self.spacing_mm <= high:
      raise ValueError(
        f'spacing_mm must be {low:g} to {high:g} mm. Received: {self.spacing_mm}'
      )

  @classmethod
  def from_json(cls, fields: dict[str, Any]) -> PatchSpec:
    """Restores a spec from `dataclasses.asdict` that was stored as JSON.

    Raises:
      KeyError, TypeError, ValueError: the fields are not those of a spec.
    """
    return dataclass_json.make(cls, {**fields, 'shape_zyx': tuple(fields['shape_zyx'])})

  @property
  def image_shape(self) -> tuple[int, ...]:
    """Shape of `image` in the record."""
    depth, height, width = self.shape_zyx
    if self.layout == 'cube':
      return depth, height, width, 1
    return height, width, depth

  def __str__(self) -> str:
    shape = 'x'.join(map(str, self.shape_zyx))
    spacing = 'of the scan' if self.spacing_mm is None else f'{self.spacing_mm:g} mm'
    return f'{self.layout} {shape} (z, y, x), spacing {spacing}'

  def to_images(self, blocks: np.ndarray) -> np.ndarray:
    """Converts blocks [n, z, y, x] to the layout of the record, [n, *image_shape]."""
    if self.layout == 'cube':
      return np.ascontiguousarray(blocks[..., np.newaxis])
    return np.ascontiguousarray(blocks.transpose(0, 2, 3, 1))

  def image_spacing_xyz_mm(self, grid: geometry.Grid) -> tuple[float, ...]:
    """Returns the spacing of an image from a scan with grid `grid`."""
    if self.spacing_mm is None:
      return grid.spacing_xyz_mm
    return (self.spacing_mm,) * 3


def source_boxes(
  centers_zyx: np.ndarray, grid: geometry.Grid, spec: PatchSpec
) -> list[geometry.Box]:
  """Returns the box of voxels that each patch is computed from.

  Args:
    centers_zyx: [n, 3] fractional indices of the centres.
    grid: grid of the scan, identity direction.
    spec: shape and spacing of a patch.

  Returns:
    n boxes, not clipped to the scan. In the scan's own voxels, a box of size k starts at
    floor(centre + 0.5) - k // 2 on each axis; for a spacing in mm, it holds the voxels
    on both sides of every sample.
  """
  shape = np.array(spec.shape_zyx)
  if spec.spacing_mm is None:
    starts = geometry.nearest_voxel(centers_zyx) - shape // 2
    return [geometry.Box(tuple(start), spec.shape_zyx) for start in starts.tolist()]
  reach = (shape - 1) / 2 * (spec.spacing_mm / np.array(grid.spacing_zyx_mm))
  starts = np.floor(centers_zyx - reach).astype(np.int64)
  sizes = np.floor(centers_zyx + reach).astype(np.int64) + 2 - starts
  return [
    geometry.Box(tuple(start), tuple(size))
    for start, size in zip(starts.tolist(), sizes.tolist())
  ]


def sample_positions(
  center_zyx: np.ndarray, grid: geometry.Grid, spec: PatchSpec
) -> list[np.ndarray]:
  """Returns the sample positions of a patch with a spacing in mm.

  Args:
    center_zyx: [3] fractional index of the centre.
    grid: grid of the scan, identity direction.
    spec: has `spacing_mm`.

  Returns:
    For z, y, x: [n] fractional indices of the samples; sample k is at
    (k - (n - 1) / 2) * spacing_mm from the centre.
  """
  assert spec.spacing_mm is not None
  return [
    center + (np.arange(n) - (n - 1) / 2) * (spec.spacing_mm / voxel_mm)
    for center, n, voxel_mm in zip(center_zyx, spec.shape_zyx, grid.spacing_zyx_mm)
  ]


def make_patches(
  regions: Iterable[np.ndarray],
  boxes: Sequence[geometry.Box],
  insides: Sequence[geometry.Box],
  centers_zyx: np.ndarray,
  grid: geometry.Grid,
  spec: PatchSpec,
) -> tuple[np.ndarray, list[bool]]:
  """Makes n patches from the voxels that were read for them.

  Args:
    regions: n arrays of int16 HU [z, y, x], the voxels of `insides`; not kept.
    boxes: what `source_boxes` returned.
    insides: the part of each box inside the scan.
    centers_zyx: [n, 3] fractional indices of the centres.
    grid: grid of the scan, identity direction.
    spec: shape, spacing and layout of a patch.

  Returns:
    (int16 HU [n, *spec.image_shape], whether a part of each is outside the scan).
  """
  blocks = np.full((len(boxes), *spec.shape_zyx), AIR_HU, np.int16)
  padded = []
  for block, box, inside, center, voxels in zip(
    blocks, boxes, insides, centers_zyx, regions
  ):
    if spec.spacing_mm is None:
      padded.append(_crop(block, voxels, box, inside))
    else:
      padded.append(_resample(block, voxels, inside, center, grid, spec))
  # For all at once: a call takes longer than the work on one small patch.
  return spec.to_images(np.maximum(blocks, AIR_HU, out=blocks)), padded


def _crop(
  block: np.ndarray, voxels: np.ndarray, box: geometry.Box, inside: geometry.Box
) -> bool:
  """Copies the voxels of a box to `block`; returns whether a part is outside the scan."""
  if inside == box:
    block[:] = voxels
    return False
  offset = tuple(i - b for i, b in zip(inside.start_zyx, box.start_zyx))
  block[geometry.Box(offset, inside.size_zyx).slices()] = voxels
  return True


def _resample(
  block: np.ndarray,
  voxels: np.ndarray,
  inside: geometry.Box,
  center_zyx: np.ndarray,
  grid: geometry.Grid,
  spec: PatchSpec,
) -> bool:
  """Interpolates a patch into `block`; returns whether a part is outside the scan."""
  samples = sample_positions(center_zyx, grid, spec)
  # Decided as in a crop of voxels, so that a rounding error of a sample half-way beyond
  # the border does not decide about a whole plane of the patch.
  nearest = [geometry.nearest_voxel(p) for p in samples]
  outside = [(v < 0) | (v >= n) for v, n in zip(nearest, grid.shape_zyx)]
  padded = any(o.any() for o in outside)
  if inside.num_voxels == 0:
    return padded
  values = np.maximum(voxels, AIR_HU).astype(np.float32)
  for axis in range(3):
    position = samples[axis] - inside.start_zyx[axis]
    values = _interpolate_axis(values, position, axis)
  block[:] = np.rint(values, out=values)
  for axis in range(3):
    index: list[Any] = [slice(None)] * 3
    index[axis] = outside[axis]
    block[tuple(index)] = AIR_HU
  return padded


def _interpolate_axis(
  block: np.ndarray, positions: np.ndarray, axis: int
) -> np.ndarray:
  """Interpolates `block` linearly along `axis`; beyond its ends the edge is repeated.

  On an axis-aligned grid, this on each axis in turn is trilinear interpolation.
  """
  last = block.shape[axis] - 1
  positions = np.clip(positions, 0, last)
  low = np.floor(positions).astype(np.int64)
  high = np.minimum(low + 1, last)
  shape = [1, 1, 1]
  shape[axis] = len(positions)
  weight = (positions - low).astype(np.float32).reshape(shape)
  at_low = block.take(low, axis)
  # at_low + weight * (at_high - at_low), without new arrays: twice as fast for a cube.
  interpolated: np.ndarray = block.take(high, axis)
  interpolated -= at_low
  interpolated *= weight
  interpolated += at_low
  return interpolated
