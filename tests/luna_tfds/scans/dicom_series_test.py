import os

import fake_data
import numpy as np
import pytest

from luna_tfds.errors import ScanError
from luna_tfds.scans import scan as scan_lib


@pytest.fixture
def fake():
  return fake_data.make_scan(3)


def text_of(numbers):
  return '\\'.join(f'{number:.6f}' for number in numbers)


def shift(offset_of):
  """Returns a change of tags that moves slice k by `offset_of(k)` mm."""

  def change(k, tags):
    position = np.array(tags['0020|0032'].split('\\'), float)
    tags['0020|0032'] = text_of(position + offset_of(k))

  return change


def replace_bytes(path, old, new):
  content = path.read_bytes()
  assert content.count(old) == 1
  path.write_bytes(content.replace(old, new))


def slice_files(folder):
  return sorted(folder.glob('*.dcm'))


def test_a_tilted_gantry(fake, tmp_path):
  # 0.3 mm for each slice of 1.5 mm: 6.9 mm at the last one.
  folder = fake_data.write_dicom(
    tmp_path / 'a', fake, change=shift(lambda k: (0, 0.3 * k, 0))
  )
  with pytest.raises(ScanError, match=r'up to 6\.9 mm, as by a gantry tilted by 11\.3'):
    scan_lib.open_scan(folder)


def test_a_tilted_gantry_as_scanners_describe_it(fake, tmp_path):
  # The slices are inclined, and the table moves along z.
  angle = np.deg2rad(5)

  def change(k, tags):
    tags['0020|0037'] = text_of((1, 0, 0, 0, np.cos(angle), np.sin(angle)))

  folder = fake_data.write_dicom(tmp_path / 'a', fake, change=change)
  with pytest.raises(ScanError, match=r'gantry tilted by 5 degrees'):
    scan_lib.open_scan(folder)


@pytest.mark.parametrize('modality', ['MR', 'PT', 'OT'])
@pytest.mark.parametrize('changed', [range(100), [3]])
def test_a_series_of_another_modality(modality, changed, fake, tmp_path):
  def change(k, tags):
    if k in changed:
      tags['0008|0060'] = modality

  folder = fake_data.write_dicom(tmp_path / 'a', fake, change=change)
  with pytest.raises(ScanError, match=f'modality of the series is {modality}, not CT'):
    scan_lib.open_scan(folder)


def test_one_slice_that_is_shifted(fake, tmp_path):
  folder = fake_data.write_dicom(
    tmp_path / 'a', fake, change=shift(lambda k: (2.0 * (k == 9), 0, 0))
  )
  with pytest.raises(ScanError, match=r'shifted against each other by up to 2 mm'):
    scan_lib.open_scan(folder)


def test_rounded_positions_are_accepted(fake, tmp_path):
  rng = np.random.default_rng(0)
  folder = fake_data.write_dicom(
    tmp_path / 'a', fake, change=shift(lambda k: rng.uniform(-0.02, 0.02, 3))
  )
  np.testing.assert_array_equal(scan_lib.open_scan(folder).read(), fake.voxels)


def test_a_slice_without_a_header(fake, tmp_path):
  folder = fake_data.write_dicom(tmp_path / 'a', fake)
  path = slice_files(folder)[2]
  path.write_bytes(path.read_bytes()[132:])
  with pytest.raises(ScanError, match='cannot be read as a slice of the series'):
    scan_lib.open_scan(folder)


def test_slices_without_headers(fake, tmp_path):
  folder = fake_data.write_dicom(tmp_path / 'a', fake)
  for path in slice_files(folder):
    path.write_bytes(path.read_bytes()[132:])
  with pytest.raises(ScanError, match='found 0 '):
    scan_lib.open_scan(folder)


@pytest.mark.parametrize(
  ('tag', 'unknown_tag', 'name'),
  [
    (b'\x20\x00\x32\x00', b'\x20\x00\x34\x00', 'ImagePositionPatient'),
    (b'\x20\x00\x37\x00', b'\x20\x00\x38\x00', 'ImageOrientationPatient'),
    (b'\x28\x00\x30\x00', b'\x28\x00\x33\x00', 'PixelSpacing'),
  ],
  ids=['position', 'orientation', 'pixel_spacing'],
)
@pytest.mark.parametrize('in_all_slices', [True, False])
def test_a_series_without_geometry(
  tag, unknown_tag, name, in_all_slices, fake, tmp_path
):
  folder = fake_data.write_dicom(tmp_path / 'a', fake)
  for path in slice_files(folder) if in_all_slices else slice_files(folder)[5:6]:
    replace_bytes(path, tag, unknown_tag)
  with pytest.raises(ScanError, match=f'{name} must be . numbers, found ""'):
    scan_lib.open_scan(folder)


def test_slices_with_different_orientations(fake, tmp_path):
  def change(k, tags):
    if k >= 12:
      tags['0020|0037'] = '1\\0\\0\\0\\0.999391\\0.034899'

  folder = fake_data.write_dicom(tmp_path / 'a', fake, change=change)
  with pytest.raises(ScanError, match=r'slices .* have different orientations'):
    scan_lib.open_scan(folder)


def test_slices_with_different_pixel_spacings(fake, tmp_path):
  folder = fake_data.write_dicom(tmp_path / 'a', fake)
  replace_bytes(slice_files(folder)[5], b'.8\\.7 ', b'.8\\.71')
  with pytest.raises(ScanError, match=r'slices .* have different pixel spacings'):
    scan_lib.open_scan(folder)


def test_a_missing_slice(fake, tmp_path):
  slices = [k for k in range(24) if k != 11]
  folder = fake_data.write_dicom(tmp_path / 'a', fake, slices)
  with pytest.raises(ScanError, match=r'slices are missing.* are 1\.5 to 3 mm'):
    scan_lib.open_scan(folder)


def test_a_distance_that_changes_in_the_middle_of_the_scan(fake, tmp_path):
  # From 1.5 to 1.8 mm: the slice in the middle would be misplaced by 1.8 mm.
  folder = fake_data.write_dicom(
    tmp_path / 'a', fake, change=shift(lambda k: (0, 0, 0.3 * max(0, k - 12)))
  )
  with pytest.raises(ScanError, match=r'unevenly spaced.* are 1\.5 to 1\.8 mm'):
    scan_lib.open_scan(folder)


def test_one_slice(fake, tmp_path):
  folder = fake_data.write_dicom(tmp_path / 'a', fake, [3])
  with pytest.raises(ScanError, match='the series has one file'):
    scan_lib.open_scan(folder)


def test_a_folder_without_dicom(tmp_path):
  with pytest.raises(ScanError, match='must hold one DICOM series; found 0'):
    scan_lib.open_scan(tmp_path)


def test_a_folder_with_two_series(fake, tmp_path):
  fake_data.write_dicom(tmp_path / 'a', fake, series='1.2.3.4')
  folder = fake_data.write_dicom(tmp_path / 'a', fake, series='1.2.3.5')
  with pytest.raises(ScanError, match='must hold one DICOM series; found 2'):
    scan_lib.open_scan(folder)


@pytest.mark.parametrize(
  'damage',
  [
    lambda data: data[:-1],
    lambda data: data[:-3000],
    lambda data: data[:200],
    lambda data: b'',
    lambda data: b'x' * len(data),
  ],
  ids=['last_byte', 'pixels', 'header', 'empty', 'garbage'],
)
@pytest.mark.parametrize('position', [0, 11, 23])
def test_a_damaged_slice(damage, position, fake, tmp_path):
  folder = fake_data.write_dicom(tmp_path / 'a', fake)
  path = folder / f'1.2.3.4_{(position * 7) % 100:02d}.dcm'
  path.write_bytes(damage(path.read_bytes()))
  with pytest.raises(
    ScanError,
    match=r'\.dcm: (cannot be read as a slice|its transfer syntax|is damaged)',
  ):
    scan_lib.open_scan(folder)


def test_files_that_are_no_slices_are_ignored(fake, tmp_path):
  folder = fake_data.write_dicom(tmp_path / 'a', fake)
  for name in ('annotations.xml', 'LICENSE', '.DS_Store', 'DICOMDIR'):
    (folder / name).write_text('text')
  (folder / 'deeper').mkdir()
  np.testing.assert_array_equal(scan_lib.open_scan(folder).read(), fake.voxels)


@pytest.mark.parametrize('syntax', [b'1.2.840.10008.1.2.5', b'1.2.840.10008.9.9.9'])
def test_compressed_pixels_are_refused(syntax, fake, tmp_path):
  folder = fake_data.write_dicom(tmp_path / 'a', fake)
  for path in slice_files(folder):
    # The value has an even length.
    old = b'UI\x12\x001.2.840.10008.1.2\x00'
    replace_bytes(path, old, b'UI\x14\x00' + syntax + b'\0')
  with pytest.raises(ScanError, match=r'transfer syntax is 1\.2\.840'):
    scan_lib.open_scan(folder)


def test_a_named_pipe_in_the_folder(fake, tmp_path):
  folder = fake_data.write_dicom(tmp_path / 'a', fake)
  os.mkfifo(folder / 'pipe.dcm')
  with pytest.raises(ScanError, match=r'pipe\.dcm: not a file'):
    scan_lib.open_scan(folder)


def test_a_file_name_that_is_not_utf8(fake, tmp_path):
  folder = fake_data.write_dicom(tmp_path / 'a', fake)
  slice_files(folder)[0].rename(folder / os.fsdecode(b'\xe4.dcm'))
  with pytest.raises(ScanError, match='a file name that is not valid UTF-8'):
    scan_lib.open_scan(folder)


def test_a_message_with_bytes_of_a_file_can_be_printed(fake, tmp_path):
  def change(k, tags):
    tags['0028|1052'], tags['0028|1053'] = '0', '10' if k else '12'

  folder = fake_data.write_dicom(tmp_path / 'a', fake, change=change)
  for path in slice_files(folder):
    slope = b'\x28\x00\x53\x10\x02\x00\x00\x00'
    data = path.read_bytes()
    assert slope in data
    path.write_bytes(data.replace(slope + b'12', slope + b'1\x80'))
  with pytest.raises(ScanError, match='different values of Rescale') as raised:
    scan_lib.open_scan(folder)
  str(raised.value).encode()


@pytest.mark.parametrize('tag', ['0028|1052', '0028|1053'])
def test_slices_with_different_scales(tag, fake, tmp_path):
  def change(k, tags):
    tags['0028|1052'], tags['0028|1053'] = '0', '1'
    if k:
      tags[tag] = '2'

  folder = fake_data.write_dicom(tmp_path / 'a', fake, change=change)
  with pytest.raises(ScanError, match='different values of Rescale'):
    scan_lib.open_scan(folder)
