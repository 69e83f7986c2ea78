"""Reports a shard that cannot be read in one line that names the file."""

from __future__ import annotations

from collections.abc import Iterator
import contextlib

import tensorflow as tf

from luna_tfds import tfrecord
from luna_tfds.errors import JobError
from luna_tfds.files import store_path
from luna_tfds.text_format import error_text
from trainer.data.split_source import SplitSource

# What TensorFlow raises if a file is damaged, missing or not readable. Its messages do
# not name the file.
_READ_ERRORS = (
  tf.errors.DataLossError,
  tf.errors.NotFoundError,
  tf.errors.PermissionDeniedError,
)

# What TensorFlow makes of an OSError or ValueError of Python, which reads from stores.
_READ_ERRORS_IN_STORES = (tf.errors.UnknownError, tf.errors.InvalidArgumentError)


@contextlib.contextmanager
def reported(*sources: SplitSource | None) -> Iterator[None]:
  """Turns read errors in a `with` block into one that names the damaged file.

  Args:
    *sources: the splits that are read there; None is left out.

  Raises:
    JobError: a shard cannot be read.
  """
  known = [source for source in sources if source is not None]
  is_in_store = any(source.is_in_store for source in known)
  try:
    yield
  except _READ_ERRORS + _READ_ERRORS_IN_STORES as error:
    if isinstance(error, _READ_ERRORS_IN_STORES) and not is_in_store:
      raise
    problem = _find_damage(known)
    if problem is None:
      if not isinstance(error, tf.errors.DataLossError):
        raise  # of another file
      splits = ' or '.join(source.split for source in known)
      problem = f'a shard of {splits} cannot be read'
    raise JobError(
      f'{problem}; luna16-inspect --verify checks all files; restore the shard, or '
      'extract the dataset again'
    ) from error


def _find_damage(sources: list[SplitSource]) -> str | None:
  """Reads the shards until one is damaged; returns the file and the problem."""
  paths = dict.fromkeys(item.path for source in sources for item in source.slices)
  for path in paths:
    try:
      for _ in tfrecord.read_tfrecords(store_path.as_path(path)):
        pass
    except (OSError, ValueError) as error:
      reason = getattr(error, 'strerror', None) or error_text(error)
      return f'{path}: cannot be read: {reason.removeprefix(f"{path}: ")}'
  return None
