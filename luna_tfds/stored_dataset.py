"""The files beside the shards of a dataset that TFDS reads, on disk or in a store."""

from __future__ import annotations

from collections.abc import Iterator
import contextlib
import pathlib

from luna_tfds.files.store_path import StorePath
from luna_tfds.files.temporary_folders import temporary_folder

INFO_FILE = 'dataset_info.json'
FEATURES_FILE = 'features.json'


@contextlib.contextmanager
def metadata_folder(folder: pathlib.Path) -> Iterator[pathlib.Path]:
  """Yields a local folder with the files that TFDS reads to make a builder.

  TFDS cannot look into a store for which TensorFlow has no file system. So it gets copies
  of these files, in folders of the same names: `<dataset>/<config>/<version>`. The folder
  of the builder then is not that of the shards.

  Args:
    folder: the folder of a version of a dataset, which is yielded if it is local.

  Raises:
    OSError: a file cannot be read.
  """
  if not isinstance(folder, StorePath):
    yield folder
    return
  with temporary_folder() as temporary:
    local = temporary.joinpath(*folder.parts[-3:])
    local.mkdir(parents=True)
    for name in (INFO_FILE, FEATURES_FILE):
      (folder / name).download(local / name)
    yield local
