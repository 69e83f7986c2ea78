"""The anatomy of a chest phantom: tissues, vessels, nodules, noise."""

from __future__ import annotations

import dataclasses

import numpy as np

from luna_tfds import geometry
from luna_tfds.hounsfield import AIR_HU

# Mean HU of tissues, as radiology textbooks give them.
_LUNG_HU, _FAT_HU, _MUSCLE_HU = -860.0, -95.0, 50.0
_BLOOD_HU, _MARROW_HU, _BONE_HU = 45.0, 220.0, 620.0

# Values that scanners write outside their circular field of view.
OUTSIDE_FIELD_HU = (-2000, -2048, -3024)


Coordinate = float | np.ndarray


@dataclasses.dataclass(frozen=True)
class Ball:
  """A nodule or a segment of a vessel.

  Attributes:
    center_xyz_mm: [3] world position.
    radius_mm: mean radius.
    hu: value in HU.
    lobes: [k, 4]; a unit vector (x, y, z), and the growth of the radius along it as a
      part of `radius_mm`.
  """

  center_xyz_mm: np.ndarray
  radius_mm: float
  hu: float
  lobes: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros((0, 4)))


class Chest:
  """The anatomy of one phantom: body, lungs, heart, ribs and spine as ellipsoids."""

  def __init__(self, rng: np.random.Generator, grid: geometry.Grid):
    self.grid = grid
    depth, rows, columns = grid.shape_zyx
    middle = geometry.voxel_to_world((np.array(grid.shape_zyx) - 1) / 2, grid)
    self.middle_xyz_mm = middle
    size = rng.uniform(0.94, 1.03)
    self.body_mm = np.array([104.0, 76.0]) * size
    self.lung_mm = np.array([37.0, 53.0, 66.0]) * size
    self.lung_offset_mm = 46.0 * size
    self.heart_mm = np.array([27.0, 30.0, 34.0]) * size
    x = geometry.voxel_to_world(_indices(columns, 2), grid)[:, 0] - middle[0]
    y = geometry.voxel_to_world(_indices(rows, 1), grid)[:, 1] - middle[1]
    self.z_mm = geometry.voxel_to_world(_indices(depth, 0), grid)[:, 2] - middle[2]
    self.x_mm = x.astype(np.float32)[None, :]
    self.y_mm = y.astype(np.float32)[:, None]

  def paint(self, rng: np.random.Generator) -> np.ndarray:
    """Returns the volume without vessels and nodules, float32 HU [z, y, x]."""
    x, y = self.x_mm, self.y_mm
    body = np.hypot(x / self.body_mm[0], y / self.body_mm[1])
    skin = _smooth_step(1 - body, 0.006)
    muscle = _smooth_step(0.9 - body, 0.006)
    wall = np.hypot(x / (self.body_mm[0] * 0.86), y / (self.body_mm[1] * 0.8))
    ring = _smooth_step(0.045 - np.abs(wall - 1), 0.01)
    spine = np.hypot(x / 14, (y - self.body_mm[1] * 0.66) / 12)
    around = AIR_HU + skin * (_FAT_HU - AIR_HU) + muscle * (_MUSCLE_HU - _FAT_HU)
    lean = rng.uniform(0.35, 0.55)
    phase = rng.uniform(0, 26)
    # The patient lies on the back, where the lung is denser.
    lung_hu = _LUNG_HU + 0.5 * y + 12 * np.sin(x / 9 + phase) * np.cos(y / 11)
    volume = np.empty(self.grid.shape_zyx, np.float32)
    for k, z in enumerate(self.z_mm):
      plane = around.copy()
      rib = ring * _smooth_step(5.0 - np.abs((z + lean * y + phase) % 26 - 13), 1.5)
      _blend(plane, rib, _MARROW_HU + 200 * (np.abs(wall - 1) > 0.028))
      for side in (-1, 1):
        _blend(plane, _smooth_step(1 - self._lung_radius(side, x, y, z), 0.02), lung_hu)
      heart = np.sqrt(
        ((x - 10) / self.heart_mm[0]) ** 2
        + ((y + 10) / self.heart_mm[1]) ** 2
        + ((z + 22) / self.heart_mm[2]) ** 2
      )
      _blend(plane, _smooth_step(1 - heart, 0.03), _BLOOD_HU)
      disc = abs((z + phase) % 24 - 12) < 3
      _blend(
        plane, _smooth_step(1 - spine, 0.05), _MUSCLE_HU + 30 if disc else _MARROW_HU
      )
      if not disc:
        _blend(plane, _smooth_step(0.09 - np.abs(spine - 0.92), 0.03), _BONE_HU)
      volume[k] = plane
    return volume

  def _lung_radius(
    self, side: int, x: Coordinate, y: Coordinate, z: float
  ) -> np.ndarray:
    """Returns 1 on the surface of a lung, less inside; the diaphragm bounds it below."""
    squared = (
      ((x - side * self.lung_offset_mm) / self.lung_mm[0]) ** 2
      + (y / self.lung_mm[1]) ** 2
      + ((z - 8) / self.lung_mm[2]) ** 2
    )
    dome = (
      ((x - side * self.lung_offset_mm) / 52) ** 2
      + (y / 60) ** 2
      + ((z + 78) / (36 if side < 0 else 30)) ** 2
    )
    radius: np.ndarray = np.maximum(np.sqrt(squared), 2 - np.sqrt(dome))
    return radius

  def depth_in_lung(self, point_xyz_mm: np.ndarray) -> float:
    """Returns 1 in the middle of a lung, 0 on its surface, negative values outside."""
    x, y, z = point_xyz_mm - self.middle_xyz_mm
    return 1 - float(min(self._lung_radius(side, x, y, z) for side in (-1, 1)))

  def lung_point(
    self, rng: np.random.Generator, min_depth: float = 0.08, max_depth: float = 1.0
  ) -> np.ndarray:
    """Draws a world point in a lung and in the scan, with a depth in the given range."""
    for _ in range(10_000):
      side = rng.choice([-1, 1])
      offset = rng.uniform(-1, 1, 3) * self.lung_mm + (side * self.lung_offset_mm, 0, 8)
      point = self.middle_xyz_mm + offset
      if self.in_scan(point) and min_depth <= self.depth_in_lung(point) <= max_depth:
        return point
    raise AssertionError('the phantom has no lung')

  def in_scan(self, point_xyz_mm: np.ndarray) -> bool:
    """Whether a world point lies inside the volume."""
    index = geometry.world_to_voxel(point_xyz_mm, self.grid)
    return bool(((index >= 0) & (index <= np.array(self.grid.shape_zyx) - 1)).all())

  def nodules(self, rng: np.random.Generator) -> list[Ball]:
    """Draws nodules at least 30 mm apart: most deep in the lung, some at the pleura."""
    nodules: list[Ball] = []
    for _ in range(int(rng.integers(1, 5))):
      at_pleura = rng.random() < 0.25
      point = self.lung_point(rng, 0.01 if at_pleura else 0.1, 0.05 if at_pleura else 1)
      apart = (np.linalg.norm(point - b.center_xyz_mm) > 30 for b in nodules)
      if all(apart):
        nodules.append(random_nodule(rng, point, 4.0, 22.0))
    return nodules

  def vessels(self, rng: np.random.Generator) -> list[Ball]:
    """Draws branching vessels from each hilum, as sequences of overlapping balls."""
    balls: list[Ball] = []
    for side in (-1, 1):
      root = self.middle_xyz_mm + (side * self.lung_offset_mm * 0.55, 4, 6)
      for _ in range(9):
        direction = rng.normal(size=3) + (side * 0.9, 0, 0)
        self._add_vessel(rng, root, direction, rng.uniform(2.4, 4.2), balls)
    return balls

  def _add_vessel(
    self,
    rng: np.random.Generator,
    start: np.ndarray,
    direction: np.ndarray,
    radius_mm: float,
    balls: list[Ball],
  ) -> None:
    """Appends the balls of a vessel and of its branches to `balls`."""
    point, direction = start.copy(), direction / np.linalg.norm(direction)
    hu = rng.uniform(20, 70)
    while radius_mm > 0.7:
      direction = direction + rng.normal(scale=0.16, size=3)
      direction /= np.linalg.norm(direction)
      point = point + direction * radius_mm * 0.8
      radius_mm *= 0.975
      if self.depth_in_lung(point) < 0.02 and np.linalg.norm(point - start) > 20:
        return
      balls.append(Ball(point, radius_mm, hu))
      if rng.random() < 0.08:
        self._add_vessel(
          rng, point, direction + rng.normal(scale=0.8, size=3), radius_mm * 0.75, balls
        )
        radius_mm *= 0.88


def random_nodule(
  rng: np.random.Generator,
  center_xyz_mm: np.ndarray,
  min_diameter_mm: float,
  max_diameter_mm: float,
) -> Ball:
  """Draws a nodule: small ones are more frequent, one in five is ground-glass."""
  diameter = min_diameter_mm * (max_diameter_mm / min_diameter_mm) ** (
    rng.random() ** 1.3
  )
  lobes = rng.normal(size=(4, 4))
  lobes[:, :3] /= np.linalg.norm(lobes[:, :3], axis=1, keepdims=True)
  lobes[:, 3] = rng.uniform(-0.22, 0.3, 4)
  hu = rng.uniform(-550, -250) if rng.random() < 0.2 else rng.uniform(-60, 90)
  return Ball(center_xyz_mm, diameter / 2, hu, lobes)


def _indices(count: int, axis: int) -> np.ndarray:
  """Returns [count, 3] indices (z, y, x) along one axis."""
  indices = np.zeros((count, 3))
  indices[:, axis] = np.arange(count)
  return indices


def _smooth_step(depth: np.ndarray, width: float) -> np.ndarray:
  """Returns 1 inside (depth > 0), 0 outside, and a ramp of `width` between them."""
  weight: np.ndarray = np.clip(depth / width + 0.5, 0, 1).astype(np.float32)
  return weight


def _blend(plane: np.ndarray, weight: np.ndarray, hu: np.ndarray | float) -> None:
  """Mixes a tissue into a slice, in place; where the weight is 1 it replaces it."""
  plane += weight * (hu - plane)


def draw_ball(volume: np.ndarray, grid: geometry.Grid, ball: Ball) -> None:
  """Draws a ball into the volume; its edge is blurred over about a voxel."""
  reach = ball.radius_mm * 1.5 + 1.5
  center = geometry.world_to_voxel(ball.center_xyz_mm, grid)
  spacing = np.array(grid.spacing_zyx_mm)
  low = np.maximum(np.ceil(center - reach / spacing), 0).astype(int)
  high = np.minimum(np.floor(center + reach / spacing) + 1, grid.shape_zyx).astype(int)
  if (low >= high).any():
    return
  z, y, x = (
    ((np.arange(a, b) - c) * s).astype(np.float32)
    for a, b, c, s in zip(low, high, center, spacing)
  )
  offsets = (x[None, None, :], y[None, :, None], z[:, None, None])
  distance = np.sqrt(sum(o * o for o in offsets))
  radius = ball.radius_mm
  if len(ball.lobes):
    scale = 1.0
    for vx, vy, vz, height in ball.lobes:
      along = offsets[0] * vx + offsets[1] * vy + offsets[2] * vz
      scale = scale + height * (np.maximum(along, 0) / (distance + 1e-3)) ** 3
    radius = radius * scale
  block = volume[tuple(slice(a, b) for a, b in zip(low, high))]
  weight = np.clip((radius - distance) / 1.2 + 0.5, 0, 1)
  np.maximum(block, block + weight * (ball.hu - block), out=block)


def add_noise(volume: np.ndarray, rng: np.random.Generator) -> None:
  """Adds correlated noise: shifted copies of a few slices, as drawing each is slow."""
  sigma_hu = rng.uniform(12, 38)
  rows, columns = volume.shape[1:]
  tiles = rng.standard_normal((6, rows, columns), np.float32)
  for axis in (1, 2):
    tiles = tiles + 0.7 * np.roll(tiles, 1, axis)
  tiles *= sigma_hu / tiles.std()
  for plane in volume:
    tile = tiles[rng.integers(len(tiles))]
    shift = (int(rng.integers(rows)), int(rng.integers(columns)))
    plane += np.roll(tile, shift, (0, 1))


def mask_field_of_view(volume: np.ndarray, value_hu: int) -> None:
  """Sets voxels outside the inscribed circle of each slice to `value_hu`."""
  rows, columns = volume.shape[1:]
  y = (np.arange(rows) - (rows - 1) / 2)[:, None] / (rows / 2)
  x = (np.arange(columns) - (columns - 1) / 2)[None, :] / (columns / 2)
  volume[:, x * x + y * y > 1] = value_hu
