"""From a centre to a patch: the region to read, padding, resampling to millimetres.

Pure functions on arrays of Hounsfield units in world orientation (z, y, x).
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from luna_tfds import geometry
from luna_tfds.hounsfield import AIR_HU

LAYOUTS = ('axial', 'stack', 'cube')


@dataclasses.dataclass(frozen=True)
class PatchSpec:
  """What a patch is.

  Attributes:
    shape_zyx: samples along z, y, x.
    spacing_mm: distance of samples on all axes; None keeps the scan's own voxels.
    layout: 'axial' is one slice [height, width, 1]; 'stack' is a slice and its
      neighbours as channels [height, width, depth]; 'cube' is
      [depth, height, width, 1].
  """

  shape_zyx: tuple[int, ...] = (1, 50, 50)
  spacing_mm: float | None = None
  layout: str = 'axial'

  def __post_init__(self):
    if len(self.shape_zyx) != 3 or min(self.shape_zyx) < 1:
      raise ValueError(
        f'a patch has a positive size on 3 axes. Received: {self.shape_zyx}'
      )
    if self.layout not in LAYOUTS:
      raise ValueError(f'layout must be one of {LAYOUTS}. Received: {self.layout!r}')
    if self.layout == 'axial' and self.shape_zyx[0] != 1:
      raise ValueError(f'an axial patch is one slice. Received: {self.shape_zyx}')
    if self.spacing_mm is not None and not 0 < self.spacing_mm < np.inf:
      raise ValueError(f'spacing_mm must be positive. Received: {self.spacing_mm}')

  @classmethod
  def from_json(cls, fields: dict[str, Any]) -> PatchSpec:
    """Inverse of `dataclasses.asdict`, after a way through JSON."""
    return cls(**{**fields, 'shape_zyx': tuple(fields['shape_zyx'])})

  @property
  def image_shape(self) -> tuple[int, ...]:
    """Shape of `image` in the record."""
    depth, height, width = self.shape_zyx
    if self.layout == 'cube':
      return depth, height, width, 1
    return height, width, depth

  def to_image(self, block: np.ndarray) -> np.ndarray:
    """Brings int16 `block` [z, y, x] to the record's layout, `image_shape`."""
    if self.layout == 'cube':
      return np.ascontiguousarray(block[..., np.newaxis])
    return np.ascontiguousarray(block.transpose(1, 2, 0))

  def image_spacing_xyz_mm(self, grid: geometry.Grid) -> tuple[float, ...]:
    """Spacing of the stored image of a scan with grid `grid`."""
    if self.spacing_mm is None:
      return grid.spacing_xyz_mm
    return (self.spacing_mm,) * 3


def source_boxes(
  centers_zyx: np.ndarray, grid: geometry.Grid, spec: PatchSpec
) -> list[geometry.Box]:
  """The voxels each patch is made of.

  Args:
    centers_zyx: [n, 3] fractional indices of the centres.
    grid: grid of the scan, identity direction.
    spec: what to cut.

  Returns:
    n boxes, not clipped to the scan. In voxels of the scan, start =
    floor(centre + 0.5) - n // 2 on each axis; in mm, the voxels on both sides of every
    sample.
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
  """Where a patch in mm is sampled.

  Args:
    center_zyx: [3] fractional index of the centre.
    grid: grid of the scan, identity direction.
    spec: a patch with `spacing_mm`.

  Returns:
    For z, y, x: the fractional indices of the samples; sample k lies at
    (k - (n - 1) / 2) * spacing_mm from the centre.
  """
  assert spec.spacing_mm is not None
  return [
    center + (np.arange(n) - (n - 1) / 2) * (spec.spacing_mm / voxel_mm)
    for center, n, voxel_mm in zip(center_zyx, spec.shape_zyx, grid.spacing_zyx_mm)
  ]


def make_patch(
  voxels: np.ndarray,
  box: geometry.Box,
  inside: geometry.Box,
  center_zyx: np.ndarray,
  grid: geometry.Grid,
  spec: PatchSpec,
) -> tuple[np.ndarray, bool]:
  """Cuts one patch out of the voxels that were read for it.

  Args:
    voxels: HU [z, y, x], the voxels of `inside`.
    box: from `source_boxes`.
    inside: its part inside the scan.
    center_zyx: [3] fractional index of the centre.
    grid: grid of the scan, identity direction.
    spec: what to cut.

  Returns:
    (int16 image of `spec.image_shape`, whether a part lies outside the scan).
  """
  if spec.spacing_mm is None:
    if inside == box:
      return spec.to_image(np.maximum(voxels, AIR_HU)), False
    block = np.full(spec.shape_zyx, AIR_HU, np.int16)
    offset = tuple(i - b for i, b in zip(inside.start_zyx, box.start_zyx))
    block[geometry.Box(offset, inside.size_zyx).slices()] = np.maximum(voxels, AIR_HU)
    return spec.to_image(block), True
  samples = sample_positions(center_zyx, grid, spec)
  outside = [(p < -0.5) | (p > n - 0.5) for p, n in zip(samples, grid.shape_zyx)]
  padded = any(o.any() for o in outside)
  if inside.num_voxels == 0:
    return spec.to_image(np.full(spec.shape_zyx, AIR_HU, np.int16)), padded
  block = np.maximum(voxels, AIR_HU).astype(np.float32)
  for axis in range(3):
    position = samples[axis] - inside.start_zyx[axis]
    block = _interpolate_axis(block, position, axis)
  block = np.rint(block).astype(np.int16)
  for axis in range(3):
    index: list[Any] = [slice(None)] * 3
    index[axis] = outside[axis]
    block[tuple(index)] = AIR_HU
  return spec.to_image(block), padded


def _interpolate_axis(
  block: np.ndarray, positions: np.ndarray, axis: int
) -> np.ndarray:
  """Linear interpolation of `block` along `axis`; beyond its ends the edge holds.

  On a grid along the axes trilinear interpolation is this, three times.
  """
  last = block.shape[axis] - 1
  positions = np.clip(positions, 0, last)
  low = np.floor(positions).astype(np.int64)
  high = np.minimum(low + 1, last)
  shape = [1, 1, 1]
  shape[axis] = len(positions)
  weight = (positions - low).astype(np.float32).reshape(shape)
  at_low = block.take(low, axis)
  return at_low + weight * (block.take(high, axis) - at_low)
