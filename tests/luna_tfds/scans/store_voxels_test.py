import hypothesis
from hypothesis import strategies as st
import numpy as np
import pytest

from luna_tfds import geometry
from luna_tfds.files import store_path
from luna_tfds.files.store_requests import StoreError
from luna_tfds.scans import store_voxels
from luna_tfds.scans.store_voxels import StoreVoxels

MAX_GAP = store_voxels.MAX_GAP_BYTES


@pytest.fixture
def path(memory_url):
  return store_path.as_path(memory_url) / 'a.raw'


@pytest.fixture
def ranges(monkeypatch):
  """The ranges that are read."""
  read_ranges, ranges = store_path.StorePath.read_ranges, []

  def recorded(path, wanted):
    ranges.extend(wanted)
    return read_ranges(path, wanted)

  monkeypatch.setattr(store_path.StorePath, 'read_ranges', recorded)
  return ranges


@hypothesis.settings(
  suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture]
)
@hypothesis.given(data=st.data(), offset=st.integers(0, 3))
def test_a_region_equals_the_slice_of_the_array(data, offset, path, monkeypatch):
  for name in ('MAX_GAP_BYTES', 'BATCH_BYTES', 'MAX_RANGE_BYTES'):
    monkeypatch.setattr(store_voxels, name, data.draw(st.sampled_from([1, 20, 10**6])))
  dtype = np.dtype(data.draw(st.sampled_from(['u1', '<i2', '>i2', '<f8'])))
  shape = data.draw(st.tuples(*[st.integers(1, 6)] * 3))
  array = np.arange(np.prod(shape)).reshape(shape).astype(dtype)
  path.write_bytes(b'x' * offset + array.tobytes())
  boxes = []
  for _ in range(data.draw(st.integers(0, 4))):
    start = [data.draw(st.integers(0, n)) for n in shape]
    size = [data.draw(st.integers(0, n - s)) for n, s in zip(shape, start)]
    boxes.append(geometry.Box(tuple(start), tuple(size)))
  voxels = StoreVoxels(path, offset, shape, dtype)
  for box, region in zip(boxes, voxels.read_regions(boxes), strict=True):
    assert region.shape == box.size_zyx
    np.testing.assert_array_equal(region, array[box.slices()])


def test_neighbouring_ranges_are_merged():
  ranges = [(10, 20), (5, 12), (20 + MAX_GAP, 30 + MAX_GAP), (2 * MAX_GAP + 31, 10**9)]
  expected = [(5, 30 + MAX_GAP), (2 * MAX_GAP + 31, 10**9)]
  assert store_voxels.merge_ranges(ranges[::-1]) == expected
  assert store_voxels.merge_ranges([]) == []


def test_only_the_rows_of_a_region_are_read(path, ranges):
  shape = (3, 300, 400)
  path.write_bytes(bytes(2 * 3 * 300 * 400))
  voxels = StoreVoxels(path, 0, shape, np.dtype('<i2'))
  (region,) = voxels.read_regions([geometry.Box((0, 10, 5), (3, 4, 6))])
  assert region.shape == (3, 4, 6)
  first = 2 * (10 * 400 + 5)
  num_bytes = 2 * (3 * 400 + 6)
  assert ranges == [
    (first + k * 240_000, first + k * 240_000 + num_bytes) for k in range(3)
  ]


def test_a_large_region_is_read_in_pieces(path, ranges):
  shape = (1, 2**12, 2**12)
  path.write_bytes(bytes(2 * 2**24))
  voxels = StoreVoxels(path, 0, shape, np.dtype('<i2'))
  (region,) = voxels.read_regions([geometry.Box((0, 0, 0), shape)])
  assert region.shape == shape
  assert len(ranges) == 4


def test_a_truncated_object_is_an_error(path):
  path.write_bytes(bytes(99))
  voxels = StoreVoxels(path, 0, (1, 5, 10), np.dtype('<i2'))
  with pytest.raises(StoreError, match=r'memory://bucket/a\.raw: ends before byte 100'):
    list(voxels.read_regions([geometry.Box((0, 0, 0), (1, 5, 10))]))
