"""A lock file that excludes other processes, also on network file systems."""

from __future__ import annotations

from collections.abc import Iterator
import contextlib
import errno
import fcntl
import os
import pathlib
from typing import IO

from absl import logging

from luna_tfds.errors import JobError
from luna_tfds.files import atomic_files
from luna_tfds.files.store_path import StorePath

# What `flock` reports if the file system has no locks.
_UNSUPPORTED = (errno.ENOSYS, errno.ENOTSUP, errno.ENOLCK, errno.EINVAL)
# What it reports if another process holds the lock; EACCES on some network file systems.
_HELD = (errno.EAGAIN, errno.EACCES)

# The lock file can be deleted by the previous holder between opening and locking it.
_MAX_ATTEMPTS = 10


@contextlib.contextmanager
def hold(path: pathlib.Path, what: str, folder: pathlib.Path) -> Iterator[None]:
  """Holds the lock for the duration of a `with` block, and deletes the file at its end.

  A store has no locks; there, only a warning is logged.

  The lock ends with the process, however it ends. The file must not be in a folder that
  the holder deletes: network file systems (NFS, FUSE) rename an open file instead of
  deleting it, and its folder then is not empty.

  Args:
    path: the lock file; missing parents are made.
    what: the holder, for messages, e.g. 'job'.
    folder: what the holder writes, for messages.

  Raises:
    OSError: the file cannot be written.
    JobError: another process holds the lock.
  """
  if isinstance(path, StorePath):
    logging.warning(
      '%s: a store has no locks; make sure that no other %s writes it', folder, what
    )
    yield
    return
  with _open_locked(path, what, folder):
    try:
      yield
    finally:
      # Before the lock is released: a process that has opened the file already finds it
      # deleted, and opens a new one.
      path.unlink(missing_ok=True)


def _open_locked(path: pathlib.Path, what: str, folder: pathlib.Path) -> IO[str]:
  for attempt in range(_MAX_ATTEMPTS):
    with contextlib.ExitStack() as stack:
      try:
        atomic_files.make_folders(path.parent)
        file = stack.enter_context(path.open('a'))
      except FileNotFoundError:  # the previous holder has just deleted an empty folder
        if attempt == _MAX_ATTEMPTS - 1:  # no: the folder cannot be made
          raise
        continue
      try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
      except OSError as error:
        if error.errno in _HELD:
          break
        if error.errno not in _UNSUPPORTED:
          raise
        logging.warning(
          '%s: the file system has no file locks (%s); make sure that no other %s '
          'writes %s',
          path,
          error.strerror,
          what,
          folder,
        )
        stack.pop_all()
        return file
      if _is_file_at(file, path):
        stack.pop_all()
        return file
  raise JobError(f'another {what} is writing {folder}; wait for it, or stop it')


def _is_file_at(file: IO[str], path: pathlib.Path) -> bool:
  """Returns whether an open file still has its name."""
  try:
    return os.path.samestat(os.fstat(file.fileno()), path.stat())
  except FileNotFoundError:
    return False
