import errno
import fcntl
import logging
import os

import pytest

from luna_tfds import JobError
from luna_tfds.files import file_lock


def hold(path):
  return file_lock.hold(path, 'job', path.with_suffix(''))


def test_the_lock_file_is_deleted(tmp_path):
  path = tmp_path / 'absent' / '1.0.0.lock'
  with hold(path):
    assert path.is_file()
  assert list(path.parent.iterdir()) == []


def test_a_second_holder_is_refused(tmp_path):
  path = tmp_path / '1.0.0.lock'
  with hold(path):
    with pytest.raises(JobError, match=r'another job is writing .*1\.0\.0; wait'):
      hold(path).__enter__()
    assert path.is_file()
  with hold(path):
    pass


def test_a_deleted_lock_file_is_not_trusted(tmp_path, monkeypatch):
  """The previous job deletes the file after this job opened it, before it locks it."""
  path = tmp_path / '1.0.0.lock'
  flock, deleted = fcntl.flock, []

  def delete_first(file, operation):
    if not deleted:
      deleted.append(path.unlink())
    flock(file, operation)

  monkeypatch.setattr(fcntl, 'flock', delete_first)
  with hold(path):
    monkeypatch.undo()
    with pytest.raises(JobError, match='another job'):
      hold(path).__enter__()


@pytest.mark.parametrize('code', [errno.ENOSYS, errno.ENOTSUP, errno.ENOLCK])
def test_a_file_system_without_locks(code, tmp_path, monkeypatch, caplog):
  def fail(file, operation):
    raise OSError(code, os.strerror(code))

  monkeypatch.setattr(fcntl, 'flock', fail)
  with caplog.at_level(logging.WARNING), hold(tmp_path / '1.0.0.lock'):
    assert 'has no file locks' in caplog.text
    assert 'make sure that no other job writes ' in caplog.text
  assert list(tmp_path.iterdir()) == []
