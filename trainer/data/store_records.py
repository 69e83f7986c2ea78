"""Reads serialised records from object stores.

TensorFlow has no file system for most stores. So Python requests the bytes, and tf.data
gets the records; several requests are in flight.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterator
import itertools

import numpy as np
import tensorflow as tf

from luna_tfds import record_index
from luna_tfds import tfrecord
from luna_tfds.files import store_path
from luna_tfds.files import store_urls
from luna_tfds.processes import garbage_collection
from trainer.data.split_source import ShardSlice


def file_records(path: str) -> tf.data.Dataset:
  """Reads all records of a shard in stored order, from a disk or a store.

  Args:
    path: the file, or its URL.

  Returns:
    Dataset of string.
  """
  if not store_urls.is_url(path):
    return tf.data.TFRecordDataset(path)
  garbage_collection.collect_in_own_thread()

  def read() -> Iterator[bytes]:
    return tfrecord.read_tfrecords(store_path.as_path(path))

  return tf.data.Dataset.from_generator(
    read, output_signature=tf.TensorSpec([], tf.string)
  )


def read_range(item: ShardSlice, offset: int, count: int) -> np.ndarray:
  """Reads consecutive records of a shard in a store, by one request.

  Args:
    item: a slice of the shard, with its index.
    offset: byte offset of the first record; one of the index.
    count: number of records.

  Returns:
    [count] object, the serialised records.

  Raises:
    OSError: they cannot be read.
    ValueError: a record is damaged or missing.
  """
  assert item.index is not None
  offsets = item.index.offsets
  # Up to the next offset that is known, or the end of the file.
  end = bisect.bisect_left(offsets, offset) - (
    -count // record_index.RECORDS_PER_OFFSET
  )
  stop = offsets[end] if end < len(offsets) else None
  data = store_path.store_path(item.path).read_range(offset, stop)
  found = list(itertools.islice(tfrecord.parse_tfrecords(data, item.path), count))
  if len(found) != count:
    raise ValueError(f'{item.path}: truncated')
  records = np.empty(count, object)
  records[:] = found
  return records
