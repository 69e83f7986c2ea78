import errno
import signal
import subprocess
import sys
import tempfile

import pytest

from luna_tfds.files import temporary_folders

_WRITE_AND_WAIT = """
from luna_tfds.files import temporary_folders
with temporary_folders.temporary_folder() as folder:
  (folder / 'scan.raw').write_bytes(b'voxels')
  print(folder, flush=True)
  input()
"""


@pytest.fixture
def temporary(tmp_path, monkeypatch):
  monkeypatch.setattr(tempfile, 'tempdir', str(tmp_path))
  return tmp_path


def test_a_folder_is_deleted_at_the_end(temporary):
  with pytest.raises(KeyError), temporary_folders.temporary_folder() as folder:
    (folder / 'sub').mkdir()
    (folder / 'sub' / 'file').touch()
    assert folder.parent == temporary
    raise KeyError
  assert not list(temporary.iterdir())


def test_the_folder_of_a_killed_process_is_deleted_and_no_other(temporary, monkeypatch):
  monkeypatch.setenv('TMPDIR', str(temporary))
  with subprocess.Popen(
    [sys.executable, '-c', _WRITE_AND_WAIT],
    stdin=subprocess.PIPE,
    stdout=subprocess.PIPE,
    text=True,
  ) as process:
    name = process.stdout.readline().strip()
    with temporary_folders.temporary_folder() as own:
      temporary_folders.remove_abandoned()
      assert set(map(str, temporary.iterdir())) == {name, str(own)}
    process.send_signal(signal.SIGKILL)
  (temporary / 'luna16-temporary-link').symlink_to(temporary / 'elsewhere')
  (temporary / 'elsewhere').mkdir()
  (temporary / 'luna16_patches').mkdir()
  temporary_folders.remove_abandoned()
  names = {path.name for path in temporary.iterdir()}
  assert names == {'luna16-temporary-link', 'elsewhere', 'luna16_patches'}


def test_the_first_folder_of_a_process_deletes_abandoned_ones(temporary):
  (temporary / 'luna16-temporary-abandoned').mkdir()
  with temporary_folders.temporary_folder() as folder:
    assert list(temporary.iterdir()) == [folder]


def test_a_file_system_without_locks(temporary, monkeypatch):
  def flock(*unused):
    raise OSError(errno.ENOLCK, 'no locks')

  monkeypatch.setattr(temporary_folders.fcntl, 'flock', flock)
  with temporary_folders.temporary_folder() as folder:
    temporary_folders.remove_abandoned()
    assert list(temporary.iterdir()) == [folder]
  assert not list(temporary.iterdir())
