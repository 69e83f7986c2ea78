"""Extracts the patches of one scan; used for training and for prediction."""

from __future__ import annotations

from collections.abc import Iterator
import dataclasses
from typing import Literal

import numpy as np

from luna_tfds import geometry
from luna_tfds import patches
from luna_tfds.scan import Scan

ReadMode = Literal['regions', 'scan']

# The cost of reading a region, in bytes: at least one page for each of its rows, and at
# least as long as it takes to read this many bytes in sequence (opening the file and
# seeking take about a millisecond).
_PAGE_BYTES = 4096
_REGION_BYTES = 2**20


@dataclasses.dataclass(frozen=True)
class Patch:
  """A patch and its position.

  Attributes:
    image: int16 HU, `PatchSpec.image_shape`.
    center_zyx: [3] float64, fractional voxel index of the centre in the scan.
    spacing_xyz_mm: spacing of `image`.
  """

  image: np.ndarray
  center_zyx: np.ndarray
  spacing_xyz_mm: tuple[float, ...]


@dataclasses.dataclass(frozen=True)
class ReadPlan:
  """How the voxels of a scan are read.

  Attributes:
    mode: 'regions' reads the region of each patch, 'scan' the complete scan once.
    num_bytes: voxel bytes that are read.
  """

  mode: ReadMode
  num_bytes: int


def plan_read(
  grid: geometry.Grid,
  centers_zyx: np.ndarray,
  spec: patches.PatchSpec,
  reads_regions: bool,
  bytes_per_voxel: int = 2,
) -> ReadPlan:
  """Chooses between reading regions and reading the complete scan, by cost in bytes.

  Args:
    grid: grid of the scan, identity direction.
    centers_zyx: [n, 3] fractional indices of the centres.
    spec: shape and spacing of a patch.
    reads_regions: whether the file allows it: it is not compressed.
    bytes_per_voxel: as stored.

  Returns:
    The cheaper mode, and the bytes it reads.
  """
  scan_bytes = grid.num_voxels * bytes_per_voxel
  if not reads_regions:
    return ReadPlan('scan', scan_bytes)
  region_bytes = region_cost = 0
  for box in patches.source_boxes(centers_zyx, grid, spec):
    inside = box.intersection(grid.shape_zyx)
    depth, height, width = inside.size_zyx
    region_bytes += inside.num_voxels * bytes_per_voxel
    pages = depth * height * max(width * bytes_per_voxel, _PAGE_BYTES)
    region_cost += max(pages, _REGION_BYTES)
  if region_cost > scan_bytes:
    return ReadPlan('scan', scan_bytes)
  return ReadPlan('regions', region_bytes)


class Extraction:
  """The patches around given points of a scan.

  Iterating yields a `Patch` for each centre, in order. Voxels are read during the
  iteration: the complete scan at the start, or the region of each patch.

  Attributes:
    read_plan: how the voxels are read.
    num_padded: patches yielded so far of which a part is outside the scan.
    num_outside: patches yielded so far whose centre is outside the scan.
  """

  def __init__(self, scan: Scan, centers_xyz_mm: np.ndarray, spec: patches.PatchSpec):
    """Plans how the scan is read.

    Args:
      scan: an open scan.
      centers_xyz_mm: [n, 3] world points in mm.
      spec: shape, spacing and layout of a patch.
    """
    self._scan = scan
    self._spec = spec
    self._centers_zyx = geometry.world_to_voxel(
      np.reshape(centers_xyz_mm, (-1, 3)), scan.grid
    )
    self.read_plan = plan_read(
      scan.grid, self._centers_zyx, spec, scan.reads_regions, scan.bytes_per_voxel
    )
    self.num_padded = 0
    self.num_outside = 0

  def __len__(self) -> int:
    return len(self._centers_zyx)

  def __iter__(self) -> Iterator[Patch]:
    """Yields the patches.

    Raises:
      ScanError: the voxels cannot be read.
    """
    grid, spec = self._scan.grid, self._spec
    voxels = self._scan.read() if self.read_plan.mode == 'scan' else None
    spacing_xyz_mm = spec.image_spacing_xyz_mm(grid)
    outside = geometry.is_outside(self._centers_zyx, grid).tolist()
    boxes = patches.source_boxes(self._centers_zyx, grid, spec)
    for center, box, is_outside in zip(self._centers_zyx, boxes, outside):
      inside = box.intersection(grid.shape_zyx)
      if inside.num_voxels == 0:
        block = np.empty(inside.size_zyx, np.int16)
      elif voxels is None:
        block = self._scan.read_region(inside)
      else:
        block = voxels[inside.slices()]
      image, padded = patches.make_patch(block, box, inside, center, grid, spec)
      self.num_padded += padded
      self.num_outside += bool(is_outside)
      yield Patch(image, center, spacing_xyz_mm)
