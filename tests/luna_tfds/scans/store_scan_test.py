"""Scans in a store give the voxels of the same scans on disk."""

import collections
import tempfile

import fake_data
import fsspec
import numpy as np
import pytest

from luna_tfds import geometry
from luna_tfds.errors import ScanError
from luna_tfds.files import atomic_files
from luna_tfds.files import store_path
from luna_tfds.scans import scan as scan_lib


@pytest.fixture
def root(memory_url):
  return store_path.as_path(memory_url)


def upload(source, target):
  """Copies a file, or the files of a folder, to a store; returns the target."""
  files = source.iterdir() if source.is_dir() else [source]
  for path in files:
    name = target / path.name if source.is_dir() else target
    atomic_files.copy_file(path, name)
  return target


@pytest.fixture(autouse=True)
def temporary(tmp_path, monkeypatch):
  """The folder for temporary files, which must be empty at the end."""
  folder = tmp_path / 'temporary'
  folder.mkdir()
  monkeypatch.setattr(tempfile, 'tempdir', str(folder))
  yield folder
  assert not list(folder.iterdir())


@pytest.mark.parametrize('suffix', ['.mhd', '.mha', '.nii', '.nii.gz', 'DICOM'])
@pytest.mark.parametrize('compressed', [False, True])
def test_the_voxels_are_those_of_a_local_scan(suffix, compressed, tmp_path, root):
  fake = fake_data.make_scan(3, flips=(True, True, False), compressed=compressed)
  if suffix == 'DICOM':
    local = fake_data.write_dicom(tmp_path / 'series', fake_data.make_scan(3))
    stored = upload(local, root / 'series')
  else:
    local = fake.write(tmp_path / 'subset0', suffix)
    stored = upload(local.parent, root / 'subset0') / local.name
  expected, scan = scan_lib.open_scan(local), scan_lib.open_scan(str(stored))
  assert scan.path == stored
  assert scan.grid == expected.grid
  np.testing.assert_array_equal(scan.read(), expected.read())
  boxes = [geometry.Box((1, 2, 3), (2, 5, 4)), geometry.Box((20, 0, 0), (1, 40, 1))]
  for got, wanted in zip(
    scan.read_regions(boxes), expected.read_regions(boxes), strict=True
  ):
    np.testing.assert_array_equal(got, wanted)
  assert list(scan.byte_ranges(boxes)) == list(expected.byte_ranges(boxes))


@pytest.mark.parametrize('suffix', ['.mha', '.nii.gz', 'DICOM'])
def test_a_scan_that_is_opened_to_read_is_transferred_once(
  suffix, tmp_path, root, monkeypatch
):
  fake = fake_data.make_scan(3)
  if suffix == 'DICOM':
    local = fake_data.write_dicom(tmp_path / 'series', fake)
    files = list(local.iterdir())
  else:
    local = fake.write(tmp_path / 'a', suffix)
    files = [local]
  stored = upload(local, root / local.name)
  counts = collections.Counter()

  def counted(method):
    def call(store, path, *args, **kwargs):
      counts[method.__name__] += 1
      return method(store, path, *args, **kwargs)

    return call

  store = type(fsspec.filesystem('memory'))
  for name in ('get_file', 'cat_file'):
    monkeypatch.setattr(store, name, counted(getattr(store, name)))
  with scan_lib.opened_scan(str(stored)) as scan:
    boxes = [geometry.Box((1, 2, 3), (2, 5, 4))]
    for _ in range(2):
      (got,) = scan.read_regions(boxes)
  if suffix == '.mha':
    assert counts['get_file'] == 0
  else:
    assert counts['get_file'] == len(files)
    assert counts['cat_file'] == 0
  (expected,) = scan_lib.open_scan(local).read_regions(boxes)
  np.testing.assert_array_equal(got, expected)


def test_an_error_in_the_block_names_the_url(tmp_path, root):
  local = fake_data.make_scan(3).write(tmp_path, '.nii.gz')
  local.write_bytes(local.read_bytes()[:-5])
  stored = upload(local, root / local.name)
  with (
    pytest.raises(ScanError) as info,
    scan_lib.opened_scan(stored) as scan,
  ):
    scan.read()
  assert str(info.value).startswith(f'{stored}: ')
  assert 'luna16-temporary' not in str(info.value)


def test_a_missing_scan(root):
  with (
    pytest.raises(ScanError, match=r'memory://bucket/a\.nii: no such file'),
    scan_lib.opened_scan(root / 'a.nii'),
  ):
    pass
  with pytest.raises(ScanError, match=r'memory://bucket/a\.mhd: no such file'):
    scan_lib.open_scan(root / 'a.mhd')


@pytest.mark.parametrize('compressed', [False, True])
def test_an_error_names_the_url(compressed, tmp_path, root):
  local = fake_data.make_scan(3, compressed=compressed).write(tmp_path / 'a')
  data = local.with_suffix('.zraw' if compressed else '.raw')
  fake_data.truncate(data, 10)
  stored = upload(local.parent, root / 'a') / local.name
  with pytest.raises(ScanError) as info:
    scan_lib.open_scan(stored).read()
  assert str(info.value).startswith(f'{stored}: ')
  assert 'truncated' in str(info.value)
  assert str(tmp_path) not in str(info.value)


def test_an_error_of_a_temporary_copy_names_the_url(tmp_path, root):
  local = tmp_path / 'a.nii'
  local.write_bytes(b'x' * 500)
  stored = upload(local, root / 'a.nii')
  with pytest.raises(ScanError) as info:
    scan_lib.open_scan(stored)
  assert str(info.value).startswith(f'{stored}: ')
  assert 'luna16-temporary' not in str(info.value)
