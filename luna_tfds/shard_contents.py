"""Reads the records of a shard without TensorFlow, and checks each of them."""

from __future__ import annotations

import dataclasses
import math
import pathlib

import numpy as np
from tensorflow_datasets.proto import tf_example_pb2

from luna_tfds import record_index
from luna_tfds import record_keys
from luna_tfds import records
from luna_tfds import tfrecord


@dataclasses.dataclass
class ShardContents:
  """What a shard contains.

  Attributes:
    keys: key of each record.
    labels: class of each record.
    excluded: the feature `excluded` of each record.
    num_bytes: size of each serialised record.
    subsets: the subsets of its records.
  """

  keys: list[str] = dataclasses.field(default_factory=list)
  labels: list[int] = dataclasses.field(default_factory=list)
  excluded: list[bool] = dataclasses.field(default_factory=list)
  num_bytes: list[int] = dataclasses.field(default_factory=list)
  subsets: set[int] = dataclasses.field(default_factory=set)

  @property
  def label_counts(self) -> list[int]:
    """Number of records of each class."""
    return [self.labels.count(label) for label in range(len(records.LABELS))]

  def index(self) -> record_index.ShardIndex:
    """The index of the records."""
    return record_index.ShardIndex.from_records(
      self.labels, self.excluded, self.num_bytes
    )


def read_shard(path: pathlib.Path, image_shape: tuple[int, ...]) -> ShardContents:
  """Reads a shard completely.

  Args:
    path: the TFRecord file.
    image_shape: shape of an image.

  Raises:
    OSError: the file cannot be read.
    ValueError: a record is damaged, or is not a record of the dataset.
  """
  image_bytes = math.prod(image_shape) * np.dtype(np.int16).itemsize
  contents = ShardContents()
  for number, serialized in enumerate(tfrecord.read_tfrecords(path)):
    try:
      feature = tf_example_pb2.Example.FromString(serialized).features.feature
      (image,) = feature['image'].bytes_list.value
      (label,) = feature['label'].int64_list.value
      (seriesuid,) = feature['seriesuid'].bytes_list.value
      (candidate_id,) = feature['candidate_id'].int64_list.value
      (subset,) = feature['subset'].int64_list.value
      (excluded,) = feature['excluded'].int64_list.value
      key = record_keys.record_key(seriesuid.decode(), candidate_id)
      is_valid = len(image) == image_bytes and 0 <= label < len(records.LABELS)
    except Exception as error:  # protobuf's DecodeError is no ValueError
      raise ValueError(f'{path}: record {number} (from 0) cannot be parsed') from error
    if not is_valid:
      raise ValueError(
        f'{path}: record {number} (from 0): label {label}, {len(image)} bytes of image, '
        f'expected {image_bytes}'
      )
    contents.keys.append(key)
    contents.labels.append(label)
    contents.excluded.append(bool(excluded))
    contents.num_bytes.append(len(serialized))
    contents.subsets.add(subset)
  return contents
