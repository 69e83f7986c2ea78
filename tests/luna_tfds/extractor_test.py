import fake_data
import hypothesis
from hypothesis import strategies as st
import numpy as np
import oracles
import pytest
import SimpleITK as sitk

from luna_tfds import extractor
from luna_tfds import geometry
from luna_tfds import patches
from luna_tfds import scan as scan_lib
from luna_tfds.errors import ScanError

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


def extract(path, points, spec, mode=None):
  """Returns the images; `mode` overrides how the scan is read."""
  extraction = extractor.Extraction(scan_lib.open_scan(path), points, spec)
  if mode:
    extraction.read_plan = extractor.ReadPlan(mode, 0)
  return [patch.image for patch in extraction]


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
@pytest.mark.parametrize('storage', STORAGE)
def test_both_read_modes_give_the_same_patches(storage, spec_name, tmp_path):
  fake = fake_data.make_scan(3, **STORAGE[storage])
  path = fake.write(tmp_path)
  points = np.array([fake.world(index) for index in INDICES])
  of_regions = extract(path, points, SPECS[spec_name], 'regions')
  of_scan = extract(path, points, SPECS[spec_name], 'scan')
  np.testing.assert_array_equal(of_regions, of_scan)


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


LUNA_GRID = geometry.Grid((133, 512, 512), (0.7, 0.7, 2.5), (0.0, 0.0, 0.0))
SCAN_BYTES = 133 * 512 * 512 * 2


def plan(num_centers, **changes):
  centers = np.full((num_centers, 3), (60.0, 256.0, 256.0))
  spec = changes.pop('spec', patches.PatchSpec())
  fields = {'grid': LUNA_GRID, 'reads_regions': True, **changes}
  return extractor.plan_read(centers_zyx=centers, spec=spec, **fields)


def test_few_candidates_read_their_regions():
  assert plan(1) == extractor.ReadPlan('regions', 50 * 50 * 2)
  assert plan(10) == extractor.ReadPlan('regions', 10 * 50 * 50 * 2)
  assert plan(3, bytes_per_voxel=4).num_bytes == 3 * 50 * 50 * 4


def test_many_candidates_read_the_complete_scan():
  assert plan(1000) == extractor.ReadPlan('scan', SCAN_BYTES)


def test_large_patches_read_the_complete_scan():
  cube = patches.PatchSpec((100, 300, 300), None, 'cube')
  assert plan(1, spec=patches.PatchSpec()).mode == 'regions'
  assert plan(1, spec=cube).mode == 'scan'


def test_compressed_scans_are_read_completely():
  assert plan(1, reads_regions=False) == extractor.ReadPlan('scan', SCAN_BYTES)


def test_only_the_part_of_a_region_inside_the_scan_is_counted():
  read_plan = extractor.plan_read(
    LUNA_GRID, np.array([[60.0, 0.0, 511.0]]), patches.PatchSpec(), True
  )
  # 25 rows from 0; 25 columns up to 511 and the centre itself.
  assert read_plan == extractor.ReadPlan('regions', 25 * 26 * 2)


def test_reading_regions_never_reads_the_complete_scan(tmp_path, monkeypatch):
  shape = (60, 256, 256)
  voxels = np.zeros(shape, np.int16)
  voxels[30, 100, 120] = 77
  fake = fake_data.FakeScan('1.2.3', 0, voxels)
  scan = scan_lib.open_scan(fake.write(tmp_path))

  def refuse(self):
    raise AssertionError('read the complete scan')

  monkeypatch.setattr(scan_lib.Scan, 'read', refuse)
  extraction = extractor.Extraction(scan, [fake.world((30, 100, 120))], SPECS['axial'])
  assert extraction.read_plan.mode == 'regions'
  assert next(iter(extraction)).image[8, 8, 0] == 77


def test_a_scan_truncated_after_opening_raises(tmp_path):
  path = fake_data.make_scan(3).write(tmp_path)
  scan = scan_lib.open_scan(path)
  fake_data.truncate(path.with_suffix('.raw'), 40_000)
  for mode in ('scan', 'regions'):
    extraction = extractor.Extraction(scan, [(-10.0, 20.0, -180.0)], SPECS['axial'])
    extraction.read_plan = extractor.ReadPlan(mode, 0)
    with pytest.raises(ScanError):
      list(extraction)


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
