import errno
import io
import os
import pathlib
import pickle
import threading
import time

import pytest

from luna_tfds.errors import UsageError
from luna_tfds.files import atomic_files
from luna_tfds.files import store_path
from luna_tfds.files import store_requests


@pytest.fixture
def root(memory_url):
  return store_path.as_path(memory_url)


@pytest.mark.parametrize(
  ('url', 'parent', 'name'),
  [
    ('s3://bucket/a/b.tar.gz', 's3://bucket/a', 'b.tar.gz'),
    ('gs://bucket/a', 'gs://bucket', 'a'),
    ('S3://bucket//a/', 's3://bucket', 'a'),
    ('abfs://box@host.net/a/b', 'abfs://box@host.net/a', 'b'),
  ],
)
def test_a_url_has_the_parts_of_a_path(url, parent, name):
  path = store_path.as_path(url)
  assert isinstance(path, pathlib.Path)
  assert str(path.parent) == parent
  assert path.name == name
  assert str(path) == f'{parent}/{name}'
  assert path.with_name('c') == store_path.as_path(f'{parent}/c')
  assert str(path.relative_to(path.parent)) == name
  assert path.parent in path.parents
  assert pickle.loads(pickle.dumps(path)) == path
  assert {path: 1}[store_path.as_path(url)] == 1
  assert path.absolute() == path.resolve() == path.expanduser() == path


def test_a_local_path_stays_local():
  assert type(store_path.as_path('a/b')) is type(pathlib.Path('a/b'))
  assert store_path.as_path('/s3:/bucket') != store_path.as_path('s3://bucket')


def test_a_store_that_needs_arguments_is_a_usage_error():
  with pytest.raises(UsageError, match=r'webhdfs://: .*host'):
    store_path.as_path('webhdfs://a').exists()


@pytest.mark.parametrize('name', ['*', '?1', '[d]1', '[', 'a b', '~'])
def test_a_folder_whose_name_is_like_a_pattern_is_deleted_alone(root, name):
  others = {root / other / 'file' for other in ('d1', 'x', name + '2')}
  for path in (*others, root / name / 'file', root / name / 'sub' / '*'):
    path.write_bytes(b'')
  (root / name).rmtree()
  assert set(root.rglob('*')) == others


def test_an_unknown_store_is_a_usage_error():
  with pytest.raises(UsageError, match='nostore://: not a store that fsspec knows'):
    store_path.as_path('nostore://x').exists()


def test_no_local_file_is_used(root, tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  path = root / 'a'
  for use in (open, os.stat, os.fspath):
    with pytest.raises(TypeError, match='memory://bucket/a is not a local file'):
      use(path)
  own = {'cwd', 'home', 'from_uri', *dir(pathlib.PurePath)}
  for name in sorted(set(dir(pathlib.Path)) - own):
    if not name.startswith('_') and name not in vars(store_path.StorePath):
      raise AssertionError(f'{name} would use a local file')
  for call in (path.touch, path.chmod, path.rename):
    with pytest.raises(io.UnsupportedOperation, match='an object store has no'):
      call('x')
  with pytest.raises(io.UnsupportedOperation, match="mode 'w'"):
    path.open('w')
  assert not list(tmp_path.iterdir())


def test_an_object_is_created_once(root):
  path = root / 'a'
  path.create(b'1')
  with pytest.raises(FileExistsError, match='such an object already'):
    path.create(b'2')
  assert path.read_bytes() == b'1'


@pytest.mark.parametrize(
  ('number', 'expected'), [(errno.ENOSYS, b'2'), (errno.EINVAL, FileExistsError)]
)
def test_a_server_that_only_resembles_s3(root, monkeypatch, number, expected):
  path = root / 'a'
  path.write_bytes(b'1')
  store = store_requests.file_system('memory')
  pipe_file = store.pipe_file

  def refuse(name, data, mode='overwrite'):
    if mode == 'create':
      raise OSError(number, 'PreconditionFailed or NotImplemented')
    pipe_file(name, data)

  monkeypatch.setattr(store, 'pipe_file', refuse)
  if expected is FileExistsError:
    with pytest.raises(FileExistsError):
      path.create(b'2')
  else:
    path.create(b'2')
    assert path.read_bytes() == expected


def test_objects_and_folders(root):
  path = root / 'a' / 'b.txt'
  assert not path.exists()
  assert list(root.iterdir()) == []
  with pytest.raises(FileNotFoundError, match='no such object'):
    path.read_bytes()
  path.parent.mkdir()
  assert not path.parent.exists()
  path.write_bytes(b'1\r\n2')
  assert path.is_file()
  assert not path.is_dir()
  assert path.parent.is_dir()
  assert path.stat().st_size == 4
  assert path.stat().st_mtime_ns > 0
  assert path.read_text() == '1\n2'
  assert path.read_range(1, 3) == b'\r\n'
  assert path.read_range(2, 99) == b'\n2'
  with path.open(newline='') as file:
    assert file.read() == '1\r\n2'
  path.copy_to(root / 'c')
  path.unlink()
  path.unlink(missing_ok=True)
  with pytest.raises(FileNotFoundError):
    path.unlink()
  assert (root / 'c').read_bytes() == b'1\r\n2'


def test_listing(root):
  for name in ('x/2.json', 'x/1.json', 'x/y/3.JSON', 'x/y/z/4.txt', 'w.json'):
    (root / name).write_bytes(b'')
  folder = root / 'x'
  assert [p.name for p in folder.iterdir()] == ['1.json', '2.json', 'y']
  assert [p.name for p in folder.glob('*.json')] == ['1.json', '2.json']
  assert [str(p.relative_to(root)) for p in root.glob('*/*/*.JSON')] == ['x/y/3.JSON']
  found = [str(p.relative_to(root)) for p in root.rglob('*.[jJ][sS][oO][nN]')]
  assert found == ['w.json', 'x/1.json', 'x/2.json', 'x/y/3.JSON']
  assert list((folder / '1.json').iterdir()) == []
  folder.rmtree()
  folder.rmtree()
  assert [p.name for p in root.iterdir()] == ['w.json']


def test_an_object_is_read_in_blocks(root, monkeypatch):
  monkeypatch.setattr(store_path, '_READ_BUFFER_BYTES', 16)
  data = bytes(range(256))
  path = root / 'a'
  path.write_bytes(data)
  with path.open('rb') as file:
    assert file.read(3) == data[:3]
    assert file.seek(-6, io.SEEK_END) == 250
    assert file.read() == data[250:]
    file.seek(10)
    assert file.read(100) == data[10:110]


def test_ranges(root):
  path = root / 'a'
  path.write_bytes(bytes(range(100)))
  assert path.read_ranges([]) == []
  assert path.read_ranges([(90, 92), (0, 1)]) == [bytes([90, 91]), bytes([0])]
  with pytest.raises(OSError, match='ends before byte 101'):
    path.read_ranges([(0, 1), (99, 101)])


def test_an_object_is_written_completely_or_not_at_all(root):
  path = root / 'a.bin'
  path.write_bytes(b'old')

  def fail():
    with atomic_files.atomic_write(path) as temporary:
      assert temporary.suffix == '.bin'
      temporary.write_bytes(b'n')
      raise ArithmeticError

  with pytest.raises(ArithmeticError):
    fail()
  assert path.read_bytes() == b'old'
  atomic_files.write_json(path, {'a': 1})
  assert atomic_files.read_json(path) == {'a': 1}
  assert [p.name for p in root.iterdir()] == ['a.bin']


def test_files_are_copied_between_disk_and_store(root, tmp_path):
  local, other = tmp_path / 'a', tmp_path / 'b'
  local.write_bytes(b'1')
  atomic_files.copy_file(local, root / 'c')
  atomic_files.copy_file(root / 'c', root / 'd')
  atomic_files.copy_file(root / 'd', other)
  assert other.read_bytes() == b'1'
  assert [p.name for p in root.iterdir()] == ['c', 'd']


def test_text_is_read_in_large_blocks(root, monkeypatch):
  path = root / 'a.csv'
  path.write_bytes(b'1,2\n' * 50_000)
  read_range, sizes = store_path.StorePath.read_range, []

  def recorded(path, start, stop):
    sizes.append(stop - start)
    return read_range(path, start, stop)

  monkeypatch.setattr(store_path.StorePath, 'read_range', recorded)
  with path.open(newline='') as file:
    assert sum(1 for _ in file) == 50_000
  assert [size for size in sizes if size] == [200_000]


def test_the_start_of_an_object(root):
  (root / 'a').write_bytes(b'1234')
  (root / 'empty').write_bytes(b'')
  assert (root / 'a').read_start(3) == b'123'
  assert (root / 'a').read_start(9) == b'1234'
  assert (root / 'empty').read_start(9) == b''


def test_files_are_read_by_several_threads(root, tmp_path):
  names = set()

  def read(k):
    names.add(threading.get_ident())
    time.sleep(0.02)
    return k

  for folder, threads in ((tmp_path, 1), (root, 3)):
    names.clear()
    assert store_path.map_files(read, range(9), folder) == list(range(9))
    assert len(names) >= threads
    assert threads > 1 or names == {threading.get_ident()}
