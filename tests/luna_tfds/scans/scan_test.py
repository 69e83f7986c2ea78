import os

import fake_data
import numpy as np
import pytest
import SimpleITK as sitk

from luna_tfds import geometry
from luna_tfds.errors import ScanError
from luna_tfds.scans import meta_image_files
from luna_tfds.scans import scan as scan_lib

STORAGE = {
  'plain': {},
  'flipped': {'flips': (True, True, False)},
  'upside_down': {'flips': (False, False, True)},
  'permuted': {'axes': (2, 0, 1), 'flips': (False, True, False)},
  'compressed': {'compressed': True},
  'flipped_compressed': {'flips': (True, True, False), 'compressed': True},
}

REGIONS = [
  ((0, 0, 0), fake_data.SHAPE_ZYX),
  ((0, 0, 0), (1, 1, 1)),
  ((23, 39, 43), (1, 1, 1)),
  ((5, 7, 11), (3, 20, 8)),
  ((0, 39, 0), (24, 1, 44)),
]


def read_region(scan, start_zyx, size_zyx):
  (voxels,) = scan.read_regions([geometry.Box(start_zyx, size_zyx)])
  return voxels


@pytest.fixture
def fake():
  return fake_data.make_scan(3)


@pytest.fixture
def path(fake, tmp_path):
  return fake.write(tmp_path)


@pytest.mark.parametrize('storage', STORAGE)
def test_reads_world_oriented_voxels(storage, tmp_path):
  fake = fake_data.make_scan(3, **STORAGE[storage])
  path = fake.write(tmp_path)
  expected = sitk.DICOMOrient(sitk.ReadImage(str(path)), 'LPS')
  scan = scan_lib.open_scan(path)
  voxels = scan.read()
  assert voxels.dtype == np.int16
  np.testing.assert_array_equal(voxels, fake.voxels)
  np.testing.assert_array_equal(voxels, sitk.GetArrayFromImage(expected))
  np.testing.assert_allclose(scan.grid.origin_xyz_mm, fake.origin_xyz_mm)
  np.testing.assert_allclose(scan.grid.spacing_xyz_mm, fake.spacing_xyz_mm)
  assert scan.grid.shape_zyx == fake.voxels.shape
  assert (scan.raw is None) == fake.compressed


@pytest.mark.parametrize('storage', STORAGE)
@pytest.mark.parametrize(('start', 'size'), REGIONS)
def test_regions_are_slices_of_the_scan(storage, start, size, tmp_path):
  fake = fake_data.make_scan(3, **STORAGE[storage])
  scan = scan_lib.open_scan(fake.write(tmp_path))
  expected = fake.voxels[tuple(slice(s, s + n) for s, n in zip(start, size))]
  region = read_region(scan, start, size)
  assert region.dtype == np.int16
  np.testing.assert_array_equal(region, expected)


def test_the_origin_of_a_flipped_file_is_the_opposite_corner(tmp_path):
  path = fake_data.make_scan(3, flips=(True, True, False)).write(tmp_path)
  stored = meta_image_files.read_meta_header(path).grid
  assert stored.direction == (-1, 0, 0, 0, -1, 0, 0, 0, 1)
  x, y, _ = stored.origin_xyz_mm
  assert (x, y) == pytest.approx((-31.5 + 43 * 0.7, 12.25 + 39 * 0.8))


@pytest.mark.parametrize(
  'suffix', ['.nii', '.nii.gz', '.mha', '.MHA', '.MHD', '.NII', '.NII.GZ']
)
@pytest.mark.parametrize('compressed', [True, False])
def test_reads_other_formats(suffix, compressed, tmp_path):
  fake = fake_data.make_scan(3, compressed=compressed)
  written = fake.write(tmp_path, suffix.lower())
  scan = scan_lib.open_scan(written.rename(tmp_path / f'scan{suffix}'))
  region = read_region(scan, (5, 7, 11), (3, 20, 8))
  np.testing.assert_array_equal(region, fake.voxels[5:8, 7:27, 11:19])
  np.testing.assert_array_equal(scan.read(), fake.voxels)
  # NIfTI keeps its header in 32 bits.
  np.testing.assert_allclose(scan.grid.origin_xyz_mm, fake.origin_xyz_mm, rtol=1e-6)
  np.testing.assert_allclose(scan.grid.spacing_xyz_mm, fake.spacing_xyz_mm, rtol=1e-6)


def test_reads_a_permuted_nifti(tmp_path):
  fake = fake_data.make_scan(3, axes=(1, 2, 0), flips=(True, False, True))
  scan = scan_lib.open_scan(fake.write(tmp_path, '.nii.gz'))
  np.testing.assert_array_equal(scan.read(), fake.voxels)
  np.testing.assert_allclose(scan.grid.origin_xyz_mm, fake.origin_xyz_mm, rtol=1e-5)


def test_reads_a_dicom_folder(fake, tmp_path):
  scan = scan_lib.open_scan(fake_data.write_dicom(tmp_path / 'dicom', fake))
  np.testing.assert_array_equal(scan.read(), fake.voxels)
  np.testing.assert_allclose(scan.grid.origin_xyz_mm, fake.origin_xyz_mm)
  np.testing.assert_allclose(scan.grid.spacing_xyz_mm, fake.spacing_xyz_mm)


def test_reads_a_region_of_a_dicom_folder(fake, tmp_path):
  scan = scan_lib.open_scan(fake_data.write_dicom(tmp_path / 'dicom', fake))
  region = read_region(scan, (5, 7, 11), (3, 20, 8))
  np.testing.assert_array_equal(region, fake.voxels[5:8, 7:27, 11:19])


def test_floats_are_rounded_and_wide_values_clipped(tmp_path):
  voxels = np.array([[[-1e6, -0.6, 0.4, 1e6]]], np.float32)
  sitk.WriteImage(sitk.GetImageFromArray(voxels), str(tmp_path / 'a.mhd'))
  scan = scan_lib.open_scan(tmp_path / 'a.mhd')
  assert scan.bytes_per_voxel == 4
  assert scan.read().tolist() == [[[-32768, -1, 0, 32767]]]


def test_floats_must_be_finite(tmp_path):
  voxels = np.full((1, 2, 2), np.nan, np.float32)
  sitk.WriteImage(sitk.GetImageFromArray(voxels), str(tmp_path / 'a.mhd'))
  with pytest.raises(ScanError, match=r'a\.mhd: contains voxels that are not finite'):
    scan_lib.open_scan(tmp_path / 'a.mhd').read()


def test_no_such_file(tmp_path):
  with pytest.raises(ScanError, match=r'absent\.mhd: no such file'):
    scan_lib.open_scan(tmp_path / 'absent.mhd')


@pytest.mark.parametrize(
  'suffix', ['.nrrd', '.nhdr', '.hdr', '.img', '.tif', '.dcm', '.Mhd', '']
)
def test_formats_that_are_not_accepted(suffix, fake, tmp_path):
  path = fake.write(
    tmp_path, suffix if suffix in ('.nrrd', '.nhdr', '.hdr') else '.mhd'
  )
  path = path.rename(tmp_path / f'scan{suffix}')
  with pytest.raises(
    ScanError, match=r'accepted are \.mhd, \.mha, \.nii, \.nii\.gz and'
  ):
    scan_lib.open_scan(path)


def test_a_file_name_that_is_not_utf8(path):
  other = path.with_name(os.fsdecode(b'\xe4.mhd'))
  path.rename(other)
  with pytest.raises(ScanError, match='not valid UTF-8; rename the file'):
    scan_lib.open_scan(other)


@pytest.mark.parametrize('suffix', ['.mhd', '.mha', '.nii', '.nii.gz'])
def test_a_named_pipe_is_not_waited_for(suffix, tmp_path):
  os.mkfifo(tmp_path / f'pipe{suffix}')
  with pytest.raises(ScanError, match='not a file'):
    scan_lib.open_scan(tmp_path / f'pipe{suffix}')


def test_two_dimensional_image(fake, tmp_path):
  sitk.WriteImage(fake.world_image()[:, :, 3], str(tmp_path / 'flat.mhd'))
  with pytest.raises(ScanError, match='not a CT volume: 2 axes'):
    scan_lib.open_scan(tmp_path / 'flat.mhd')


def test_colour_image(fake, tmp_path):
  image = fake.world_image()
  sitk.WriteImage(sitk.Compose(image, image), str(tmp_path / 'colour.mhd'))
  with pytest.raises(ScanError, match='3 axes, 2 values per voxel'):
    scan_lib.open_scan(tmp_path / 'colour.mhd')


@pytest.mark.parametrize('content', [b'', b'not a header\n', b'\x00\xff' * 100])
def test_invalid_header(content, path):
  path.write_bytes(content)
  with pytest.raises(ScanError, match=r'1\.2\.826\.0\.3\.mhd: ') as error:
    scan_lib.open_scan(path)
  assert '\n' not in str(error.value)


def test_oblique_scan(path):
  fake_data.edit_header(path, 'TransformMatrix', '0.98 0.2 0 -0.2 0.98 0 0 0 1')
  with pytest.raises(ScanError, match=r'1\.2\.826\.0\.3\.mhd: .* is oblique'):
    scan_lib.open_scan(path)


def test_real_scan_and_a_region_of_it(real_data):
  path = next((real_data / 'luna16' / 'subset9').glob('*.mhd'))
  scan = scan_lib.open_scan(path)
  expected = sitk.GetArrayFromImage(sitk.ReadImage(str(path)))
  assert scan.grid.shape_zyx == expected.shape
  assert scan.raw
  np.testing.assert_array_equal(scan.read(), expected)
  region = read_region(scan, (60, 100, 200), (2, 50, 50))
  np.testing.assert_array_equal(region, expected[60:62, 100:150, 200:250])


def test_grid_is_world_oriented(tmp_path):
  fake = fake_data.make_scan(3, axes=(2, 0, 1), flips=(True, True, False))
  grid = scan_lib.open_scan(fake.write(tmp_path)).grid
  index = (4.25, 30.0, 11.5)
  np.testing.assert_allclose(geometry.world_to_voxel(fake.world(index), grid), index)
