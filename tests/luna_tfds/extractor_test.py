import os

import fake_data
import hypothesis
from hypothesis import strategies as st
import numpy as np
import oracles
import pytest
import SimpleITK as sitk

from luna_tfds import extractor
from luna_tfds import patches
from luna_tfds.errors import ScanError
from luna_tfds.scans import scan as scan_lib

STORAGE = {
  'plain': {},
  'flipped': {'flips': (True, True, False)},
  'permuted': {'axes': (2, 0, 1), 'flips': (False, True, False)},
  'compressed': {'compressed': True},
}

SPECS = {
  'axial': patches.PatchSpec((1, 17, 16)),
  'stack': patches.PatchSpec((3, 8, 9), None, 'stack'),
  'cube': patches.PatchSpec((5, 6, 7), None, 'cube'),
  'axial_mm': patches.PatchSpec((1, 20, 21), 1.0),
  'stack_mm': patches.PatchSpec((4, 9, 8), 2.5, 'stack'),
  'cube_mm': patches.PatchSpec((12, 13, 14), 0.9, 'cube'),
}

# Fractional indices: inside, at every border, half-way between voxels, and outside.
INDICES = [
  (12.0, 20.0, 22.0),
  (11.6, 19.3, 21.9),
  (0.0, 0.0, 0.0),
  (23.0, 39.0, 43.0),
  (0.2, 39.4, 1.7),
  (22.8, 2.1, 42.2),
  (-3.1, 20.2, 22.3),
  (12.1, 44.9, 22.3),
  (25.3, -2.2, 46.1),
]


def extract(path, points, spec):
  """Returns the images, in the order of the points."""
  found = list(extractor.Extraction(scan_lib.open_scan(path), points, spec))
  assert sorted(patch.row for patch in found) == list(range(len(points)))
  return [patch.image for patch in sorted(found, key=lambda patch: patch.row)]


def block_of(image, spec):
  """Converts an image back to [z, y, x]."""
  return image[..., 0] if spec.layout == 'cube' else image.transpose(2, 0, 1)


@pytest.mark.parametrize('spec_name', SPECS)
@pytest.mark.parametrize('storage', STORAGE)
def test_patches_equal_those_of_simpleitk_and_numpy(storage, spec_name, tmp_path):
  spec = SPECS[spec_name]
  fake = fake_data.make_scan(3, **STORAGE[storage])
  path = fake.write(tmp_path)
  points = np.array([fake.world(index) for index in INDICES])
  image = oracles.world_image(path)
  padded_voxels = oracles.padded(sitk.GetArrayFromImage(image))
  found = extract(path, points, spec)
  assert len(found) == len(points)
  for point, patch in zip(points, found):
    assert patch.dtype == np.int16
    assert patch.shape == spec.image_shape
    assert patch.min() >= -1000
    if spec.spacing_mm is None:
      center = oracles.center_zyx(image, point)
      expected = oracles.pixel_block(padded_voxels, center, spec.shape_zyx)
      np.testing.assert_array_equal(block_of(patch, spec), expected)
    else:
      expected = oracles.mm_block(image, point, spec.shape_zyx, spec.spacing_mm)
      np.testing.assert_allclose(block_of(patch, spec), expected, atol=1)


@pytest.mark.parametrize('spec_name', SPECS)
@pytest.mark.parametrize('storage', ['flipped', 'permuted', 'compressed'])
def test_patches_do_not_depend_on_the_storage_of_the_scan(storage, spec_name, tmp_path):
  plain = fake_data.make_scan(3)
  other = fake_data.make_scan(3, **STORAGE[storage])
  points = np.array([plain.world(index) for index in INDICES])
  expected = extract(plain.write(tmp_path / 'plain'), points, SPECS[spec_name])
  found = extract(other.write(tmp_path / 'other'), points, SPECS[spec_name])
  np.testing.assert_array_equal(found, expected)


# Decimals as in LUNA16's files: with them, centres and samples half-way between two
# voxels are common.
short_decimals = st.integers(-4000, 4000).map(lambda n: n / 20)
spacings_mm = st.sampled_from(
  [0.5, 0.6, 0.625, 0.7, 0.703125, 0.75, 0.9, 1.0, 1.5, 2.5]
)


@hypothesis.given(
  origin=st.tuples(*[short_decimals] * 3),
  spacing=st.tuples(*[spacings_mm] * 3),
  quarters=st.tuples(*[st.integers(-4, 48)] * 3),
  patch_mm=st.sampled_from([0.5, 0.7, 1.0, 1.25]),
  flips=st.tuples(*[st.booleans()] * 3),
)
@hypothesis.settings(max_examples=100)
def test_plain_and_flipped_storage_give_equal_patches_at_the_border(
  origin, spacing, quarters, patch_mm, flips, tmp_path_factory
):
  folder = tmp_path_factory.mktemp('storage')
  fields = {
    'shape_zyx': (9, 11, 10),
    'spacing_xyz_mm': spacing,
    'origin_xyz_mm': origin,
  }
  plain = fake_data.make_scan(3, **fields)
  flipped = fake_data.make_scan(3, flips=flips, **fields)
  # Points at quarters of a voxel, rounded as in a CSV file.
  points = np.round(plain.world(np.array(quarters) / 4), 6)[np.newaxis]
  for spec in (
    patches.PatchSpec((8, 8, 8), patch_mm, 'cube'),
    patches.PatchSpec((7, 7, 7), patch_mm, 'cube'),
    patches.PatchSpec((5, 6, 7), None, 'cube'),
  ):
    expected = extract(plain.write(folder / 'plain'), points, spec)
    found = extract(flipped.write(folder / 'flipped'), points, spec)
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize('storage', STORAGE)
def test_a_bright_voxel_is_in_the_centre_of_its_patch(storage, tmp_path):
  index = (17, 9, 30)
  fake = fake_data.bright_voxel_scan(index, **STORAGE[storage])
  path = fake.write(tmp_path)
  # 30 * 0.7 - 31.5, 9 * 0.8 + 12.25, 17 * 1.5 - 210.75.
  point = np.array([[-10.5, 19.45, -185.25]])
  np.testing.assert_allclose(fake.world(index), point[0])
  (axial,) = extract(path, point, patches.PatchSpec((1, 50, 50)))
  assert np.argwhere(axial == 3000).tolist() == [[25, 25, 0]]
  (odd,) = extract(path, point, patches.PatchSpec((3, 7, 9), None, 'stack'))
  assert np.argwhere(odd == 3000).tolist() == [[3, 4, 1]]
  (cube,) = extract(path, point, patches.PatchSpec((5, 5, 5), 0.9, 'cube'))
  assert cube[2, 2, 2, 0] == 3000
  assert np.argwhere(cube == cube.max()).tolist() == [[2, 2, 2, 0]]


def test_patches_have_their_centre_and_spacing(tmp_path):
  fake = fake_data.make_scan(3)
  scan = scan_lib.open_scan(fake.write(tmp_path))
  index = (11.6, 19.3, 21.9)
  (patch,) = extractor.Extraction(scan, fake.world(index), SPECS['axial'])
  np.testing.assert_allclose(patch.center_zyx, index)
  np.testing.assert_allclose(patch.spacing_xyz_mm, (0.7, 0.8, 1.5))
  (patch,) = extractor.Extraction(scan, fake.world(index), SPECS['cube_mm'])
  assert patch.spacing_xyz_mm == (0.9, 0.9, 0.9)


def test_padded_and_outside_patches_are_counted(tmp_path):
  fake = fake_data.make_scan(3)
  points = [
    (12.0, 20.0, 22.0),  # 3x3x3 lies inside
    (1.0, 1.0, 1.0),  # just inside
    (0.4, 20.0, 22.0),  # over the border
    (12.0, 20.0, 43.4),  # over the border, the centre in the last voxel
    (12.0, 20.0, 43.6),  # the centre outside
    (-90.0, 20.0, 22.0),  # far outside
  ]
  scan = scan_lib.open_scan(fake.write(tmp_path))
  spec = patches.PatchSpec((3, 3, 3), None, 'cube')
  extraction = extractor.Extraction(scan, [fake.world(p) for p in points], spec)
  assert len(extraction) == len(list(extraction)) == 6
  assert extraction.num_padded == 4
  assert extraction.num_outside == 2


def test_no_centres(tmp_path):
  scan = scan_lib.open_scan(fake_data.make_scan(3).write(tmp_path))
  assert list(extractor.Extraction(scan, np.zeros((0, 3)), SPECS['axial'])) == []


@pytest.mark.parametrize('storage', ['plain', 'flipped', 'permuted'])
def test_reads_forward_in_the_file(storage, tmp_path, monkeypatch):
  fake = fake_data.make_scan(3, **STORAGE[storage])
  points = [fake.world(index) for index in INDICES]
  starts = []
  pread = os.pread

  def record(descriptor, num_bytes, start):
    starts.append(start)
    return pread(descriptor, num_bytes, start)

  monkeypatch.setattr(os, 'pread', record)
  extract(fake.write(tmp_path), points, SPECS['axial'])
  if storage != 'permuted':  # there, a patch has several slices
    assert starts == sorted(starts)
  assert len(set(starts)) > 3


def bytes_to_read(points, spec, tmp_path, **fields):
  fake = fake_data.make_scan(3, **fields)
  scan = scan_lib.open_scan(fake.write(tmp_path))
  return extractor.Extraction(scan, [fake.world(p) for p in points], spec).bytes_to_read


def test_bytes_to_read(tmp_path):
  center = (12.0, 20.0, 22.0)
  # From the first voxel of 17 rows to the last: 44 voxels a row, 16 of the last.
  bytes_of_patch = (16 * 44 + 16) * 2
  assert bytes_to_read([center], SPECS['axial'], tmp_path) == bytes_of_patch
  assert bytes_to_read([center] * 9, SPECS['axial'], tmp_path) == 9 * bytes_of_patch
  # 8 rows and 9 columns of three slices.
  bytes_of_stack = 3 * (7 * 44 + 9) * 2
  assert bytes_to_read([center], SPECS['stack'], tmp_path) == bytes_of_stack
  # Only the part inside the scan: 9 rows and 8 columns.
  bytes_at_corner = (8 * 44 + 8) * 2
  assert bytes_to_read([(12.0, 0.0, 0.0)], SPECS['axial'], tmp_path) == bytes_at_corner
  assert bytes_to_read([(-9.0, 0.0, 0.0)], SPECS['axial'], tmp_path) == 0


def test_a_compressed_scan_is_read_completely(tmp_path):
  num_bytes = bytes_to_read(
    [(12.0, 20.0, 22.0)], SPECS['axial'], tmp_path, compressed=True
  )
  assert num_bytes == 24 * 40 * 44 * 2


@pytest.mark.parametrize('storage', ['plain', 'flipped', 'permuted'])
def test_reads_no_more_than_planned(storage, tmp_path, monkeypatch):
  fake = fake_data.make_scan(3, **STORAGE[storage])
  scan = scan_lib.open_scan(fake.write(tmp_path))
  num_bytes = []
  pread = os.pread
  monkeypatch.setattr(
    os, 'pread', lambda *args: num_bytes.append(args[1]) or pread(*args)
  )
  for spec in SPECS.values():
    points = [fake.world(index) for index in INDICES]
    extraction = extractor.Extraction(scan, points, spec)
    num_bytes.clear()
    assert len(list(extraction)) == len(points)
    assert sum(num_bytes) == extraction.bytes_to_read


def test_a_scan_truncated_after_opening_raises(tmp_path):
  fake = fake_data.make_scan(3)
  path = fake.write(tmp_path)
  scan = scan_lib.open_scan(path)
  fake_data.truncate(path.with_suffix('.raw'), 40_000)
  points = [fake.world((2.0, 20.0, 22.0)), fake.world((20.0, 20.0, 22.0))]
  with pytest.raises(ScanError, match=r'\.raw: truncated while it was read'):
    list(extractor.Extraction(scan, points, SPECS['axial']))


@pytest.mark.parametrize(
  'storage',
  [
    {'flips': (True, True, False)},
    {'compressed': True},
  ],
  ids=['flipped', 'compressed'],
)
def test_patches_of_a_real_scan_do_not_depend_on_its_storage(
  storage, real_data, tmp_path
):
  path = next((real_data / 'luna16' / 'subset9').glob('*.mhd'))
  rows = oracles.read_csv(real_data / 'luna16' / 'candidates.csv')
  points = np.array([row[1:4] for row in rows if row[0] == path.stem])[::8]
  image = sitk.ReadImage(str(path))
  other = fake_data.FakeScan(
    path.stem,
    9,
    sitk.GetArrayFromImage(image),
    image.GetSpacing(),
    image.GetOrigin(),
    **storage,
  )
  other_path = other.write(tmp_path)
  for spec in (patches.PatchSpec(), patches.PatchSpec((16, 16, 16), 1.0, 'cube')):
    expected = extract(path, points, spec)
    assert np.ptp(expected) > 0
    np.testing.assert_array_equal(extract(other_path, points, spec), expected)
