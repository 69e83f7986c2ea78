import errno
import fcntl
import json
import math
import os
import pathlib
import threading

import pytest

from luna_tfds.files import atomic_files


@pytest.fixture
def path(tmp_path):
  return tmp_path / 'result.json'


def names(folder):
  return sorted(path.name for path in folder.iterdir())


def test_the_file_appears_when_the_block_ends(path):
  with atomic_files.atomic_write(path) as temporary:
    assert temporary.parent == path.parent
    assert temporary.suffix == path.suffix
    temporary.write_text('new')
    assert not path.exists()
  assert path.read_text() == 'new'
  assert names(path.parent) == [path.name]


def test_an_existing_file_is_replaced(path):
  path.write_text('a longer old text')
  atomic_files.write_text(path, 'new')
  assert path.read_text() == 'new'


@pytest.mark.parametrize('old', [None, 'old'])
def test_a_failed_block_leaves_the_old_file_and_nothing_else(old, path):
  if old:
    path.write_text(old)

  def write_half():
    with atomic_files.atomic_write(path) as temporary:
      temporary.write_text('half')
      raise ArithmeticError

  with pytest.raises(ArithmeticError):
    write_half()
  assert names(path.parent) == ([path.name] if old else [])
  assert not old or path.read_text() == old


def test_a_failed_rename_leaves_the_old_file_and_nothing_else(path, monkeypatch):
  path.write_text('old')

  def fail(source, target):
    raise OSError('no space left')

  monkeypatch.setattr(os, 'replace', fail)
  with pytest.raises(OSError, match='no space left'):
    atomic_files.write_text(path, 'new')
  assert names(path.parent) == [path.name]
  assert path.read_text() == 'old'


def test_an_unwritable_json_value_leaves_the_old_file(path):
  path.write_text('old')
  with pytest.raises(TypeError):
    atomic_files.write_json(path, {'a': object()})
  assert path.read_text() == 'old'
  assert names(path.parent) == [path.name]


def test_a_missing_folder_is_an_error(tmp_path):
  with pytest.raises(FileNotFoundError):
    atomic_files.write_text(tmp_path / 'absent' / 'a.txt', 'new')


def test_file_and_folder_are_flushed_to_disk(path, monkeypatch):
  events = []
  sync, replace = os.fsync, os.replace

  def watch_sync(descriptor):
    events.append(pathlib.Path(f'/proc/self/fd/{descriptor}').readlink())
    sync(descriptor)

  def watch_replace(source, target):
    events.append('replace')
    replace(source, target)

  monkeypatch.setattr(os, 'fsync', watch_sync)
  monkeypatch.setattr(os, 'replace', watch_replace)
  atomic_files.write_text(path, 'new')
  # The content before the new name, and then the new name.
  flushed_file, event, flushed_folder = events
  assert flushed_file.parent == path.parent
  assert flushed_file != path
  assert event == 'replace'
  assert flushed_folder == path.parent


def test_writers_of_one_file_do_not_collide(path):
  texts = [str(i) * 10_000 for i in range(8)]
  barrier = threading.Barrier(len(texts))
  temporaries = []

  def write(text):
    with atomic_files.atomic_write(path) as temporary:
      temporaries.append(temporary)
      temporary.write_text(text)
      barrier.wait()

  threads = [threading.Thread(target=write, args=[text]) for text in texts]
  for thread in threads:
    thread.start()
  for thread in threads:
    thread.join()
  assert len(set(temporaries)) == len(texts)
  assert path.read_text() in texts
  assert names(path.parent) == [path.name]


def test_files_of_killed_writers_are_removed(path):
  path.write_text('old')
  writer = atomic_files.atomic_write(path)
  writer.__enter__().write_text('half')
  assert len(names(path.parent)) == 2
  atomic_files.remove_temporaries(path.parent)
  assert names(path.parent) == [path.name]


def test_line_ends_are_kept(path):
  atomic_files.write_text(path, 'ä\r\nb\n')
  assert path.read_bytes() == 'ä\r\nb\n'.encode()


def test_json_round_trip(path):
  fields = {'a': [1, 2.5, None, 'ä'], 'b': {'c': True}}
  atomic_files.write_json(path, fields)
  assert atomic_files.read_json(path) == fields
  assert path.read_text().endswith('}\n')


def test_json_has_no_nan(path):
  fields = {'a': math.nan, 'b': [math.inf, (1.0, -math.inf)], 'c': {'d': math.nan}}
  atomic_files.write_json(path, fields)

  def refuse(constant):
    raise AssertionError(constant)

  found = json.loads(path.read_text(), parse_constant=refuse)
  assert found == {'a': None, 'b': [None, [1.0, None]], 'c': {'d': None}}


def test_folders_are_made_and_flushed(tmp_path, monkeypatch):
  flushed = []
  sync = os.fsync

  def watch(descriptor):
    flushed.append(pathlib.Path(f'/proc/self/fd/{descriptor}').readlink())
    sync(descriptor)

  monkeypatch.setattr(os, 'fsync', watch)
  atomic_files.make_folders(tmp_path / 'a' / 'b')
  assert (tmp_path / 'a' / 'b').is_dir()
  assert flushed == [tmp_path, tmp_path / 'a']
  atomic_files.make_folders(tmp_path / 'a' / 'b')


def test_a_folder_that_cannot_be_flushed(path, monkeypatch):
  """Some network file systems report that a folder cannot be flushed."""
  sync = os.fsync

  def fail(descriptor):
    if os.path.isdir(f'/proc/self/fd/{descriptor}'):
      raise OSError(errno.EINVAL, 'invalid argument')
    sync(descriptor)

  monkeypatch.setattr(os, 'fsync', fail)
  atomic_files.write_text(path, 'new')
  assert path.read_text() == 'new'


@pytest.mark.parametrize('links', [True, False])
def test_link_or_copy(links, path, monkeypatch):
  path.write_text('content')
  if not links:

    def fail(source, target):
      raise OSError(errno.EPERM, 'no hard links')

    monkeypatch.setattr(os, 'link', fail)
  other = path.with_name('other')
  other.write_text('old')
  atomic_files.link_or_copy(path, other)
  assert other.read_text() == 'content'
  assert other.samefile(path) == links
  assert names(path.parent) == ['other', path.name]


def test_rename_flushes_both_folders(tmp_path, monkeypatch):
  for name in 'ab':
    (tmp_path / name).mkdir()
  (tmp_path / 'a' / 'file').write_text('content')
  flushed = []
  monkeypatch.setattr(
    os, 'fsync', lambda fd: flushed.append(os.readlink(f'/proc/self/fd/{fd}'))
  )
  atomic_files.rename(tmp_path / 'a' / 'file', tmp_path / 'b' / 'file')
  assert (tmp_path / 'b' / 'file').read_text() == 'content'
  assert sorted(flushed) == [str(tmp_path / 'a'), str(tmp_path / 'b')]


def test_deeply_nested_json_is_rejected(path):
  path.write_text('[' * 100_000)
  with pytest.raises(ValueError, match='nested too deeply'):
    atomic_files.read_json(path)


@pytest.mark.parametrize('number', [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
@pytest.mark.parametrize('place', ['write', 'fsync'])
def test_an_error_of_a_full_disk_names_the_file(number, place, path, monkeypatch):
  def fail(descriptor):
    raise OSError(number, os.strerror(number))

  if place == 'fsync':
    monkeypatch.setattr(os, 'fsync', fail)
  with (
    pytest.raises(OSError, match=os.strerror(number)) as error,
    atomic_files.atomic_write(path) as temporary,
  ):
    temporary.write_text('x')
    if place == 'write':
      fail(0)
  assert str(path) in str(error.value)
  assert names(path.parent) == []


def test_files_are_flushed_through_the_cache_of_the_disk_on_macos(path, monkeypatch):
  flushed = []
  monkeypatch.setattr(fcntl, 'F_FULLFSYNC', 51, raising=False)
  monkeypatch.setattr(fcntl, 'fcntl', lambda *call: flushed.append(call[1]))
  monkeypatch.setattr(os, 'fsync', None)  # not called
  atomic_files.write_text(path, 'new')
  assert flushed == [51, 51]  # the file and its folder


def test_a_file_system_of_macos_without_full_flushes(path, monkeypatch):
  def fail(*unused):
    raise OSError(errno.ENOTSUP, 'not supported')

  flushed = []
  monkeypatch.setattr(fcntl, 'F_FULLFSYNC', 51, raising=False)
  monkeypatch.setattr(fcntl, 'fcntl', fail)
  monkeypatch.setattr(os, 'fsync', flushed.append)
  atomic_files.write_text(path, 'new')
  assert len(flushed) == 2


def test_folders_that_cannot_be_made(tmp_path):
  (tmp_path / 'file').touch()
  (tmp_path / 'link').symlink_to(tmp_path / 'missing')
  for name, problem in {'file': 'a file', 'link': 'a symbolic link to a mis'}.items():
    for path in (tmp_path / name, tmp_path / name / 'folder'):
      with pytest.raises(NotADirectoryError, match=f"It is {problem}.*{name}'$"):
        atomic_files.make_folders(path)
