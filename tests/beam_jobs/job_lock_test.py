import errno
import fcntl
import os
import shutil
import subprocess

import pytest

from beam_jobs import disk_job_folder
from luna_tfds import UsageError

ALL = '--config=axial_50px_all'


def test_other_errors_are_reported(tmp_path, monkeypatch):
  def fail(file, operation):
    raise OSError(errno.EIO, 'input/output error')

  monkeypatch.setattr(fcntl, 'flock', fail)
  folder = disk_job_folder.DiskJobFolder(tmp_path / '1.0.0')
  with pytest.raises(UsageError, match='cannot be written: input/output error'):
    folder.locked().__enter__()


# File systems that rename an open file on deletion.


@pytest.fixture
def renames_open_files(monkeypatch):
  """Simulates NFS in this process: an open file that is deleted is renamed."""
  unlink = os.unlink

  def rename_if_open(path, *, dir_fd=None):
    folder = os.getcwd() if dir_fd is None else os.readlink(f'/proc/self/fd/{dir_fd}')
    full = os.path.join(folder, path)
    opened = set()
    for descriptor in os.listdir('/proc/self/fd'):
      try:
        opened.add(os.readlink(f'/proc/self/fd/{descriptor}'))
      except FileNotFoundError:
        continue
    if full in opened:
      os.rename(full, os.path.join(os.path.dirname(full), '.nfs0001'))
    else:
      unlink(path, dir_fd=dir_fd)

  monkeypatch.setattr(os, 'unlink', rename_if_open)


def test_a_job_on_nfs(extract, small, out, renames_open_files):
  assert extract(small.folder, out, ALL) == 0
  assert extract(small.folder, out, ALL) == 0
  assert extract(small.folder, out, ALL, '--overwrite') == 0


@pytest.fixture
def bindfs_folder(tmp_path):
  """A folder of a FUSE file system; the test is skipped if it cannot be mounted."""
  if not shutil.which('bindfs') or not shutil.which('fusermount'):
    pytest.skip('needs bindfs')
  (tmp_path / 'stored').mkdir()
  folder = tmp_path / 'mounted'
  folder.mkdir()
  if subprocess.run(['bindfs', tmp_path / 'stored', folder], check=False).returncode:
    pytest.skip('bindfs cannot be mounted')
  yield folder
  subprocess.run(['fusermount', '-u', folder], check=True)


@pytest.mark.parametrize('workers', [1, pytest.param(2, marks=pytest.mark.slow)])
def test_a_job_on_fuse(workers, extract, small, bindfs_folder):
  out = bindfs_folder / 'data'
  flags = [ALL, f'--num_workers={workers}']
  assert extract(small.folder, out, *flags) == 0
  assert extract(small.folder, out, *flags) == 0
  assert extract(small.folder, out, *flags, '--overwrite') == 0
  (folder,) = out.glob('luna16_patches/axial*')
  assert [path.name for path in folder.iterdir()] == ['1.0.0']
  hidden = [path.name for path in out.rglob('*') if path.name.startswith('.')]
  assert hidden == ['.config']  # TFDS's; no renamed open file is left
