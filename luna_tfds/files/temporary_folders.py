"""Temporary folders that a killed process does not leave behind for long.

A process that is killed deletes nothing, and a copy of a scan may have hundreds of MB. So
each folder is locked while it is in use, and the next process deletes those that nobody
has locked.
"""

from __future__ import annotations

from collections.abc import Iterator
import contextlib
import fcntl
import functools
import os
import pathlib
import shutil
import tempfile

_PREFIX = 'luna16-temporary-'

# The name of a folder until it is locked: nobody deletes it before.
_NEW_PREFIX = 'luna16-new-'


@contextlib.contextmanager
def temporary_folder() -> Iterator[pathlib.Path]:
  """Makes an empty folder in TMPDIR, and deletes it at the end of a `with` block.

  Raises:
    OSError: it cannot be made.
  """
  _remove_abandoned_once(tempfile.gettempdir())
  folder = pathlib.Path(tempfile.mkdtemp(prefix=_NEW_PREFIX))
  # The lock ends with the process, however it ends.
  descriptor = os.open(folder, os.O_RDONLY)
  try:
    if _lock(descriptor):
      unique = folder.name.removeprefix(_NEW_PREFIX)
      folder = folder.rename(folder.with_name(f'{_PREFIX}{unique}'))
    yield folder
  finally:
    shutil.rmtree(folder, ignore_errors=True)
    os.close(descriptor)


def remove_abandoned() -> None:
  """Deletes the folders in TMPDIR that killed processes of this user left."""
  for folder in pathlib.Path(tempfile.gettempdir()).glob(f'{_PREFIX}*'):
    with contextlib.suppress(OSError):  # of another user, or just deleted
      descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
      try:
        is_own = os.fstat(descriptor).st_uid == os.geteuid()
        if is_own and _lock(descriptor):
          shutil.rmtree(folder, ignore_errors=True)
      finally:
        os.close(descriptor)


@functools.cache
def _remove_abandoned_once(temporary: str) -> None:
  """Calls `remove_abandoned` at the first call for a folder."""
  remove_abandoned()


def _lock(descriptor: int) -> bool:
  """Returns whether a folder was locked: not if it is in use, or cannot be locked."""
  try:
    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
  except OSError:
    return False
  return True
