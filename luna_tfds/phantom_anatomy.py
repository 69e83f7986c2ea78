"""The anatomy of a chest phantom: tissues, vessels, nodules, noise."""

from __future__ import annotations

import dataclasses

import numpy as np

from luna_tfds import geometry

# Mean HU of tissues, as radiology textbooks give them.
_AIR_HU, _LUNG_HU, _FAT_HU, _MUSCLE_HU = -1000.0, -860.0, -95.0, 50.0
_BLOOD_HU, _MARROW_HU, _BONE_HU = 45.0, 220.0, 620.0

# What scanners write outside their circular field of view.
OUTSIDE_FIELD_HU = (-2000, -2048, -3024)


@dataclasses.dataclass(frozen=True)
class Ball:
  """A nodule or a piece of a vessel.

  Attributes:
    center_xyz_mm: world position.
    radius_mm: its mean radius.
    hu: its value.
    lobes: [k, 4]; unit vectors and how far the surface bulges along each.
  """

  center_xyz_mm: np.ndarray
  radius_mm: float
  hu: float
  lobes: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros((0, 4)))


class Chest:
  """The anatomy of one phantom: ellipses that change from slice to slice."""

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
    """Returns the tissues, float32 HU [z, y, x]."""
    x, y = self.x_mm, self.y_mm
    body = np.hypot(x / self.body_mm[0], y / self.body_mm[1])
    skin = _soft(1 - body, 0.006)
    muscle = _soft(0.9 - body, 0.006)
    wall = np.hypot(x / (self.body_mm[0] * 0.86), y / (self.body_mm[1] * 0.8))
    ring = _soft(0.045 - np.abs(wall - 1), 0.01)
    spine = np.hypot(x / 14, (y - self.body_mm[1] * 0.66) / 12)
    around = _AIR_HU + skin * (_FAT_HU - _AIR_HU) + muscle * (_MUSCLE_HU - _FAT_HU)
    lean = rng.uniform(0.35, 0.55)
    phase = rng.uniform(0, 26)
    # Blood and air sink to the back of the lung of a patient who lies on it.
    lung_hu = _LUNG_HU + 0.5 * y + 12 * np.sin(x / 9 + phase) * np.cos(y / 11)
    volume = np.empty(self.grid.shape_zyx, np.float32)
    for k, z in enumerate(self.z_mm):
      plane = around.copy()
      rib = ring * _soft(5.0 - np.abs((z + lean * y + phase) % 26 - 13), 1.5)
      _blend(plane, rib, _MARROW_HU + 200 * (np.abs(wall - 1) > 0.028))
      for side in (-1, 1):
        _blend(plane, _soft(1 - self._lung_radius(side, x, y, z), 0.02), lung_hu)
      heart = np.sqrt(
        ((x - 10) / self.heart_mm[0]) ** 2
        + ((y + 10) / self.heart_mm[1]) ** 2
        + ((z + 22) / self.heart_mm[2]) ** 2
      )
      _blend(plane, _soft(1 - heart, 0.03), _BLOOD_HU)
      disc = abs((z + phase) % 24 - 12) < 3
      _blend(plane, _soft(1 - spine, 0.05), _MUSCLE_HU + 30 if disc else _MARROW_HU)
      if not disc:
        _blend(plane, _soft(0.09 - np.abs(spine - 0.92), 0.03), _BONE_HU)
      volume[k] = plane
    return volume

  def _lung_radius(self, side: int, x: float, y: float, z: float) -> np.ndarray:
    """1 on the surface of a lung, less inside; a dome of the diaphragm from below."""
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
    return np.maximum(np.sqrt(squared), 2 - np.sqrt(dome))

  def depth_in_lung(self, point_xyz_mm: np.ndarray) -> float:
    """Returns 1 deep inside a lung, 0 on its surface, less outside."""
    x, y, z = point_xyz_mm - self.middle_xyz_mm
    return 1 - float(min(self._lung_radius(side, x, y, z) for side in (-1, 1)))

  def lung_point(
    self, rng: np.random.Generator, least: float = 0.08, most: float = 1.0
  ) -> np.ndarray:
    """Draws a world point in a lung, at a depth in [least, most], inside the scan."""
    for _ in range(10_000):
      side = rng.choice([-1, 1])
      offset = rng.uniform(-1, 1, 3) * self.lung_mm + (side * self.lung_offset_mm, 0, 8)
      point = self.middle_xyz_mm + offset
      if self.in_scan(point) and least <= self.depth_in_lung(point) <= most:
        return point
    raise AssertionError('the phantom has no lung')

  def in_scan(self, point_xyz_mm: np.ndarray) -> bool:
    """Whether a world point lies inside the volume."""
    index = geometry.world_to_voxel(point_xyz_mm, self.grid)
    return bool(((index >= 0) & (index <= np.array(self.grid.shape_zyx) - 1)).all())

  def nodules(self, rng: np.random.Generator) -> list[Ball]:
    """Draws nodules: most deep in the lung, some at the pleura."""
    found: list[Ball] = []
    for _ in range(int(rng.integers(1, 5))):
      at_pleura = rng.random() < 0.25
      point = self.lung_point(rng, 0.01 if at_pleura else 0.1, 0.05 if at_pleura else 1)
      apart = (np.linalg.norm(point - b.center_xyz_mm) > 30 for b in found)
      if all(apart):
        found.append(random_nodule(rng, point, 4.0, 22.0))
    return found

  def vessels(self, rng: np.random.Generator) -> list[Ball]:
    """Grows branching vessels from each hilum, as strings of balls."""
    balls: list[Ball] = []
    for side in (-1, 1):
      root = self.middle_xyz_mm + (side * self.lung_offset_mm * 0.55, 4, 6)
      for _ in range(9):
        heading = rng.normal(size=3) + (side * 0.9, 0, 0)
        self._grow(rng, root, heading, rng.uniform(2.4, 4.2), balls)
    return balls

  def _grow(
    self,
    rng: np.random.Generator,
    start: np.ndarray,
    heading: np.ndarray,
    radius_mm: float,
    balls: list[Ball],
  ) -> None:
    point, heading = start.copy(), heading / np.linalg.norm(heading)
    hu = rng.uniform(20, 70)
    while radius_mm > 0.7:
      heading = heading + rng.normal(scale=0.16, size=3)
      heading /= np.linalg.norm(heading)
      point = point + heading * radius_mm * 0.8
      radius_mm *= 0.975
      if self.depth_in_lung(point) < 0.02 and np.linalg.norm(point - start) > 20:
        return
      balls.append(Ball(point, radius_mm, hu))
      if rng.random() < 0.08:
        self._grow(
          rng, point, heading + rng.normal(scale=0.8, size=3), radius_mm * 0.75, balls
        )
        radius_mm *= 0.88


def random_nodule(
  rng: np.random.Generator, center_xyz_mm: np.ndarray, least_mm: float, most_mm: float
) -> Ball:
  """Small ones are commoner; a fifth is ground glass."""
  diameter = least_mm * (most_mm / least_mm) ** (rng.random() ** 1.3)
  lobes = rng.normal(size=(4, 4))
  lobes[:, :3] /= np.linalg.norm(lobes[:, :3], axis=1, keepdims=True)
  lobes[:, 3] = rng.uniform(-0.22, 0.3, 4)
  hu = rng.uniform(-550, -250) if rng.random() < 0.2 else rng.uniform(-60, 90)
  return Ball(center_xyz_mm, diameter / 2, hu, lobes)


def _indices(count: int, axis: int) -> np.ndarray:
  indices = np.zeros((count, 3))
  indices[:, axis] = np.arange(count)
  return indices


def _soft(depth: np.ndarray, width: float) -> np.ndarray:
  """1 well inside, 0 well outside, a ramp of `width` at the surface."""
  return np.clip(depth / width + 0.5, 0, 1).astype(np.float32)


def _blend(plane: np.ndarray, weight: np.ndarray, hu: np.ndarray | float) -> None:
  plane += weight * (hu - plane)


def stamp(volume: np.ndarray, grid: geometry.Grid, ball: Ball) -> None:
  """Draws a ball into the volume, its edge as soft as the scan's resolution."""
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
    bulge = 1.0
    for vx, vy, vz, height in ball.lobes:
      along = offsets[0] * vx + offsets[1] * vy + offsets[2] * vz
      bulge = bulge + height * (np.maximum(along, 0) / (distance + 1e-3)) ** 3
    radius = radius * bulge
  block = volume[tuple(slice(a, b) for a, b in zip(low, high))]
  weight = np.clip((radius - distance) / 1.2 + 0.5, 0, 1)
  np.maximum(block, block + weight * (ball.hu - block), out=block)


def add_noise(volume: np.ndarray, rng: np.random.Generator) -> None:
  """Adds correlated noise; tiles are reused shifted, as drawing each voxel is slow."""
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
  """Overwrites what lies outside the circle that fits into each slice."""
  rows, columns = volume.shape[1:]
  y = (np.arange(rows) - (rows - 1) / 2)[:, None] / (rows / 2)
  x = (np.arange(columns) - (columns - 1) / 2)[None, :] / (columns / 2)
  volume[:, x * x + y * y > 1] = value_hu
