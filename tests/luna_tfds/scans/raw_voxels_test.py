import hypothesis
from hypothesis import strategies as st
import numpy as np
import pytest
import SimpleITK as sitk

from luna_tfds import geometry
from luna_tfds.errors import ScanError
from luna_tfds.scans import scan as scan_lib
from luna_tfds.scans.raw_voxels import RawVoxels

SHAPE_ZYX = (5, 6, 7)

ELEMENT_TYPES = {
  'MET_CHAR': 'i1',
  'MET_UCHAR': 'u1',
  'MET_SHORT': 'i2',
  'MET_USHORT': 'u2',
  'MET_INT': 'i4',
  'MET_UINT': 'u4',
  'MET_LONG': 'i4',
  'MET_ULONG': 'u4',
  'MET_LONG_LONG': 'i8',
  'MET_ULONG_LONG': 'u8',
  'MET_FLOAT': 'f4',
  'MET_DOUBLE': 'f8',
}


@hypothesis.given(data=st.data(), offset=st.integers(0, 3))
def test_a_region_equals_the_slice_of_the_array(data, offset, tmp_path_factory):
  dtype = np.dtype(data.draw(st.sampled_from(['u1', '<i2', '>i2', '<f8'])))
  shape = data.draw(st.tuples(*[st.integers(1, 6)] * 3))
  array = np.arange(np.prod(shape)).reshape(shape).astype(dtype)
  path = tmp_path_factory.mktemp('raw') / 'a.raw'
  path.write_bytes(b'x' * offset + array.tobytes())
  voxels = RawVoxels(path, offset, shape, dtype)
  boxes = []
  for _ in range(3):
    start = [data.draw(st.integers(0, n)) for n in shape]
    size = [data.draw(st.integers(0, n - s)) for n, s in zip(shape, start)]
    boxes.append(geometry.Box(tuple(start), tuple(size)))
  for box, region in zip(boxes, voxels.read_regions(boxes), strict=True):
    assert region.shape == box.size_zyx
    np.testing.assert_array_equal(region, array[box.slices()])
    ranges = voxels.byte_ranges(box)
    assert len(ranges) == (box.size_zyx[0] if box.num_voxels else 0)
    content = path.read_bytes()
    for (start, num_bytes), expected in zip(ranges, array[box.slices()], strict=False):
      part = content[start : start + num_bytes]
      first, last = expected.ravel()[0], expected.ravel()[-1]
      assert part.startswith(first.tobytes())
      assert part.endswith(last.tobytes())


@pytest.mark.parametrize('msb_field', ['BinaryDataByteOrderMSB', 'ElementByteOrderMSB'])
@pytest.mark.parametrize('msb', ['True', 'False', '1', None])
@pytest.mark.parametrize('element_type', ELEMENT_TYPES)
def test_reads_every_type_and_byte_order_as_simpleitk_does(
  element_type, msb, msb_field, tmp_path
):
  big_endian = msb in ('True', '1')
  dtype = np.dtype(ELEMENT_TYPES[element_type]).newbyteorder('>' if big_endian else '<')
  voxels = np.random.default_rng(0).integers(-100, 100, SHAPE_ZYX)
  (tmp_path / 'a.raw').write_bytes(voxels.astype(dtype).tobytes())
  path = tmp_path / 'a.mhd'
  path.write_text(
    'ObjectType = Image\nNDims = 3\nBinaryData = True\n'
    + (f'{msb_field} = {msb}\n' if msb else '')
    + 'Offset = 1 2 3\nElementSpacing = 0.5 0.6 2\nDimSize = 7 6 5\n'
    f'ElementType = {element_type}\nElementDataFile = a.raw\n'
  )
  scan = scan_lib.open_scan(path)
  assert scan.bytes_per_voxel == dtype.itemsize
  by_simpleitk = sitk.GetArrayFromImage(sitk.ReadImage(str(path)))
  found = scan.read()
  assert found.dtype == np.int16
  np.testing.assert_array_equal(
    found, by_simpleitk.astype(np.float64).clip(-32768, 32767)
  )


@pytest.mark.parametrize(
  'missing_bytes', [1, 2 * 6 * 7 * 2], ids=['one byte', 'two slices']
)
def test_a_file_that_ends_too_early(missing_bytes, tmp_path):
  path = tmp_path / 'a.raw'
  path.write_bytes(bytes(5 * 6 * 7 * 2 - missing_bytes))
  voxels = RawVoxels(path, 0, SHAPE_ZYX, np.dtype('<i2'))
  first, last = geometry.Box((0, 0, 0), (2, 6, 7)), geometry.Box((4, 5, 6), (1, 1, 1))
  regions = voxels.read_regions([first, last])
  assert not next(regions).any()
  with pytest.raises(ScanError, match=r'a\.raw: truncated while it was read'):
    next(regions)


def test_a_file_that_is_missing(tmp_path):
  voxels = RawVoxels(tmp_path / 'a.raw', 0, SHAPE_ZYX, np.dtype('<i2'))
  with pytest.raises(ScanError, match=r'a\.raw: No such file'):
    list(voxels.read_regions([geometry.Box((0, 0, 0), (1, 1, 1))]))


def test_a_slice_of_which_the_system_reads_a_part(tmp_path, monkeypatch):
  from luna_tfds.scans import raw_voxels

  array = np.arange(5 * 6 * 7, dtype='<i2').reshape(SHAPE_ZYX)
  (tmp_path / 'a.raw').write_bytes(array.tobytes())
  pread = raw_voxels.os.pread
  monkeypatch.setattr(
    raw_voxels.os, 'pread', lambda fd, n, start: pread(fd, min(n, 5), start)
  )
  voxels = RawVoxels(tmp_path / 'a.raw', 0, SHAPE_ZYX, np.dtype('<i2'))
  box = geometry.Box((1, 0, 0), (2, 6, 7))
  (region,) = voxels.read_regions([box])
  np.testing.assert_array_equal(region, array[box.slices()])


def test_the_system_loads_the_next_regions_only(tmp_path, monkeypatch):
  from luna_tfds.scans import raw_voxels

  array = np.arange(5 * 6 * 7, dtype='<i2').reshape(SHAPE_ZYX)
  (tmp_path / 'a.raw').write_bytes(array.tobytes())
  calls = []
  pread = raw_voxels.os.pread
  monkeypatch.setattr(
    raw_voxels.os,
    'pread',
    lambda fd, n, start: (calls.append(('read', start)), pread(fd, n, start))[1],
  )
  monkeypatch.setattr(
    raw_voxels.os,
    'posix_fadvise',
    lambda fd, start, n, advice: calls.append((advice, start)),
  )
  monkeypatch.setattr(raw_voxels, '_BYTES_AHEAD', 3 * 14)
  voxels = RawVoxels(tmp_path / 'a.raw', 0, SHAPE_ZYX, np.dtype('<i2'))
  boxes = [geometry.Box((z, 0, 0), (1, 1, 7)) for z in range(5)]
  for box, region in zip(boxes, voxels.read_regions(boxes), strict=True):
    np.testing.assert_array_equal(region, array[box.slices()])
  random, next_use = raw_voxels.os.POSIX_FADV_RANDOM, raw_voxels.os.POSIX_FADV_WILLNEED
  assert calls == [
    (random, 0),
    *[(next_use, 84 * z) for z in range(4)],
    ('read', 0),
    (next_use, 84 * 4),
    *[('read', 84 * z) for z in range(1, 5)],
  ]


def test_a_system_that_takes_no_advice(tmp_path, monkeypatch):
  from luna_tfds.scans import raw_voxels

  monkeypatch.setattr(raw_voxels, '_HAS_FADVISE', False)
  monkeypatch.delattr(raw_voxels.os, 'posix_fadvise')
  array = np.arange(5 * 6 * 7, dtype='<i2').reshape(SHAPE_ZYX)
  (tmp_path / 'a.raw').write_bytes(array.tobytes())
  voxels = RawVoxels(tmp_path / 'a.raw', 0, SHAPE_ZYX, np.dtype('<i2'))
  box = geometry.Box((1, 2, 3), (2, 2, 2))
  (region,) = voxels.read_regions([box])
  np.testing.assert_array_equal(region, array[box.slices()])
