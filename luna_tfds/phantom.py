"""Writes a synthetic LUNA16 download: chest phantoms with nodules, vessels and noise.

    luna16-phantom --output_dir=/tmp/luna16 --scans=24

The folder has the layout of LUNA16's: subset0..subset9 with `.mhd`/`.raw` scans,
`candidates.csv`, `annotations.csv` and `annotations_excluded.csv`. Some scans are
flipped, some are compressed (`.zraw`), some have no nodule, and some patches extend
beyond the scan. The same seed gives the same bytes. Not for medical conclusions.
"""

from __future__ import annotations

from collections.abc import Sequence
import dataclasses
import hashlib
import pathlib
import sys

from absl import flags
import numpy as np

from luna_tfds import download as download_lib
from luna_tfds import geometry
from luna_tfds import phantom_anatomy
from luna_tfds import splits
from luna_tfds import tables
from luna_tfds.command_line import cli
from luna_tfds.command_line import cli_flags
from luna_tfds.errors import UsageError
from luna_tfds.files import local_files
from luna_tfds.processes import cores
from luna_tfds.processes import worker_processes
from luna_tfds.text_format import count_text

FLAGS = cli.new_flags()

_OUTPUT_DIR = cli_flags.define_output_dir(
  FLAGS,
  'Folder to write; must not contain scans yet (required).',
  old_name='out_dir',
)
_SCANS = flags.DEFINE_integer(
  'scans', 24, 'Number of scans.', lower_bound=1, flag_values=FLAGS
)
_SEED = cli_flags.define_seed(FLAGS, 'Seed of all random choices.')

_FIELD_OF_VIEW_MM = 235.0
# A reconstruction of the lungs only: patches at the pleura extend beyond it.
_NARROW_FIELD_OF_VIEW_MM = 172.0
_HEIGHT_MM = 115.0
_SLICE_SPACINGS_MM = (0.625, 0.7, 1.0, 1.25, 1.5, 2.0, 2.5)
_NEGATIVES_PER_SCAN = 26

# One scan in this many has the property.
_NARROW_EVERY, _FLIPPED_EVERY, _COMPRESSED_EVERY, _HEALTHY_EVERY = 4, 5, 6, 7


@dataclasses.dataclass(frozen=True)
class Phantom:
  """A synthetic scan, its findings and its candidates.

  Attributes:
    seriesuid: under 2.25, the root for generated identifiers.
    subset: 0..9.
    grid: its grid, identity direction.
    voxels: int16 HU [z, y, x].
    candidates: rows (x, y, z, class) in mm.
    nodules: rows (x, y, z, diameter_mm).
    excluded: rows (x, y, z, diameter_mm), -1 for unknown.
    flipped: whether the file stores it with direction (-1, -1, 1).
    compressed: whether its data file is a `.zraw`.
  """

  seriesuid: str
  subset: int
  grid: geometry.Grid
  voxels: np.ndarray
  candidates: list[tuple[float, ...]]
  nodules: list[tuple[float, ...]]
  excluded: list[tuple[float, ...]]
  flipped: bool
  compressed: bool


def make_phantom(index: int, seed: int) -> Phantom:
  """Makes scan `index` of the download with seed `seed`; the same on every machine."""
  rng = np.random.default_rng([seed, index])
  narrow = index % _NARROW_EVERY == 1
  grid = _random_grid(rng, _NARROW_FIELD_OF_VIEW_MM if narrow else _FIELD_OF_VIEW_MM)
  chest = phantom_anatomy.Chest(rng, grid)
  volume = chest.paint(rng)
  vessels = chest.vessels(rng)
  healthy = index % _HEALTHY_EVERY == 3
  nodules = [] if healthy else chest.nodules(rng)
  small_nodules = [
    phantom_anatomy.random_nodule(rng, chest.lung_point(rng), 2.0, 2.9)
    for _ in range(3)
  ]
  for ball in [*vessels, *nodules, *small_nodules]:
    phantom_anatomy.draw_ball(volume, grid, ball)
  phantom_anatomy.add_noise(volume, rng)
  if index % 3 == 1 and not narrow:
    phantom_anatomy.mask_field_of_view(
      volume, int(rng.choice(phantom_anatomy.OUTSIDE_FIELD_HU))
    )
  digest = hashlib.blake2b(f'{seed}/{index}'.encode(), digest_size=12).hexdigest()
  excluded = [(*b.center_xyz_mm, -1.0) for b in nodules]
  excluded += [(*b.center_xyz_mm, 2 * b.radius_mm) for b in small_nodules]
  return Phantom(
    seriesuid=f'2.25.{int(digest, 16)}',
    subset=index % splits.NUM_SUBSETS,
    grid=grid,
    voxels=np.rint(volume).clip(-3024, 3071).astype(np.int16),
    candidates=_make_candidates(rng, chest, vessels, nodules, small_nodules),
    nodules=[(*b.center_xyz_mm, 2 * b.radius_mm) for b in nodules],
    excluded=excluded,
    flipped=index % _FLIPPED_EVERY == 2,
    compressed=index % _COMPRESSED_EVERY == 4,
  )


def write_download(output_dir: pathlib.Path, num_scans: int, seed: int) -> None:
  """Writes a synthetic LUNA16 download.

  Args:
    output_dir: folder to write; created if it does not exist.
    num_scans: at least 1; scan k is in subset k % 10.
    seed: seed of all random choices, 0 or more.

  Raises:
    UsageError: the folder already contains scans.
    JobError: a worker process was killed.
  """
  if any(output_dir.glob('subset*/*.mhd')):
    raise UsageError(
      f'{output_dir}: already contains scans; give an empty --output_dir'
    )
  with local_files.local_folder(output_dir) as folder:
    for subset in range(splits.NUM_SUBSETS):
      (folder / f'subset{subset}').mkdir(parents=True, exist_ok=True)
    num_workers = min(cores.num_usable_cores(), num_scans)
    of_worker = worker_processes.call_in_processes(
      _write_scans,
      [(folder, range(k, num_scans, num_workers), seed) for k in range(num_workers)],
    )
    phantoms = [of_worker[k % num_workers][k // num_workers] for k in range(num_scans)]
    candidates = _rows(phantoms, [p.candidates for p in phantoms])
    order = np.random.default_rng([seed, num_scans, 1]).permutation(len(candidates))
    _write_table(
      folder / download_lib.CANDIDATE_LISTS['V1'],
      'class',
      [candidates[i] for i in order],
    )
    nodules = _rows(phantoms, [p.nodules for p in phantoms])
    _write_table(folder / download_lib.ANNOTATIONS, 'diameter_mm', nodules)
    excluded = _rows(phantoms, [p.excluded for p in phantoms])
    _write_table(folder / download_lib.ANNOTATIONS_EXCLUDED, 'diameter_mm', excluded)


def write_scan(folder: pathlib.Path, phantom: Phantom) -> pathlib.Path:
  """Writes `<seriesuid>.mhd` and its data file; returns the path of the `.mhd`."""
  import SimpleITK as sitk

  voxels, grid = phantom.voxels, phantom.grid
  direction, origin = (1.0, 1.0, 1.0), np.array(grid.origin_xyz_mm)
  if phantom.flipped:
    # The file starts with the opposite corner of each slice.
    voxels, direction = voxels[:, ::-1, ::-1], (-1.0, -1.0, 1.0)
    _, rows, columns = grid.shape_zyx
    origin = geometry.voxel_to_world(np.array([0, rows - 1, columns - 1]), grid)
  image = sitk.GetImageFromArray(np.ascontiguousarray(voxels))
  image.SetSpacing(grid.spacing_xyz_mm)
  image.SetOrigin(origin.tolist())
  image.SetDirection(np.diag(direction).ravel().tolist())
  path = folder / f'{phantom.seriesuid}.mhd'
  sitk.WriteImage(image, str(path), useCompression=phantom.compressed)
  return path


def main(unused: list[str]) -> None:
  """Flags -> download."""
  del unused
  output_dir = cli.required_path(_OUTPUT_DIR)
  cli.make_output_folder(output_dir, _OUTPUT_DIR.name)
  write_download(output_dir, _SCANS.value, _SEED.value)
  scans = count_text(_SCANS.value, 'synthetic scan')
  print(f'wrote {scans} to {output_dir}', file=sys.stderr)


def run(argv: Sequence[str] | None = None) -> int:
  """Runs the command; returns its exit code."""
  return cli.run('luna16-phantom', __doc__, main, FLAGS, argv)


def _make_candidates(
  rng: np.random.Generator,
  chest: phantom_anatomy.Chest,
  vessels: Sequence[phantom_anatomy.Ball],
  nodules: Sequence[phantom_anatomy.Ball],
  small_nodules: Sequence[phantom_anatomy.Ball],
) -> list[tuple[float, ...]]:
  """Returns rows (x, y, z, class): one to three hits per nodule, and likely mistakes."""
  rows = []
  for nodule in nodules:
    for _ in range(int(rng.integers(1, 4))):
      offset = rng.normal(size=3)
      offset *= rng.uniform(0, 0.45) * nodule.radius_mm / np.linalg.norm(offset)
      rows.append((*(nodule.center_xyz_mm + offset), 1))
  inside = [b for b in vessels if chest.depth_in_lung(b.center_xyz_mm) > 0.02]
  inside = [b for b in inside if b.radius_mm > 1.1 and chest.in_scan(b.center_xyz_mm)]
  picks = rng.choice(len(inside), size=_NEGATIVES_PER_SCAN * 2 // 3, replace=False)
  points = [inside[i].center_xyz_mm for i in picks]
  points += [b.center_xyz_mm for b in small_nodules]
  while len(points) < _NEGATIVES_PER_SCAN:
    points.append(chest.lung_point(rng, 0.0, 0.3))
  for point in points:
    clear = (np.linalg.norm(point - b.center_xyz_mm) > b.radius_mm + 4 for b in nodules)
    if all(clear):
      rows.append((*point, 0))
  return rows


def _random_grid(rng: np.random.Generator, field_of_view_mm: float) -> geometry.Grid:
  spacing = float(np.round(rng.uniform(0.5, 0.95), 6))
  spacing_z = float(rng.choice(_SLICE_SPACINGS_MM))
  size = int(field_of_view_mm / spacing) // 2 * 2
  slices = round(_HEIGHT_MM / spacing_z)
  origin = np.round(rng.uniform(-0.6, -0.4, 3) * field_of_view_mm, 3)
  return geometry.Grid(
    shape_zyx=(slices, size, size),
    spacing_xyz_mm=(spacing, spacing, spacing_z),
    origin_xyz_mm=tuple(origin.tolist()),
  )


def _write_scans(
  output_dir: pathlib.Path, indices: Sequence[int], seed: int
) -> list[Phantom]:
  """Makes and writes scans; returns them without their voxels."""
  phantoms = []
  for index in indices:
    phantom = make_phantom(index, seed)
    write_scan(output_dir / f'subset{phantom.subset}', phantom)
    # The voxels are not needed any more, and returning them would be slow.
    phantoms.append(dataclasses.replace(phantom, voxels=phantom.voxels[:0]))
  return phantoms


def _rows(
  phantoms: Sequence[Phantom], points: Sequence[list[tuple[float, ...]]]
) -> list[tuple[str, tuple[float, ...]]]:
  """Returns (seriesuid, (x, y, z, value)) of all points; `points` is by phantom."""
  return [(p.seriesuid, point) for p, rows in zip(phantoms, points) for point in rows]


def _write_table(
  path: pathlib.Path,
  value_column: str,
  rows: Sequence[tuple[str, tuple[float, ...]]],
) -> None:
  tables.write_table(
    path,
    value_column,
    (
      (seriesuid, f'{x:.6f}', f'{y:.6f}', f'{z:.6f}', f'{value:.9g}')
      for seriesuid, (x, y, z, value) in rows
    ),
  )


if __name__ == '__main__':
  sys.exit(run())
