"""Small, deterministic fakes of the LUNA16 download and of the article's patches."""

import csv
import dataclasses
import io
import locale
import pathlib
import zipfile

import numpy as np
import SimpleITK as sitk

SHAPE_ZYX = (24, 40, 44)
SPACING_XYZ_MM = (0.7, 0.8, 1.5)
ORIGIN_XYZ_MM = (-31.5, 12.25, -210.75)

NEGATIVES_PER_SCAN = 12


@dataclasses.dataclass(frozen=True)
class FakeScan:
  """A scan, and the way it is stored.

  Attributes:
    seriesuid: its name.
    subset: 0..9.
    voxels: int16 [z, y, x] in world orientation.
    spacing_xyz_mm: spacing along the world's axes.
    origin_xyz_mm: world position of voxel (0, 0, 0) of `voxels`.
    axes: the world axes in the order in which the file stores them; (0, 1, 2) is the
      usual order, x fastest.
    flips: whether each stored axis points against the world's. The stored origin is then
      the opposite corner.
    compressed: whether the data file is a `.zraw`.
  """

  seriesuid: str
  subset: int
  voxels: np.ndarray
  spacing_xyz_mm: tuple[float, float, float] = SPACING_XYZ_MM
  origin_xyz_mm: tuple[float, float, float] = ORIGIN_XYZ_MM
  axes: tuple[int, int, int] = (0, 1, 2)
  flips: tuple[bool, bool, bool] = (False, False, False)
  compressed: bool = False

  def world(self, index_zyx):
    """Returns the world point of a fractional index of `voxels`."""
    index_xyz = np.asarray(index_zyx, float)[::-1]
    return np.asarray(self.origin_xyz_mm) + index_xyz * np.asarray(self.spacing_xyz_mm)

  def world_image(self):
    """Returns the scan as a SimpleITK image with identity direction."""
    image = sitk.GetImageFromArray(self.voxels)
    image.SetSpacing(self.spacing_xyz_mm)
    image.SetOrigin(self.origin_xyz_mm)
    return image

  def write(self, folder, suffix='.mhd'):
    """Writes the scan; returns the path of the header."""
    folder.mkdir(parents=True, exist_ok=True)
    image = sitk.Flip(sitk.PermuteAxes(self.world_image(), self.axes), self.flips)
    path = folder / f'{self.seriesuid}{suffix}'
    sitk.WriteImage(image, str(path), useCompression=self.compressed)
    return path


def make_voxels(seed, shape_zyx=SHAPE_ZYX):
  """Returns noise, so that misplaced voxels are detected, with padding below -1000."""
  rng = np.random.default_rng(seed)
  voxels = rng.integers(-1100, 1500, shape_zyx).astype(np.int16)
  voxels[:, :3, :3] = -3024
  voxels[:, -3:, -3:] = -2048
  return voxels


def make_scan(seed=0, subset=0, shape_zyx=SHAPE_ZYX, **fields):
  """Makes a scan of noise."""
  voxels = make_voxels(seed, shape_zyx)
  return FakeScan(f'1.2.826.0.{seed}', subset, voxels, **fields)


def bright_voxel_scan(index_zyx, hu=3000, **fields):
  """Makes a scan of 0 HU with one bright voxel."""
  voxels = np.zeros(fields.pop('shape_zyx', SHAPE_ZYX), np.int16)
  voxels[index_zyx] = hu
  return FakeScan('1.2.826.0.7777', 0, voxels, **fields)


def write_dicom(folder, fake, slices=None, series='1.2.3.4', change=None):
  """Writes the slices of a scan as a DICOM series.

  Args:
    folder: the folder to write.
    fake: the `FakeScan`.
    slices: the slices to write; all by default.
    series: SeriesInstanceUID.
    change: a function that changes the tags of slice k: `change(k, tags)`.

  Returns:
    The folder.
  """
  folder.mkdir(exist_ok=True)
  saved_locale = locale.setlocale(locale.LC_ALL)
  image = fake.world_image()
  writer = sitk.ImageFileWriter()
  writer.KeepOriginalImageUIDOn()
  for k in range(image.GetDepth()) if slices is None else slices:
    plane = image[:, :, k]
    position = fake.world((k, 0, 0))
    tags = {
      '0008|0016': '1.2.840.10008.5.1.4.1.1.2',
      '0008|0018': f'{series}.{k}',
      '0008|0060': 'CT',
      '0020|000d': '1.2.3',
      '0020|000e': series,
      '0020|0032': '\\'.join(f'{p:.6f}' for p in position),
      '0020|0037': '1\\0\\0\\0\\1\\0',
    }
    if change:
      change(k, tags)
    for tag, value in tags.items():
      plane.SetMetaData(tag, value)
    # The order of the names is not that of the slices.
    writer.SetFileName(str(folder / f'{series}_{(k * 7) % 100:02d}.dcm'))
    writer.Execute(plane)
  # Writing DICOM sets the locale of the process to C.
  locale.setlocale(locale.LC_ALL, saved_locale)
  return folder


def truncate(path, num_bytes):
  """Removes the last `num_bytes` of a file."""
  path.write_bytes(path.read_bytes()[:-num_bytes])


def edit_header(path, key, value):
  """Sets a key of a `.mhd` header."""
  lines = path.read_text().splitlines()
  kept = [line for line in lines if not line.startswith(f'{key} =')]
  # ElementDataFile must stay the last line.
  position = len(kept) if key == 'ElementDataFile' else len(kept) - 1
  path.write_text('\n'.join([*kept[:position], f'{key} = {value}', *kept[position:]]))


def csv_text(header, rows, line_end='\n', last_newline=True):
  """Returns a CSV; floats are written with all digits."""
  text = io.StringIO()
  writer = csv.writer(text, lineterminator=line_end)
  writer.writerows([header, *rows])
  return text.getvalue() if last_newline else text.getvalue().removesuffix(line_end)


def write_candidates(path, rows, value_column='class', zipped=False, **style):
  """Writes rows (seriesuid, x, y, z, value) to `path`, in a zip if `zipped`."""
  header = ['seriesuid', 'coordX', 'coordY', 'coordZ', value_column]
  text = csv_text(header, rows, **style)
  if zipped:
    with zipfile.ZipFile(path, 'w') as archive:
      archive.writestr(
        path.name.removesuffix('.zip').removesuffix('.csv') + '.csv', text
      )
  else:
    path.write_bytes(text.encode())
  return path


def write_findings(path, rows, **style):
  """Writes rows (seriesuid, x, y, z, diameter_mm)."""
  return write_candidates(path, rows, value_column='diameter_mm', **style)


@dataclasses.dataclass
class Download:
  """A download on disk, its scans, and the rows of its CSV files."""

  folder: pathlib.Path
  scans: dict[str, FakeScan]
  paths: dict[str, pathlib.Path]
  candidates: list[tuple]
  nodules: list[tuple]
  excluded: list[tuple]


def default_scans():
  """Returns one scan per subset, stored in different ways; two in subsets 0 and 2."""
  fields = {
    1: {'flips': (True, True, False)},
    3: {'compressed': True},
    4: {'shape_zyx': (9, 70, 66), 'spacing_xyz_mm': (0.55, 0.55, 2.5)},
    5: {'axes': (2, 0, 1), 'flips': (False, True, False)},
    8: {'shape_zyx': (31, 52, 57), 'spacing_xyz_mm': (0.9, 0.9, 0.625)},
    10: {'flips': (True, True, False), 'compressed': True},
  }
  return [
    make_scan(seed, {10: 0, 11: 2}.get(seed, seed), **fields.get(seed, {}))
    for seed in range(12)
  ]


def write_download(folder, scans=None, healthy=('1.2.826.0.11',)):
  """Writes a download.

  Args:
    folder: the folder to write.
    scans: its scans; `default_scans` by default.
    healthy: names of scans without a nodule.

  Returns:
    The `Download`. Of the candidates of a scan, one or three hit its nodule, one misses
    it narrowly, one hits an excluded finding, some are at the border and one is outside.
  """
  scans = default_scans() if scans is None else scans
  rng = np.random.default_rng(2016)
  candidates, nodules, excluded = [], [], []
  for number, scan in enumerate(scans):
    shape = np.array(scan.voxels.shape)
    nodule = scan.world(rng.uniform(0.3, 0.7, 3) * shape)
    finding = scan.world(rng.uniform(0.1, 0.2, 3) * shape)
    points = [nodule + (5.5, 0, 0), finding + (0, 4.5, 0), scan.world(shape + 2.0)]
    points += [scan.world((0, 0, 0)), scan.world(shape - 1)]
    while len(points) < NEGATIVES_PER_SCAN:
      points.append(scan.world(rng.uniform(-0.02, 1, 3) * shape))
    rows = [(scan.seriesuid, *point, 0) for point in np.round(points, 6).tolist()]
    if scan.seriesuid not in healthy:
      hits = [nodule, nodule + (0, 2.1, 0), nodule - (1.3, 0, 0)][
        : 1 + 2 * (number % 2)
      ]
      rows += [(scan.seriesuid, *point, 1) for point in np.round(hits, 6).tolist()]
      nodules.append((scan.seriesuid, *np.round(nodule, 6).tolist(), 8.5))
      excluded.append((scan.seriesuid, *np.round(nodule, 6).tolist(), -1))
    excluded.append((scan.seriesuid, *np.round(finding, 6).tolist(), -1))
    candidates += rows
  candidates = [candidates[i] for i in rng.permutation(len(candidates))]
  paths = {s.seriesuid: s.write(folder / f'subset{s.subset}') for s in scans}
  write_candidates(folder / 'candidates.csv', candidates)
  write_findings(folder / 'annotations.csv', nodules)
  write_findings(folder / 'annotations_excluded.csv', excluded)
  return Download(
    folder, {s.seriesuid: s for s in scans}, paths, candidates, nodules, excluded
  )


def write_article(folder, sizes=((50, 50), (50, 50), (31, 50), (50, 44))):
  """Writes patches as the article published them: JPEGs of noise and their lists.

  Args:
    folder: the folder to write.
    sizes: (height, width) of the images of each split.

  Returns:
    For each split, its rows (path, label, candidate_id).
  """
  from PIL import Image

  rng = np.random.default_rng(5)
  rows = {}
  for split, name in (('train', 'traindatalabels'), ('validation', 'valdatalabels')):
    rows[split] = []
    images = folder / name[:3]
    images.mkdir(parents=True, exist_ok=True)
    for number, (height, width) in enumerate(sizes):
      path = images / f'image_{1000 * len(rows) + number}.jpg'
      grey_levels = rng.integers(0, 256, (height, width), np.uint8)
      Image.fromarray(grey_levels).save(path, quality=95)
      rows[split].append((path, number % 2, 1000 * len(rows) + number))
    lines = [f'{path.relative_to(folder)} {label}' for path, label, _ in rows[split]]
    (folder / f'{name}.txt').write_text('\n'.join(lines) + '\n')
  return rows
