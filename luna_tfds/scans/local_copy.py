"""Copies of scans in a store, for libraries that read local files."""

from __future__ import annotations

from collections.abc import Iterator
import contextlib
import pathlib

from luna_tfds.errors import ScanError
from luna_tfds.files import store_path
from luna_tfds.files.store_path import StorePath
from luna_tfds.files.temporary_folders import temporary_folder
from luna_tfds.scans import image_files
from luna_tfds.scans import meta_image_files


@contextlib.contextmanager
def local_copy(path: StorePath) -> Iterator[pathlib.Path]:
  """Copies the files of a scan to a temporary folder for the duration of a `with` block.

  Args:
    path: an image file, or a folder of DICOM slices.

  Yields:
    The local path of the same name.

  Raises:
    ScanError: the scan is invalid; errors in the `with` block name `path`, too.
    OSError: the store cannot be read, or the disk is full.
  """
  with temporary_folder() as temporary:
    local = temporary / path.name
    files = _files(path, local)
    for target in files.values():
      target.parent.mkdir(exist_ok=True)
    # A DICOM series has hundreds of files, each of which is a request.
    store_path.map_files(lambda source: source.download(files[source]), files, path)
    try:
      yield local
    except ScanError as error:
      text = str(error).replace(str(local.parent), str(path.parent))
      raise ScanError(text) from error


def _files(path: StorePath, local: pathlib.Path) -> dict[StorePath, pathlib.Path]:
  """Returns where each file of a scan is copied to."""
  if path.is_dir():
    return {source: local / source.name for source in path.list_objects()}
  files = {path: local}
  if image_files.suffix_of(path) in ('.mhd', '.mha'):
    data_file = meta_image_files.data_file_of(path)
    assert isinstance(data_file, StorePath)
    files[data_file] = local.with_name(data_file.name)
  return files
