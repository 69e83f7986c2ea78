"""Files that are complete or not there: written under another name, then renamed.

The one way in which this project writes a file that a later step trusts. What has its
final name is complete even after a power failure: contents are flushed to disk before the
name changes, and the changed folder after it.

An object of a store is written to a temporary local file, and uploaded by one request.
"""

from __future__ import annotations

from collections.abc import Iterator
import contextlib
import errno
import fcntl
import json
import math
import os
import pathlib
import shutil
from typing import Any, TextIO
import uuid

from luna_tfds.files.store_path import StorePath
from luna_tfds.files.temporary_folders import temporary_folder

# What file systems allow for the name of a file, without its folders.
MAX_NAME_BYTES = 255

_MARK = '.writing-'


@contextlib.contextmanager
def atomic_write(path: pathlib.Path) -> Iterator[pathlib.Path]:
  """Yields a temporary path; when the `with` block succeeds it becomes `path`.

  The file and its folder are flushed to disk, so that after a power failure `path` holds
  the old file or the new one. The temporary name differs between processes and between
  hosts that share the folder, and keeps the suffix of `path`.

  Args:
    path: the file to write; replaced if it is there. Its folder must be there. The
      temporary path is local also if `path` is in a store.

  Raises:
    OSError: the file cannot be written.
  """
  if isinstance(path, StorePath):
    with temporary_folder() as folder:
      local = folder / path.name
      yield local
      path.upload(local)
    return
  temporary = path.with_name(f'{path.stem}{_MARK}{uuid.uuid4().hex}{path.suffix}')
  try:
    yield temporary
    _flush(temporary)
    rename(temporary, path)
  except OSError as error:
    if error.errno and error.filename is None:  # of a write, e.g. to a full disk
      error.filename = str(path)
    raise
  finally:
    temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def atomic_text(path: pathlib.Path) -> Iterator[TextIO]:
  """As `atomic_write`, and yields the file, open for UTF-8 text with line ends as given."""
  with (
    atomic_write(path) as temporary,
    temporary.open('w', newline='', encoding='utf-8') as file,
  ):
    yield file


def write_text(path: pathlib.Path, text: str) -> None:
  """Writes a text file (UTF-8, line ends as given), complete or not at all."""
  with atomic_text(path) as file:
    file.write(text)


def write_json(path: pathlib.Path, fields: Any) -> None:
  """Writes indented JSON, complete or not at all; NaN and infinities become null."""
  text = json.dumps(replace_nan(fields), indent=2, allow_nan=False)
  write_text(path, text + '\n')


def read_json(path: pathlib.Path) -> Any:
  """Reads a JSON file.

  Raises:
    OSError: the file cannot be read.
    ValueError: it is not JSON.
  """
  if not isinstance(path, StorePath) and path.is_fifo():  # reading would wait forever
    raise OSError(errno.EINVAL, 'It is a named pipe', str(path))
  try:
    return json.loads(path.read_text(encoding='utf-8'))
  except RecursionError as error:
    raise ValueError('its values are nested too deeply') from error


def replace_nan(value: Any) -> Any:
  """Replaces what JSON has no number for, NaN and infinities, by None, at any depth."""
  if isinstance(value, dict):
    return {key: replace_nan(item) for key, item in value.items()}
  if isinstance(value, list | tuple):
    return [replace_nan(item) for item in value]
  if isinstance(value, float) and not math.isfinite(value):
    return None
  return value


def rename(source: pathlib.Path, target: pathlib.Path) -> None:
  """Renames a file or folder whose contents are on disk, and flushes the new name.

  Args:
    source: the file or folder.
    target: its new name; a file of this name is replaced.

  Raises:
    OSError: it cannot be renamed.
  """
  os.replace(source, target)
  _flush(target.parent)
  if source.parent != target.parent:
    _flush(source.parent)


def link_or_copy(source: pathlib.Path, target: pathlib.Path) -> None:
  """Gives a file a second name, or copies it where hard links are not supported.

  Args:
    source: the file; it must not be changed in place afterwards.
    target: the new name; replaced if it is there.

  Raises:
    OSError: the file cannot be copied.
  """
  if isinstance(target, StorePath):
    copy_file(source, target)
    return
  with atomic_write(target) as temporary:
    try:
      os.link(source, temporary)
    except OSError:
      shutil.copyfile(source, temporary)


def make_folders(path: pathlib.Path) -> None:
  """Makes a folder and its missing parents, and flushes their names.

  Raises:
    OSError: a folder cannot be made.
  """
  if isinstance(path, StorePath) or path.is_dir():
    return
  make_folders(path.parent)
  try:
    path.mkdir(exist_ok=True)
  except FileExistsError as error:
    problem = 'a symbolic link to a missing folder' if path.is_symlink() else 'a file'
    raise NotADirectoryError(errno.ENOTDIR, f'It is {problem}', str(path)) from error
  _flush(path.parent)


def flush_folder(folder: pathlib.Path) -> None:
  """Flushes the files of a folder that another library wrote, and their names."""
  for path in folder.iterdir():
    if path.is_file():
      _flush(path)
  _flush(folder)


def remove_temporaries(folder: pathlib.Path) -> None:
  """Deletes what writers that were killed left in a folder; no writer may be active."""
  if isinstance(folder, StorePath):
    return
  for path in folder.glob(f'*{_MARK}*'):
    path.unlink(missing_ok=True)


def copy_file(source: pathlib.Path, target: pathlib.Path) -> None:
  """Copies a file, of which at least one is local or both are in one store.

  Raises:
    OSError: the file cannot be copied.
  """
  if isinstance(source, StorePath) and isinstance(target, StorePath):
    source.copy_to(target)
    return
  with atomic_write(target) as temporary:
    if isinstance(source, StorePath):
      source.download(temporary)
    else:
      shutil.copyfile(source, temporary)


def _flush(path: pathlib.Path) -> None:
  """Makes sure that a file, or the list of files of a folder, is on disk."""
  if path.is_dir() and os.name == 'nt':  # folders cannot be opened there
    return
  descriptor = os.open(path, os.O_RDONLY)
  try:
    _fsync(descriptor)
  except OSError as error:
    # Some network file systems cannot flush a folder; they write names at once.
    if not (path.is_dir() and error.errno in (errno.EINVAL, errno.ENOTSUP)):
      raise
  finally:
    os.close(descriptor)


def _fsync(descriptor: int) -> None:
  """Flushes an open file to the disk; on macOS, `fsync` leaves it in the disk's cache."""
  full_sync = getattr(fcntl, 'F_FULLFSYNC', None)
  if full_sync is not None:
    try:
      fcntl.fcntl(descriptor, full_sync)
      return
    except OSError:  # the file system does not support it
      pass
  os.fsync(descriptor)
