import gzip
import struct

import fake_data
import numpy as np
import pytest

from luna_tfds.errors import ScanError
from luna_tfds.scans import scan as scan_lib

SUFFIXES = ['.nii', '.nii.gz']


@pytest.fixture
def fake():
  return fake_data.make_scan(3)


@pytest.fixture(params=SUFFIXES)
def path(fake, request, tmp_path):
  return fake.write(tmp_path, request.param)


def read_content(path):
  content = path.read_bytes()
  return bytearray(gzip.decompress(content) if path.suffix == '.gz' else content)


def write_content(path, content):
  path.write_bytes(gzip.compress(content) if path.suffix == '.gz' else content)


def set_field(path, offset, code, *values):
  content = read_content(path)
  struct.pack_into(code, content, offset, *values)
  write_content(path, content)


def add_extension(path, change=lambda content: content):
  """Inserts 32 bytes between the header and the voxels."""
  content = read_content(path)
  struct.pack_into('<f', content, 108, 384)
  content[348] = 1
  extension = struct.pack('<ii', 32, 4) + b'x' * 24
  write_content(path, change(bytes(content[:352]) + extension + bytes(content[352:])))


def test_a_truncated_file(path):
  fake_data.truncate(path, 20_000)
  with pytest.raises(ScanError, match=r'\.nii.*(truncated|ended before)'):
    scan_lib.open_scan(path).read()


@pytest.mark.parametrize('num_bytes', [1, 16, 33])
def test_truncated_voxels(num_bytes, path):
  write_content(path, read_content(path)[:-num_bytes])
  with pytest.raises(ScanError, match=r'truncated: .* bytes, expected 84832'):
    scan_lib.open_scan(path).read()


def test_additional_bytes(path):
  write_content(path, read_content(path) + b'xx')
  with pytest.raises(ScanError, match=r'longer than its header says'):
    scan_lib.open_scan(path).read()


def test_an_extension(fake, path):
  add_extension(path)
  np.testing.assert_array_equal(scan_lib.open_scan(path).read(), fake.voxels)


def test_a_truncated_file_with_an_extension(path):
  add_extension(path, lambda content: content[:-16])
  with pytest.raises(ScanError, match=r'truncated: .* bytes, expected 84864'):
    scan_lib.open_scan(path).read()


def test_a_hole_in_compressed_voxels(fake, tmp_path):
  path = fake.write(tmp_path, '.nii.gz')
  packed = bytearray(path.read_bytes())
  packed[-5000:-4900] = bytes(100)
  path.write_bytes(packed)
  with pytest.raises(ScanError, match=r'damaged'):
    scan_lib.open_scan(path).read()


def test_a_gzip_file_of_several_members(fake, tmp_path):
  path = fake.write(tmp_path, '.nii.gz')
  content = read_content(path)
  path.write_bytes(gzip.compress(content[:50_000]) + gzip.compress(content[50_000:]))
  np.testing.assert_array_equal(scan_lib.open_scan(path).read(), fake.voxels)


def test_a_file_that_is_not_compressed_as_its_name_says(fake, tmp_path):
  path = fake.write(tmp_path, '.nii').rename(tmp_path / 'scan.nii.gz')
  with pytest.raises(ScanError, match='damaged: Not a gzipped file'):
    scan_lib.open_scan(path)


def test_a_compressed_file_without_gz_in_its_name(fake, tmp_path):
  path = fake.write(tmp_path, '.nii.gz').rename(tmp_path / 'scan.nii')
  with pytest.raises(ScanError, match='not a NIfTI-1 file'):
    scan_lib.open_scan(path)


def test_scaled_voxels(fake, path):
  # Stored as int16 with a slope: ITK reads floats, but the file has two bytes a voxel.
  set_field(path, 112, '<f', 0.5)
  expected = np.rint(fake.voxels * 0.5)
  np.testing.assert_array_equal(scan_lib.open_scan(path).read(), expected)


@pytest.mark.parametrize('num_axes', [4, 7])
def test_trailing_axes_of_size_one(num_axes, fake, path):
  set_field(path, 40, '<h', num_axes)
  set_field(path, 48, '<4h', *[1] * 4)
  np.testing.assert_array_equal(scan_lib.open_scan(path).read(), fake.voxels)


@pytest.mark.parametrize(
  ('offset', 'code', 'values', 'problem'),
  [
    (0, '<i', [540], 'not a NIfTI-1 file'),
    (344, '4s', [b'ni1\0'], 'pairs of .hdr and .img are not accepted'),
    (344, '4s', [b'\0\0\0\0'], 'pairs of .hdr and .img are not accepted'),
    (40, '<h', [0], 'invalid header: its axes'),
    (40, '<h', [8], 'invalid header: its axes'),
    (42, '<h', [-44], 'invalid header: its axes'),
    (40, '<h', [2], 'not a CT volume: 2 axes'),
    (40, '<5h', [4, 44, 40, 12, 2], 'not a CT volume: 4 axes'),
    (70, '<2h', [128, 24], 'data type 128 is not supported'),
    (72, '<h', [32], 'invalid header: 32 bits per voxel, expected 16'),
    (80, '<f', [float('nan')], 'spacing must be positive'),
    (84, '<f', [0], 'spacing must be positive'),
    (108, '<f', [0], 'the voxels start at byte 0'),
    (108, '<f', [-500], 'the voxels start at byte -500'),
    (108, '<f', [352.5], 'the voxels start at byte 352.5'),
    (108, '<f', [float('nan')], 'the voxels start at byte nan'),
    (108, '<f', [float('inf')], 'the voxels start at byte inf'),
    (108, '<f', [1e30], r'truncated|TB of voxels'),
    (252, '<2h', [0, 0], 'its header has no position'),
    (268, '<f', [float('nan')], 'its position holds numbers that are not finite'),
    (280, '<f', [float('inf')], 'its position holds numbers that are not finite'),
  ],
)
def test_invalid_headers(offset, code, values, problem, path):
  set_field(path, offset, code, *values)
  with pytest.raises(ScanError, match=problem) as error:
    scan_lib.open_scan(path).read()
  assert str(error.value).startswith(f'{path}: ')
  assert '\n' not in str(error.value)


@pytest.mark.parametrize('content', [b'', b'x' * 347, b'x' * 5000])
def test_files_that_are_no_nifti(content, path):
  write_content(path, content)
  with pytest.raises(ScanError, match=r'truncated: its header|not a NIfTI-1 file'):
    scan_lib.open_scan(path)


def test_a_huge_compressed_scan(fake, tmp_path):
  path = fake.write(tmp_path, '.nii.gz')
  set_field(path, 42, '<3h', 4096, 4096, 999)
  with pytest.raises(ScanError, match=r'33\.5 GB of voxels'):
    scan_lib.open_scan(path)


def set_affine(path, change):
  """Changes the sform, a [3, 4] matrix."""
  affine = np.array(struct.unpack_from('<12f', read_content(path), 280)).reshape(3, 4)
  change(affine)
  set_field(path, 280, '<12f', *affine.ravel())


def shear(affine):
  affine[1, 2] += 0.3


def move(affine):
  affine[0, 3] += 50


def flip(affine):
  affine[:, 0] *= -1


@pytest.mark.parametrize('change', [shear, move, flip])
def test_a_qform_and_an_sform_that_contradict_each_other(change, path):
  set_affine(path, change)
  with pytest.raises(ScanError, match=r'qform and its sform|by pixdim'):
    scan_lib.open_scan(path)


def test_an_sform_of_other_voxel_sizes(path):
  set_affine(path, lambda affine: np.multiply(affine[:, :3], 2, out=affine[:, :3]))
  set_field(path, 252, '<2h', 0, 1)
  with pytest.raises(ScanError, match=r'by pixdim, but .* by the sform'):
    scan_lib.open_scan(path)


@pytest.mark.parametrize('codes', [(1, 0), (0, 1), (1, 1), (2, 1), (1, 4)])
def test_a_qform_and_an_sform_that_agree(codes, fake, path):
  set_field(path, 252, '<2h', *codes)
  scan = scan_lib.open_scan(path)
  np.testing.assert_allclose(scan.grid.spacing_xyz_mm, fake.spacing_xyz_mm, rtol=1e-5)


@pytest.mark.parametrize(
  ('slope', 'intercept'), [(0, 100), (float('inf'), 0), (1, float('nan'))]
)
def test_scales_that_itk_reads_in_another_way(slope, intercept, path):
  set_field(path, 112, '<2f', slope, intercept)
  with pytest.raises(ScanError, match='scl_slope'):
    scan_lib.open_scan(path)
