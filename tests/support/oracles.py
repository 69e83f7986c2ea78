"""Slow reference implementations with SimpleITK, NumPy and loops."""

import csv
import hashlib
import math

import numpy as np
import SimpleITK as sitk

# Wider than half of any patch, so that a patch is a slice of the padded scan.
MARGIN = 40


def world_image(path):
  """Reads a scan and reorients it to identity direction with SimpleITK."""
  return sitk.DICOMOrient(sitk.ReadImage(str(path)), 'LPS')


def center_zyx(image, point_xyz_mm):
  """Returns the fractional index of a world point."""
  point = [float(p) for p in point_xyz_mm]
  return np.array(image.TransformPhysicalPointToContinuousIndex(point)[::-1])


def padded(voxels):
  """Returns the clipped scan, padded with a wide margin of air."""
  return np.pad(np.maximum(voxels, -1000), MARGIN, constant_values=-1000)


def pixel_block(padded_voxels, center, shape_zyx):
  """Returns the [z, y, x] voxels around a fractional index."""
  # Coordinates have few decimals; further ones are rounding errors.
  start = [math.floor(round(c, 7) + 0.5) - n // 2 for c, n in zip(center, shape_zyx)]
  start = [s + MARGIN for s in start]
  assert min(start) >= 0, 'the margin is too small for this point'
  block = padded_voxels[tuple(slice(s, s + n) for s, n in zip(start, shape_zyx))]
  assert block.shape == tuple(shape_zyx), 'the margin is too small for this point'
  return block


def mm_block(image, point_xyz_mm, shape_zyx, spacing_mm):
  """Resamples [z, y, x] samples around a world point, as float."""
  size_xyz = np.array(shape_zyx[::-1])
  clipped = sitk.Maximum(sitk.Cast(image, sitk.sitkFloat64), -1000.0)
  resampler = sitk.ResampleImageFilter()
  resampler.SetInterpolator(sitk.sitkLinear)
  resampler.SetDefaultPixelValue(-1000)
  resampler.SetSize(size_xyz.tolist())
  resampler.SetOutputSpacing([spacing_mm] * 3)
  origin = np.asarray(point_xyz_mm) - (size_xyz - 1) / 2 * spacing_mm
  resampler.SetOutputOrigin(origin.tolist())
  return sitk.GetArrayFromImage(resampler.Execute(clipped))


def nearest_hit(seriesuid, point_xyz_mm, findings):
  """Returns the row of the nearest finding that a point hits, or -1.

  Args:
    seriesuid: scan of the point.
    point_xyz_mm: the point.
    findings: rows (seriesuid, x, y, z, diameter_mm).
  """
  return _nearest_hit(point_xyz_mm, _findings_in(seriesuid, findings))


def _findings_in(seriesuid, findings):
  return [(row, *f[1:]) for row, f in enumerate(findings) if f[0] == seriesuid]


def _nearest_hit(point_xyz_mm, rows_in_scan):
  best, best_mm = -1, math.inf
  for row, x, y, z, diameter in rows_in_scan:
    distance_mm = math.dist(point_xyz_mm, (x, y, z))
    radius_mm = (10.0 if diameter < 0 else diameter) / 2
    if distance_mm < radius_mm and distance_mm < best_mm:
      best, best_mm = row, distance_mm
  return best


def keyed_hash(key, purpose, seed):
  """Returns the keyed hash of a record key, computed from its definition."""
  secret = f'{purpose}:{seed}'.encode()
  digest = hashlib.blake2b(key.encode(), digest_size=8, key=secret).digest()
  return int.from_bytes(digest, 'little')


def selected_rows(candidates, subset_of, negatives_per_positive, seed=0):
  """Returns the rows of the selected candidates: positives, and a ratio of negatives.

  Args:
    candidates: rows (seriesuid, x, y, z, class).
    subset_of: subset of each scan on disk.
    negatives_per_positive: None for all.
    seed: hash seed.
  """
  on_disk = [i for i, row in enumerate(candidates) if row[0] in subset_of]
  if negatives_per_positive is None:
    return set(on_disk)
  selected = set()
  for subset in set(subset_of.values()):
    here = [i for i in on_disk if subset_of[candidates[i][0]] == subset]
    positives = [i for i in here if candidates[i][4] == 1]
    negatives = sorted(
      (i for i in here if candidates[i][4] == 0),
      key=lambda i: keyed_hash(f'{candidates[i][0]}/{i}', 'negatives', seed),
    )
    selected.update(positives, negatives[: negatives_per_positive * len(positives)])
  return selected


def split_of(subset):
  """Returns the split of a subset: 8 and 9 are held out."""
  return {8: 'validation', 9: 'test'}.get(subset, 'train')


def expected_records(candidates, nodules, excluded, paths, subset_of, rows, shape_zyx):
  """Yields (key, features) of the pixel patches [y, x, z] of some candidates.

  Args:
    candidates: rows (seriesuid, x, y, z, class).
    nodules: rows (seriesuid, x, y, z, diameter_mm).
    excluded: as `nodules`.
    paths: path of each scan.
    subset_of: subset of each scan.
    rows: rows of the candidates.
    shape_zyx: shape of a patch in voxels.
  """
  for seriesuid in sorted({candidates[i][0] for i in rows}):
    image = world_image(paths[seriesuid])
    voxels = padded(sitk.GetArrayFromImage(image))
    nodules_here = _findings_in(seriesuid, nodules)
    excluded_here = _findings_in(seriesuid, excluded)
    for row in sorted(i for i in rows if candidates[i][0] == seriesuid):
      point, label = candidates[row][1:4], candidates[row][4]
      center = center_zyx(image, point)
      nodule = _nearest_hit(point, nodules_here)
      in_excluded = _nearest_hit(point, excluded_here) >= 0
      yield (
        f'{seriesuid}/{row}',
        {
          'image': pixel_block(voxels, center, shape_zyx).transpose(1, 2, 0),
          'label': label,
          'seriesuid': seriesuid.encode(),
          'candidate_id': row,
          'subset': subset_of[seriesuid],
          'center_xyz_mm': np.array(point, np.float64),
          'center_zyx': center.astype(np.float32),
          'spacing_xyz_mm': np.array(image.GetSpacing(), np.float32),
          'nodule_id': nodule,
          'diameter_mm': np.float32(nodules[nodule][4] if nodule >= 0 else 0),
          'excluded': in_excluded and nodule < 0,
        },
      )


def expected_of(download, rows, shape_zyx):
  """Returns the `expected_records` of a `fake_data.Download` as a dict."""
  subset_of = {name: scan.subset for name, scan in download.scans.items()}
  return dict(
    expected_records(
      download.candidates,
      download.nodules,
      download.excluded,
      download.paths,
      subset_of,
      rows,
      shape_zyx,
    )
  )


def assert_same_record(found, expected):
  """Asserts that all features are equal, `center_zyx` up to rounding of float32."""
  assert set(found) == set(expected)
  for name, value in expected.items():
    if name == 'center_zyx':
      np.testing.assert_allclose(found[name], value, rtol=1e-6, atol=1e-5)
    else:
      np.testing.assert_array_equal(found[name], value, err_msg=name)


def article_hu(path):
  """Returns HU [50, 50] of a patch of the article, missing pixels as air."""
  from PIL import Image

  grey_levels = np.asarray(Image.open(path))
  hu = np.rint(np.interp(grey_levels, (0, 255), (-1000, 400)))
  height, width = hu.shape
  return np.pad(hu, ((0, 50 - height), (0, 50 - width)), constant_values=-1000)


def read_csv(path):
  """Returns the rows of a CSV of points: (seriesuid, x, y, z, value)."""
  with open(path, newline='') as file:
    rows = list(csv.reader(file))[1:]
  return [(name, *map(float, numbers)) for name, *numbers in rows]


def read_dataset(folder):
  """Reads a dataset with TFDS alone: {split: {key: record}}."""
  import tensorflow_datasets as tfds

  builder = tfds.builder_from_directory(str(folder))
  return {split: read_split(builder, split) for split in builder.info.splits}


def read_split(builder, split):
  """Reads a split, or a part of it, with a builder of TFDS: {key: record}."""
  import tensorflow_datasets as tfds

  records = list(tfds.as_numpy(builder.as_dataset(split=split)))
  found = {record_key(record): record for record in records}
  assert len(found) == len(records), 'duplicate key'
  return found


def record_key(record):
  """Returns the key of a record that TFDS has read."""
  return f'{record["seriesuid"].decode()}/{record["candidate_id"]}'


def files_of(folder):
  """Returns the bytes of the files in a folder, by name."""
  return {path.name: path.read_bytes() for path in folder.iterdir()}


def shards_of(folder):
  """Returns the bytes of the TFRecord files in a folder, by name."""
  return {name: data for name, data in files_of(folder).items() if '.tfrecord-' in name}


def digest(array):
  """Returns the SHA-256 of the bytes of an array."""
  return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()


def dataset_folder(data_dir, config='axial_50px_all'):
  """Returns the folder in which TFDS stores a dataset."""
  return data_dir / 'luna16_patches' / config / '1.0.0'


def incomplete_folder(data_dir, config='axial_50px_all'):
  """Returns the folder of the shards until the dataset is complete."""
  return dataset_folder(data_dir, config).with_name('1.0.0.incomplete')


def records_by_key(splits):
  """Merges the records of all splits, as returned by `read_dataset`."""
  return {key: record for records in splits.values() for key, record in records.items()}
