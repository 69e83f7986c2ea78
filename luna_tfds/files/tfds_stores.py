"""Lets TFDS read datasets in object stores for which TensorFlow has no file system.

import luna_tfds
luna_tfds.read_stores_with_tfds()
ds = tfds.load('luna16_patches', split='train', data_dir='s3://bucket/data')
"""

from __future__ import annotations

from collections.abc import Iterator
import os
from typing import Any

from tensorflow_datasets.core import file_adapters

from luna_tfds import tfrecord
from luna_tfds.errors import UsageError
from luna_tfds.files import store_path
from luna_tfds.processes import garbage_collection

_URL_PATTERN = r'[A-Za-z][A-Za-z0-9+.-]*://.*'


def read_stores_with_tfds() -> None:
  """Makes TFDS read TFRecord files from URLs of stores, also for other datasets.

  TFDS finds and reads metadata through the library `etils.epath`, which asks TensorFlow for
  stores unless the environment variable EPATH_USE_TF is `false`. It must be set before
  Python starts. Shards are read by Python, record by record, in bounded memory. While they
  are read, and from then on, a thread of its own collects the garbage of the process
  (`gc.disable()`): a tf.data iterator that Python collects elsewhere may hang.

  Raises:
    UsageError: EPATH_USE_TF is not `false`.
  """
  if os.environ.get('EPATH_USE_TF', '').lower() not in ('false', 'no', 'f', '0'):
    raise UsageError(
      'TFDS would look for stores with TensorFlow, which has no s3://; set the '
      'environment variable EPATH_USE_TF=false before Python starts'
    )
  file_format = file_adapters.FileFormat.TFRECORD
  adapter = file_adapters.ADAPTER_FOR_FORMAT[file_format]
  if not issubclass(adapter, _StoreAdapter):
    file_adapters.ADAPTER_FOR_FORMAT[file_format] = _StoreAdapter


class _StoreAdapter(file_adapters.TfRecordFileAdapter):
  """Reads TFRecord files from disks and stores."""

  @classmethod
  def make_tf_data(cls, filename: Any, buffer_size: int | None = None) -> Any:
    """Returns the dataset of the records of a file.

    Args:
      filename: path or URL, a string or a string tensor.
      buffer_size: size of the read buffer in bytes; applies to files on a disk only.
    """
    import tensorflow as tf

    names = tf.reshape(tf.convert_to_tensor(filename, tf.string), [1])
    is_url = tf.strings.regex_full_match(names, _URL_PATTERN)
    # One of the two is empty.
    on_disk = super().make_tf_data(tf.boolean_mask(names, ~is_url), buffer_size)
    in_store = tf.data.Dataset.from_tensor_slices(tf.boolean_mask(names, is_url))
    return on_disk.concatenate(in_store.flat_map(_read_with_python))


def _read_with_python(name: Any) -> Any:
  import tensorflow as tf

  garbage_collection.collect_in_own_thread()
  return tf.data.Dataset.from_generator(
    _records, args=(name,), output_signature=tf.TensorSpec([], tf.string)
  )


def _records(name: bytes) -> Iterator[bytes]:
  return tfrecord.read_tfrecords(store_path.as_path(name.decode()))
