import gzip
import os
import tracemalloc
import zlib

import fake_data
import numpy as np
import pytest

from luna_tfds import geometry
from luna_tfds.errors import ScanError
from luna_tfds.scans import image_files
from luna_tfds.scans import meta_image_files
from luna_tfds.scans import scan as scan_lib


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
    ('LIST.raw', 'must name one data file in the same folder'),
    ('LOCAL', 'must name one data file in the same folder'),
    ('local', 'must name one data file in the same folder'),
    ('slice%03d.raw 1 24 1', 'must name one data file in the same folder'),
    ('', 'has no ElementDataFile'),
    ('../elsewhere.raw', "is outside the scan's folder"),
    ('deeper/../../elsewhere.raw', "is outside the scan's folder"),
    ('deeper/elsewhere.raw', "is outside the scan's folder"),
    ('/etc/hostname', "is outside the scan's folder"),
    ('..\\elsewhere.raw', "is outside the scan's folder"),
    ('..', "is outside the scan's folder"),
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


def test_a_link_that_leaves_the_folder_is_refused(fake, tmp_path):
  path = fake.write(tmp_path / 'subset0')
  data_file = path.with_suffix('.raw')
  data_file.symlink_to(data_file.rename(tmp_path / 'elsewhere.raw'))
  with pytest.raises(ScanError, match='a link to a file outside the folder'):
    scan_lib.open_scan(path)


def test_a_loop_of_links(path):
  data_file = path.with_suffix('.raw')
  data_file.unlink()
  data_file.symlink_to(data_file.name)
  with pytest.raises(ScanError, match=r'1\.2\.826\.0\.3\.mhd: '):
    scan_lib.open_scan(path)


@pytest.mark.parametrize('linked', ['folder', 'files'])
def test_links_to_a_scan_are_followed(linked, fake, tmp_path):
  path = fake.write(tmp_path / 'store')
  folder = tmp_path / 'subset0'
  if linked == 'folder':
    folder.symlink_to(path.parent)
  else:
    folder.mkdir()
    for file in path.parent.iterdir():
      (folder / file.name).symlink_to(file)
  scan = scan_lib.open_scan(folder / path.name)
  np.testing.assert_array_equal(scan.read(), fake.voxels)


@pytest.mark.parametrize('position', ['before', 'after'])
def test_two_data_files(position, path):
  text = path.read_text()
  other = 'ElementDataFile = /etc/hostname\n'
  path.write_text(other + text if position == 'before' else text + other)
  with pytest.raises(ScanError, match='must be the last line'):
    scan_lib.open_scan(path)


@pytest.mark.parametrize(
  ('old', 'new', 'problem'),
  [
    ('ElementDataFile =', 'ElementDataFile :', 'expected lines "Key = value"'),
    ('NDims =', 'NDims :', 'expected lines "Key = value"'),
    ('NDims', 'some text\nNDims', 'expected lines .* found "some text"'),
    ('NDims', '\x00NDims', 'expected lines "Key = value"'),
    ('NDims', f'Comment = {"x" * 600}\nNDims', 'expected lines "Key = value"'),
    ('DimSize', 'DimSize = 40 44 24\nDimSize', 'DimSize is in its header twice'),
    ('Offset', 'Position = 1 2 3\nOffset', 'has both Offset and Position'),
    ('Offset', 'Rotation = 1 0 0 0 1 0 0 0 1\nOffset', 'both TransformMatrix and Rot'),
    ('Offset', 'NoOffset', 'has no Offset'),
    ('ElementSpacing', 'ElementSize', 'has no ElementSpacing'),
    ('DimSize', 'Size', 'has no DimSize'),
    ('ElementType', 'Type', 'has no ElementType'),
    ('NDims = 3\n', '', 'has no NDims'),
    ('Offset = -31.5', 'Offset = nan', 'Offset must be 3 numbers, found "nan 12'),
    ('Offset = -31.5', 'Offset = inf', 'Offset must be 3 numbers'),
    ('Offset = -31.5', 'Offset = -31,5', 'Offset must be 3 numbers, found "-31,5 12'),
    ('Offset = -31.5', 'Offset = -3_1.5', 'Offset must be 3 numbers'),
    ('Offset = -31.5', 'Offset =', 'Offset must be 3 numbers'),
    (
      'ElementSpacing = 0',
      'ElementSpacing = nan 0',
      'ElementSpacing must be 3 numbers',
    ),
    ('ElementSpacing = 0', 'ElementSpacing = -0', 'spacing must be positive'),
    ('TransformMatrix = 1', 'TransformMatrix = nan', 'must be 9 numbers'),
    ('DimSize = 44', 'DimSize = 44.7', 'DimSize must be whole numbers'),
    ('DimSize = 44', 'DimSize = 2 44', 'DimSize must be 3 numbers'),
    ('DimSize = 44', 'DimSize = -44', 'the scan has no voxels'),
    ('DimSize', 'DistanceUnits = cm\nDimSize', 'DistanceUnits = cm is not supported'),
    ('DimSize', 'DistanceUnits = um\nDimSize', 'DistanceUnits = um is not supported'),
    ('BinaryData = True', 'BinaryData = False', 'voxels as text'),
    ('CompressedData = False', 'CompressedData = no', 'must be True or False'),
    ('ObjectType = Image', 'ObjectType = Tube', 'not an image: ObjectType = Tube'),
    ('MET_SHORT', 'MET_STRING', 'ElementType = MET_STRING is not supported'),
    ('MET_SHORT', 'short', 'ElementType = short is not supported'),
    (
      'BinaryDataByteOrderMSB = False',
      'BinaryDataByteOrderMSB = False\nElementByteOrderMSB = False',
      'has both BinaryDataByteOrderMSB and ElementByteOrderMSB',
    ),
    ('DimSize', 'HeaderSize = 100\nDimSize', 'HeaderSize other than 0'),
    ('DimSize', 'HeaderSize = -1\nDimSize', 'HeaderSize other than 0'),
    (
      'DimSize',
      'ElementToIntensityFunctionSlope = 2\nDimSize',
      'ElementToIntensityFunctionSlope other than 1',
    ),
  ],
)
def test_unusual_headers_are_refused(old, new, problem, path):
  text = path.read_text()
  assert text.count(old) >= 1
  path.write_text(text.replace(old, new, 1))
  with pytest.raises(ScanError, match=problem) as error:
    scan_lib.open_scan(path)
  assert str(error.value).startswith(f'{path}: ')
  assert '\n' not in str(error.value)


def test_harmless_variants_of_a_header_are_accepted(fake, path):
  text = path.read_text()
  text = text.replace('ElementSpacing = ', '\n  ElementSpacing\t=\t')
  text = text.replace('NDims = 3', 'NDims=3\n0008|0060 = CT\nComment = 10:30 = late')
  text = text.replace('Offset', 'Position').replace('-31.5', '-3.15e1')
  path.write_text(text)
  scan = scan_lib.open_scan(path)
  np.testing.assert_array_equal(scan.read(), fake.voxels)
  np.testing.assert_allclose(scan.grid.origin_xyz_mm, fake.origin_xyz_mm)


@pytest.mark.parametrize('name', ['a b.raw', 'ä é.raw', os.fsdecode(b'\xe4.raw')])
def test_names_of_data_files(name, fake, path):
  path.with_suffix('.raw').rename(path.with_name(name))
  content = path.read_bytes().replace(b'1.2.826.0.3.raw', os.fsencode(name))
  path.write_bytes(content)
  np.testing.assert_array_equal(scan_lib.open_scan(path).read(), fake.voxels)
  path.with_name(name).unlink()
  with pytest.raises(ScanError, match='is missing') as error:
    scan_lib.open_scan(path)
  assert str(error.value).encode()


def test_a_named_pipe_as_data_file(path):
  path.with_suffix('.raw').unlink()
  os.mkfifo(path.with_suffix('.raw'))
  with pytest.raises(ScanError, match='is missing or not a file'):
    scan_lib.open_scan(path)


def test_a_detached_mha(fake, tmp_path):
  path = fake.write(tmp_path).rename(tmp_path / 'scan.mha')
  with pytest.raises(ScanError, match='must hold its voxels itself'):
    scan_lib.open_scan(path)


DAMAGE = {
  'garbage': lambda data: np.random.default_rng(1).bytes(len(data)),
  'half': lambda data: data[: len(data) // 2],
  'without_last_byte': lambda data: data[:-1],
  'empty': lambda data: b'',
  'hole': lambda data: data[:9000] + bytes(40) + data[9040:],
}


@pytest.mark.parametrize('damage', DAMAGE)
@pytest.mark.parametrize('size_in_header', [True, False])
def test_damaged_zraw(damage, size_in_header, tmp_path):
  path = fake_data.make_scan(3, compressed=True).write(tmp_path)
  data_file = path.with_suffix('.zraw')
  data_file.write_bytes(DAMAGE[damage](data_file.read_bytes()))
  if size_in_header:
    fake_data.edit_header(path, 'CompressedDataSize', data_file.stat().st_size)
  else:
    remove_line(path, b'CompressedDataSize')
  scan = scan_lib.open_scan(path)
  with pytest.raises(ScanError, match=r'1\.2\.826\.0\.3\.mhd: .*(damaged|truncated)'):
    scan.read()
  with pytest.raises(ScanError, match=r'damaged|truncated'):
    list(scan.read_regions([geometry.Box((0, 0, 0), (1, 1, 1))]))


@pytest.mark.parametrize('damage', DAMAGE)
def test_damaged_compressed_mha(damage, tmp_path):
  path = fake_data.make_scan(3, compressed=True).write(tmp_path, '.mha')
  header, voxels = split_mha(path)
  path.write_bytes(header + DAMAGE[damage](voxels))
  with pytest.raises(ScanError, match=r'damaged|truncated'):
    scan_lib.open_scan(path).read()


@pytest.mark.parametrize('change', [lambda v: v[:-2], lambda v: v + b'xx'])
def test_uncompressed_mha_of_another_length(change, fake, tmp_path):
  path = fake.write(tmp_path, '.mha')
  header, voxels = split_mha(path)
  path.write_bytes(header + change(voxels))
  with pytest.raises(ScanError, match=r'is truncated|is longer'):
    scan_lib.open_scan(path)


def test_compressed_mha_without_a_size(tmp_path):
  path = fake_data.make_scan(3, compressed=True).write(tmp_path, '.mha')
  remove_line(path, b'CompressedDataSize')
  with pytest.raises(ScanError, match='CompressedDataSize is missing'):
    scan_lib.open_scan(path)


@pytest.mark.parametrize(
  ('difference', 'problem'),
  [(-1000, 'is longer than its header says'), (1000, 'is truncated')],
)
def test_zraw_of_another_size_than_stated(difference, problem, tmp_path):
  path = fake_data.make_scan(3, compressed=True).write(tmp_path)
  size = path.with_suffix('.zraw').stat().st_size
  fake_data.edit_header(path, 'CompressedDataSize', size + difference)
  with pytest.raises(ScanError, match=f'{problem}: {size} bytes'):
    scan_lib.open_scan(path)


def test_zraw_of_another_scan(tmp_path):
  path = fake_data.make_scan(3, compressed=True).write(tmp_path)
  other = fake_data.make_scan(4, shape_zyx=(24, 40, 43), compressed=True)
  other_path = other.write(tmp_path / 'other')
  other_path.with_suffix('.zraw').rename(path.with_suffix('.zraw'))
  remove_line(path, b'CompressedDataSize')
  with pytest.raises(
    ScanError, match='82560 bytes after decompression, expected 84480'
  ):
    scan_lib.open_scan(path).read()


@pytest.mark.parametrize('value', ['T', '1', 'true', 'TRUE', 't'])
def test_spellings_of_true(value, tmp_path):
  fake = fake_data.make_scan(3, compressed=True)
  path = fake.write(tmp_path)
  fake_data.edit_header(path, 'CompressedData', value)
  np.testing.assert_array_equal(scan_lib.open_scan(path).read(), fake.voxels)


@pytest.mark.parametrize('compress', [zlib.compress, gzip.compress])
def test_compression_formats(compress, tmp_path):
  fake = fake_data.make_scan(3, compressed=True)
  path = fake.write(tmp_path)
  store_compressed(path, compress(fake.voxels.tobytes()))
  np.testing.assert_array_equal(scan_lib.open_scan(path).read(), fake.voxels)


@pytest.mark.parametrize('compress', [zlib.compress, gzip.compress])
@pytest.mark.parametrize('first', [40_000, 84_480])
def test_several_compressed_streams(compress, first, tmp_path):
  fake = fake_data.make_scan(3, compressed=True)
  path = fake.write(tmp_path)
  voxels = fake.voxels.tobytes()
  store_compressed(path, compress(voxels[:first]) + compress(voxels[first:]))
  problem = 'several compressed streams' if first == 84_480 else 'truncated'
  with pytest.raises(ScanError, match=problem):
    scan_lib.open_scan(path).read()


@pytest.mark.parametrize('suffix', ['.mhd', '.nii.gz'])
def test_a_decompression_bomb_takes_no_memory(suffix, fake, tmp_path):
  path = fake.write(tmp_path, suffix)
  bomb = bytes(2**28)
  if suffix == '.mhd':
    fake_data.edit_header(path, 'CompressedData', 'True')
    path.with_suffix('.raw').write_bytes(zlib.compress(bomb, 1))
  else:
    path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes()) + bomb, 1))
  del bomb
  scan = scan_lib.open_scan(path)
  tracemalloc.start()
  try:
    with pytest.raises(ScanError, match='more than'):
      scan.read()
    assert tracemalloc.get_traced_memory()[1] < 2**22
  finally:
    tracemalloc.stop()


@pytest.mark.parametrize('suffix', ['.mhd', '.mha'])
def test_a_header_that_announces_a_huge_compressed_scan(suffix, tmp_path):
  path = fake_data.make_scan(3, compressed=True).write(tmp_path, suffix)
  content = path.read_bytes().replace(b'DimSize = 44 40 24', b'DimSize = 4096 4096 999')
  path.write_bytes(content)
  with pytest.raises(ScanError, match=r'33\.5 GB of voxels .* may have 4\.29 GB'):
    scan_lib.open_scan(path)


def test_header_with_crlf(path):
  path.write_bytes(path.read_bytes().replace(b'\n', b'\r\n'))
  header = meta_image_files.read_meta_header(path)
  assert header.grid.shape_zyx == (24, 40, 44)
  assert meta_image_files.data_file_of(path) == path.with_suffix('.raw')


def test_a_very_long_header_is_not_read_completely(path):
  with path.open('ab') as file:
    file.truncate(2**34)
  with pytest.raises(ScanError, match='must be the last line'):
    scan_lib.open_scan(path)


def remove_line(path, key):
  header, end, rest = path.read_bytes().partition(b'ElementDataFile')
  lines = header.splitlines(keepends=True)
  kept = [line for line in lines if not line.startswith(key)]
  assert len(kept) == len(lines) - 1
  path.write_bytes(b''.join(kept) + end + rest)


def split_mha(path):
  """Returns the header and the voxels of a `.mha`."""
  header, end, voxels = path.read_bytes().partition(b'ElementDataFile = LOCAL\n')
  return header + end, voxels


def store_compressed(path, data):
  path.with_suffix('.zraw').write_bytes(data)
  fake_data.edit_header(path, 'CompressedDataSize', len(data))


@pytest.mark.parametrize('units', ['mm', '?'])
def test_millimetres_may_be_stated(units, path):
  grid = scan_lib.open_scan(path).grid
  fake_data.edit_header(path, 'DistanceUnits', units)
  assert scan_lib.open_scan(path).grid == grid


def test_the_longest_line_of_a_header(path):
  """ITK reads lines of 500 bytes."""
  fake_data.edit_header(path, 'Comment', 'x' * (500 - len('Comment = ')))
  scan_lib.open_scan(path)
  fake_data.edit_header(path, 'Comment', 'x' * (501 - len('Comment = ')))
  with pytest.raises(ScanError, match='invalid header'):
    scan_lib.open_scan(path)


def test_the_longest_header(path):
  lines = path.read_text().splitlines(keepends=True)
  missing = 65536 - sum(map(len, lines))
  path.write_text('\n' * missing + ''.join(lines))
  scan_lib.open_scan(path)
  path.write_text('\n' * 70000 + ''.join(lines))
  with pytest.raises(ScanError, match='no ElementDataFile'):
    scan_lib.open_scan(path)


def test_the_largest_compressed_scan(path):
  image_files.check_size_of_compressed_scan(path, 4 * 2**30)
  with pytest.raises(ScanError, match=r'4\.29 GB.*store the scan uncompressed'):
    image_files.check_size_of_compressed_scan(path, 4 * 2**30 + 1)
