import gzip

import fake_data
import numpy as np
import pytest

from luna_tfds import geometry
from luna_tfds import image_files
from luna_tfds import scan as scan_lib
from luna_tfds.errors import ScanError


@pytest.fixture
def fake():
  return fake_data.make_scan(3)


@pytest.fixture
def path(fake, tmp_path):
  return fake.write(tmp_path)


def test_truncated_raw(path):
  fake_data.truncate(path.with_suffix('.raw'), 2)
  with pytest.raises(
    ScanError, match=r'\.raw is truncated: 84478 bytes, expected 84480'
  ):
    scan_lib.open_scan(path)


def test_longer_raw(path):
  data_file = path.with_suffix('.raw')
  data_file.write_bytes(data_file.read_bytes() + b'\0\0')
  with pytest.raises(ScanError, match=r'\.raw is longer than its header says: 84482'):
    scan_lib.open_scan(path)


def test_missing_data_file(path):
  path.with_suffix('.raw').unlink()
  with pytest.raises(ScanError, match=r'its data file .*\.raw is missing'):
    scan_lib.open_scan(path)


@pytest.mark.parametrize(
  ('name', 'problem'),
  [
    ('LIST', 'must name one data file in the same folder'),
    ('LOCAL', 'must name one data file in the same folder'),
    ('slice%03d.raw 1 24 1', 'must name one data file in the same folder'),
    ('', 'must name one data file in the same folder'),
    ('../elsewhere.raw', "is outside the scan's folder"),
    ('deeper/../../elsewhere.raw', "is outside the scan's folder"),
    ('/etc/hostname', "is outside the scan's folder"),
    ('..\\elsewhere.raw', "is outside the scan's folder"),
  ],
)
def test_data_files_that_are_refused(name, problem, path):
  fake_data.edit_header(path, 'ElementDataFile', name)
  with pytest.raises(ScanError, match=problem) as error:
    scan_lib.open_scan(path)
  assert str(path) in str(error.value)


def test_a_data_file_outside_the_folder_is_refused_even_if_it_fits(fake, tmp_path):
  path = fake.write(tmp_path / 'subset0')
  path.with_suffix('.raw').rename(tmp_path / 'elsewhere.raw')
  fake_data.edit_header(path, 'ElementDataFile', '../elsewhere.raw')
  with pytest.raises(ScanError, match='refused'):
    scan_lib.open_scan(path)


@pytest.mark.parametrize(
  'damage',
  [
    lambda data: np.random.default_rng(1).bytes(len(data)),
    lambda data: data[: len(data) // 2],
    lambda data: data[:-1],
    lambda data: b'',
    lambda data: data[:9000] + bytes(40) + data[9040:],
  ],
  ids=['garbage', 'half', 'without_last_byte', 'empty', 'hole'],
)
@pytest.mark.parametrize('size_in_header', [True, False])
def test_damaged_zraw(damage, size_in_header, tmp_path):
  path = fake_data.make_scan(3, compressed=True).write(tmp_path)
  data_file = path.with_suffix('.zraw')
  data_file.write_bytes(damage(data_file.read_bytes()))
  if not size_in_header:
    lines = path.read_text().splitlines()
    path.write_text('\n'.join(s for s in lines if not s.startswith('CompressedDataS')))
  scan = scan_lib.open_scan(path)
  with pytest.raises(ScanError, match=r'1\.2\.826\.0\.3\.mhd: .*(damaged|truncated)'):
    scan.read()
  with pytest.raises(ScanError, match=r'damaged|truncated'):
    scan.read_region(geometry.Box((0, 0, 0), (1, 1, 1)))


def test_zraw_of_another_scan(tmp_path):
  path = fake_data.make_scan(3, compressed=True).write(tmp_path)
  other = fake_data.make_scan(4, shape_zyx=(24, 40, 43), compressed=True)
  other_file = other.write(tmp_path / 'other').with_suffix('.zraw')
  path.with_suffix('.zraw').write_bytes(other_file.read_bytes())
  with pytest.raises(
    ScanError, match='82560 bytes after decompression, expected 84480'
  ):
    scan_lib.open_scan(path).read()


@pytest.mark.parametrize('suffix', ['.nii', '.nii.gz'])
def test_truncated_nifti(suffix, fake, tmp_path):
  path = fake.write(tmp_path, suffix)
  fake_data.truncate(path, 20_000)
  with pytest.raises(
    ScanError, match=r'1\.2\.826\.0\.3\.nii.*(truncated|ended before)'
  ):
    scan_lib.open_scan(path).read()


def test_nifti_with_a_hole(fake, tmp_path):
  path = fake.write(tmp_path, '.nii.gz')
  content = bytearray(gzip.decompress(path.read_bytes()))
  packed = bytearray(gzip.compress(bytes(content)))
  packed[-5000:-4900] = bytes(100)
  path.write_bytes(packed)
  with pytest.raises(ScanError):
    scan_lib.open_scan(path).read()


def test_scaled_nifti_is_accepted(tmp_path):
  # Stored as int16 with a slope: ITK reads floats, but the file has two bytes a voxel.
  fake = fake_data.make_scan(3)
  path = fake.write(tmp_path, '.nii')
  content = bytearray(path.read_bytes())
  content[112:116] = np.float32(0.5).tobytes()
  path.write_bytes(content)
  expected = np.rint(fake.voxels * 0.5)
  np.testing.assert_array_equal(scan_lib.open_scan(path).read(), expected)


def test_header_with_crlf(path):
  path.write_bytes(path.read_bytes().replace(b'\n', b'\r\n'))
  header = image_files.read_meta_header(path)
  assert header['DimSize'] == '44 40 24'
  assert image_files.data_file_of(path) == path.with_suffix('.raw')
