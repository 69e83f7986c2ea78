"""Jobs on a disk that is full or read-only, and folders that cannot be made."""

import errno
import os
import pathlib
import shutil
import subprocess

import oracles
import pytest

from beam_jobs import disk_job_folder
from beam_jobs import dry_run
from beam_jobs import shard_writer
from luna_tfds import CONFIGS
from luna_tfds import UsageError
from luna_tfds.files import atomic_files

ALL = '--config=axial_50px_all'


@pytest.fixture
def fill_disk(monkeypatch):
  """A function after whose call no file can be written."""

  def fill():
    def fail(path, *unused, **also_unused):
      raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    usage = shutil.disk_usage('/')
    monkeypatch.setattr(shutil, 'disk_usage', lambda path: usage._replace(free=0))
    monkeypatch.setattr(atomic_files, 'atomic_write', fail)
    monkeypatch.setattr(pathlib.Path, 'mkdir', fail)

  return fill


@pytest.mark.parametrize('num_finished', [0, 2])
def test_a_disk_that_becomes_full(
  num_finished, extract, small, out, fill_disk, monkeypatch, failure
):
  write_shard = shard_writer.write_shard
  written = []

  def fill_and_write(*arguments):
    if len(written) == num_finished:
      fill_disk()
    result = write_shard(*arguments)
    written.append(result)
    return result

  with monkeypatch.context() as patch:
    patch.setattr(shard_writer, 'write_shard', fill_and_write)
    assert extract(small.folder, out, ALL) == 1
  line = failure()
  assert 'not enough disk space' in line
  assert '0 B free; free some space; ' in line
  assert ('finished shards are kept in' in line) == (num_finished > 0)
  assert line.count('run the same command again') == 1


def test_a_disk_that_is_full_before_the_job(extract, small, out, fill_disk, failure):
  fill_disk()
  assert extract(small.folder, out, ALL) == 1
  assert os.strerror(errno.ENOSPC) in failure()


def test_a_complete_dataset_on_a_full_disk(extract, small, out, fill_disk, capfd):
  assert extract(small.folder, out, ALL) == 0
  fill_disk()
  assert extract(small.folder, out, ALL) == 0
  assert f'already complete: {oracles.dataset_folder(out)}' in capfd.readouterr().err


def test_progress_is_not_needed(folder):
  folder.record_progress('a/missing/folder', 1)
  assert folder.num_scans_in_progress() == 0


@pytest.fixture
def make_read_only():
  """A function that makes a folder read-only; the test is skipped if it cannot."""
  mounted, changed = [], []

  def make(folder):
    changed.extend([folder, *(path for path in folder.rglob('*') if path.is_dir())])
    for path in changed:
      path.chmod(0o500)
    if not os.access(folder, os.W_OK):
      return
    # Root may write any folder, but not on a disk that is mounted read-only.
    for command in (
      ['mount', '--bind', folder, folder],
      ['mount', '-o', 'remount,bind,ro', folder],
    ):
      if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip('this user can write any folder, and cannot mount one')
      mounted.append(folder)

  yield make
  if mounted:
    subprocess.run(['umount', mounted[0]], check=True)
  for path in changed:
    path.chmod(0o700)


def test_a_complete_dataset_on_a_read_only_disk(
  extract, small, out, make_read_only, capfd
):
  assert extract(small.folder, out, ALL) == 0
  make_read_only(out)
  capfd.readouterr()
  assert extract(small.folder, out, ALL) == 0
  last = capfd.readouterr().err.splitlines()[-1]
  assert last == f'already complete: {oracles.dataset_folder(out)}'
  dry_run.run(small.folder, CONFIGS['axial_50px_all'], oracles.dataset_folder(out))


def test_an_incomplete_dataset_on_a_read_only_disk(
  extract, small, out, make_read_only, failure
):
  assert extract(small.folder, out, ALL) == 0
  (oracles.dataset_folder(out) / 'metadata.json').unlink()
  make_read_only(out)
  assert extract(small.folder, out, ALL) == 2
  assert 'cannot be written: ' in failure()
  assert extract(small.folder, out, ALL, '--overwrite') == 2
  assert 'cannot be written: ' in failure()
  with pytest.raises(UsageError, match='cannot be written'):
    dry_run.run(small.folder, CONFIGS['axial_50px_all'], oracles.dataset_folder(out))


def test_a_link_to_a_missing_folder(extract, small, out, tmp_path, failure):
  out.symlink_to(tmp_path / 'missing')
  assert extract(small.folder, out, ALL) == 2
  assert f'{out}: cannot be written: It is a symbolic link to a missing' in failure()


def test_a_file_in_place_of_a_folder(extract, small, out, failure):
  out.touch()
  assert extract(small.folder, out, ALL) == 2
  assert f'{out}: cannot be written: It is a file; give a writable' in failure()


def test_a_name_that_is_too_long(tmp_path):
  folder = disk_job_folder.DiskJobFolder(tmp_path / ('a' * 300) / '1.0.0')
  with pytest.raises(UsageError, match='too long; give a writable'), folder.locked():
    pass


@pytest.mark.parametrize('name', ['axial_50px_all/1.0.0', '.config'])
def test_a_link_to_a_missing_folder_is_found_before_the_job(
  name, extract, small, out, failure
):
  link = out / 'luna16_patches' / name
  link.parent.mkdir(parents=True)
  link.symlink_to('missing')
  for more in ('--nodry_run', '--dry_run'):
    assert extract(small.folder, out, ALL, more) == 2
    assert f'{link}: it is a symbolic link to a missing folder' in failure()
  assert [path for path in out.rglob('*') if not path.is_dir()] == [link]
