"""Local files and folders in place of those in a store, for libraries that need them."""

from __future__ import annotations

from collections.abc import Iterator
import contextlib
import pathlib

from luna_tfds.files import atomic_files
from luna_tfds.files.store_path import StorePath
from luna_tfds.files.temporary_folders import temporary_folder


@contextlib.contextmanager
def local_file(path: pathlib.Path) -> Iterator[pathlib.Path]:
  """Yields a local copy of a file in a store; a local file is yielded itself.

  Raises:
    OSError: the store cannot be read, or the disk is full.
  """
  if not isinstance(path, StorePath):
    yield path
    return
  with temporary_folder() as temporary:
    local = temporary / path.name
    path.download(local)
    yield local


@contextlib.contextmanager
def local_folder(path: pathlib.Path) -> Iterator[pathlib.Path]:
  """Yields a local folder to write; a local path is yielded itself.

  When the `with` block succeeds, the files are uploaded to `path` if it is in a store.

  Raises:
    OSError: the store cannot be written, or the disk is full.
  """
  if not isinstance(path, StorePath):
    yield path
    return
  with temporary_folder() as temporary:
    local = temporary / path.name
    yield local
    upload_folder(local, path)


def upload_folder(source: pathlib.Path, target: pathlib.Path) -> None:
  """Copies the files of a local folder and its subfolders to a store.

  Files of subfolders come first: a reader looks for those of the folder itself.

  Raises:
    OSError: the store cannot be written.
  """
  files = [path for path in source.rglob('*') if path.is_file()]
  for path in sorted(files, key=lambda path: (-len(path.parts), path)):
    atomic_files.copy_file(path, target / path.relative_to(source))
