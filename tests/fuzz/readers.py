"""The readers of users' files: valid files to start from, how to change them, the code.

A reader gets a folder with the files of an input and must return, or raise one of
`USER_ERRORS`.
"""

from collections.abc import Callable
import dataclasses
import importlib
import random

import input_files

from luna_tfds.errors import JobError
from luna_tfds.errors import ScanError
from luna_tfds.errors import UsageError

# What `cli.run` turns into one line and exit code 1 or 2.
USER_ERRORS = (UsageError, ScanError, JobError, OSError)


@dataclasses.dataclass(frozen=True)
class Reader:
  """A reader of users' files.

  Attributes:
    name: for the command line.
    make_seeds: from an empty folder to valid inputs, each a dict from name to bytes.
    mutate: changes the files of an input; see `mutations`.
    read: reads the files in a folder.
    modules: whose code coverage guides atheris.
  """

  name: str
  make_seeds: Callable
  mutate: Callable
  read: Callable
  modules: tuple[str, ...]


def mutate_one(**mutate_by_suffix):
  """Returns a function that changes one of the files of an input.

  Args:
    **mutate_by_suffix: from the end of a file's name (`_` for `.`) to the function that
      changes it: (content, rng) -> content.
  """

  def mutate(files, rng):
    files = dict(files)
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
      name = rng.choice(sorted(files))
      suffix = next(s for s in mutate_by_suffix if name.endswith(s.replace('_', '.')))
      files[name] = mutate_by_suffix[suffix](files[name], rng)
    return files

  return mutate


def draw_input(reader, seeds, rng: random.Random):
  """Returns the files of a changed seed."""
  return reader.mutate(rng.choice(seeds), rng)


def make_seeds(reader, folder):
  """Returns the valid inputs of a reader, and checks that it accepts them."""
  seeds = reader.make_seeds(folder / 'seeds')
  for number, files in enumerate(seeds):
    input_files.write(files, folder / f'seed{number}')
    reader.read(folder / f'seed{number}')
  return seeds


def find(name):
  """Returns a reader; loads only the libraries that it needs.

  Raises:
    KeyError: there is no such reader.
  """
  return importlib.import_module(_MODULE_OF_READER[name]).READERS[name]


# Imported when they are needed: TensorFlow takes ten seconds.
_READERS_OF_MODULE = {
  'scan_readers': ('mhd', 'mha', 'nifti', 'dicom'),
  'table_readers': (
    *('candidates', 'findings', 'submission', 'seriesuids', 'download', 'article'),
  ),
  'run_readers': ('predictions', 'config', 'operating_point', 'calibration', 'history'),
  'dataset_readers': ('tfrecord', 'record_index', 'metadata', 'patients'),
  'fold_readers': ('fold', 'scores'),
  'model_readers': ('keras', 'checkpoint'),
}
_MODULE_OF_READER = {
  name: module for module, names in _READERS_OF_MODULE.items() for name in names
}
NAMES = tuple(_MODULE_OF_READER)
