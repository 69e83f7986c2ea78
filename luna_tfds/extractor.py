"""Extracts the patches of one scan; used for training and for prediction."""

from __future__ import annotations

from collections.abc import Iterator
import math
from typing import NamedTuple

import numpy as np

from luna_tfds import geometry
from luna_tfds import patches
from luna_tfds.scans.scan import Scan

# Samples of the patches that are made at once: more save nothing.
_SAMPLES_AT_ONCE = 2**17


class Patch(NamedTuple):
  """A patch and its position.

  Attributes:
    row: row of its centre in the given points, from 0.
    image: int16 HU, `PatchSpec.image_shape`.
    center_zyx: [3] float64, fractional voxel index of the centre in the scan.
    spacing_xyz_mm: spacing of `image`.
  """

  row: int
  image: np.ndarray
  center_zyx: np.ndarray
  spacing_xyz_mm: tuple[float, ...]


class Extraction:
  """The patches around given points of a scan.

  Iterating yields a `Patch` for each centre, in the order of their voxels in the file of
  the scan. Voxels are read during the iteration.

  Attributes:
    regions: [n] the part of the scan that each patch is computed from.
    bytes_to_read: bytes of voxels that an iteration reads.
    num_padded: patches yielded so far of which a part is outside the scan.
    num_outside: patches yielded so far whose centre is outside the scan.
  """

  def __init__(self, scan: Scan, centers_xyz_mm: np.ndarray, spec: patches.PatchSpec):
    """Plans which voxels are read.

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
    self._boxes = patches.source_boxes(self._centers_zyx, scan.grid, spec)
    self.regions = [box.intersection(scan.grid.shape_zyx) for box in self._boxes]
    self.bytes_to_read = scan.bytes_to_read(self.regions)
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
    spacing_xyz_mm = spec.image_spacing_xyz_mm(grid)
    outside = geometry.is_outside(self._centers_zyx, grid).tolist()
    order = self._scan.file_order(self.regions)
    regions = self._scan.read_regions([self.regions[i] for i in order])
    num_at_once = max(1, _SAMPLES_AT_ONCE // math.prod(spec.shape_zyx))
    for first in range(0, len(order), num_at_once):
      rows = order[first : first + num_at_once]
      centers_zyx = self._centers_zyx[rows]
      images, padded = patches.make_patches(
        regions,
        [self._boxes[i] for i in rows],
        [self.regions[i] for i in rows],
        centers_zyx,
        grid,
        spec,
      )
      for i, image, center, is_padded in zip(rows, images, centers_zyx, padded):
        self.num_padded += is_padded
        self.num_outside += outside[i]
        yield Patch(i, image, center, spacing_xyz_mm)
