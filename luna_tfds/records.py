"""The record: its features, their encoding, and the parsing of a batch.

Features are defined here alone. Encoding does not need TensorFlow, which saves memory in
the workers of the job.
"""

from __future__ import annotations

from collections.abc import Iterable
import re
import struct
from typing import Any, NamedTuple

import numpy as np
import tensorflow_datasets as tfds

from luna_tfds import record_keys
from luna_tfds import tf_example
from luna_tfds import tfrecord
from luna_tfds.files import atomic_files
from luna_tfds.text_format import shown_text

DATASET_NAME = 'luna16_patches'

LABELS = ('non_nodule', 'nodule')

# Approximate size of all features but the image in a serialised record.
METADATA_BYTES = 320

_SHARD_NAME = re.compile(r'\w+-(?P<split>[^.]+)\.tfrecord-(?P<index>\d{5})-of-\d{5}')

# Each feature's type and shape in the tf.Example, and its dtype in memory.
_STORED = {
  'image': ('string', (), 'int16'),
  'label': ('int64', (), 'int64'),
  'seriesuid': ('string', (), 'string'),
  'candidate_id': ('int64', (), 'int64'),
  'subset': ('int64', (), 'int64'),
  'center_xyz_mm': ('string', (), 'float64'),
  'center_zyx': ('float32', (3,), 'float32'),
  'spacing_xyz_mm': ('float32', (3,), 'float32'),
  'nodule_id': ('int64', (), 'int64'),
  'diameter_mm': ('float32', (), 'float32'),
  'excluded': ('int64', (), 'bool'),
}


class Record(NamedTuple):
  """One candidate; its fields are the features of the same names.

  Attributes:
    image: int16 HU [height, width, channels] or [depth, height, width, 1].
    label: 1 for a nodule, 0 for anything else.
    seriesuid: the scan; empty if unknown.
    candidate_id: row in the candidates file, from 0.
    subset: LUNA16's subset 0..9 of the scan, -1 if unknown.
    center_xyz_mm: the centre as in the CSV; NaN if unknown.
    center_zyx: fractional voxel index of the centre in the scan in world orientation;
      NaN if unknown.
    spacing_xyz_mm: spacing of the image as stored; NaN if unknown.
    nodule_id: row of annotations.csv that the candidate hits, -1 for none.
    diameter_mm: diameter of that nodule, 0 for none.
    excluded: whether the candidate hits an excluded finding and no nodule.
  """

  image: np.ndarray
  label: int
  seriesuid: str = ''
  candidate_id: int = -1
  subset: int = -1
  center_xyz_mm: np.ndarray | tuple[float, ...] = (np.nan,) * 3
  center_zyx: np.ndarray | tuple[float, ...] = (np.nan,) * 3
  spacing_xyz_mm: tuple[float, ...] = (np.nan,) * 3
  nodule_id: int = -1
  diameter_mm: float = 0.0
  excluded: bool = False

  @property
  def key(self) -> str:
    """`seriesuid/candidate_id`."""
    return record_keys.record_key(self.seriesuid, self.candidate_id)


def features(image_shape: tuple[int, ...]) -> tfds.features.FeaturesDict:
  """Returns the features of a dataset whose images have shape `image_shape`."""
  raw = tfds.features.Encoding.BYTES
  return tfds.features.FeaturesDict(
    {
      # Raw bytes, as a negative number in an int64 list takes ten bytes.
      'image': tfds.features.Tensor(
        shape=image_shape,
        dtype=np.int16,
        encoding=raw,
        doc=tfds.features.Documentation(
          desc='Hounsfield units as read; -1000 outside the scan',
          value_range='[-1000, 32767]',
        ),
      ),
      'label': tfds.features.ClassLabel(names=list(LABELS)),
      'seriesuid': tfds.features.Text(doc='Scan; empty if unknown'),
      'candidate_id': tfds.features.Scalar(
        np.int64, doc='Row in the candidates file, from 0'
      ),
      'subset': tfds.features.Scalar(
        np.int64, doc="LUNA16's subset 0..9, -1 if unknown"
      ),
      # Raw bytes, as a float list of a tf.Example has 32 bits only.
      'center_xyz_mm': tfds.features.Tensor(
        shape=(3,), dtype=np.float64, encoding=raw, doc='Centre in mm, as in the CSV'
      ),
      'center_zyx': tfds.features.Tensor(
        shape=(3,), dtype=np.float32, doc='Fractional voxel index of the centre'
      ),
      'spacing_xyz_mm': tfds.features.Tensor(
        shape=(3,), dtype=np.float32, doc='Spacing of the image as stored'
      ),
      'nodule_id': tfds.features.Scalar(
        np.int64, doc='Row of annotations.csv that the candidate hits, -1 for none'
      ),
      'diameter_mm': tfds.features.Scalar(
        np.float32, doc='Diameter of that nodule, 0 for none'
      ),
      'excluded': tfds.features.Scalar(
        np.bool_, doc='Hits an excluded finding and no nodule'
      ),
    }
  )


class RecordEncoder:
  """Serialises records to tf.Examples; the bytes are the same in every process.

  They equal those of TFDS's own serializer, which is several times slower.
  """

  def __init__(self, image_shape: tuple[int, ...]):
    self._image_shape = tuple(image_shape)
    self._entries: dict[tuple[Any, ...], bytes] = {}

  def encode(self, record: Record) -> bytes:
    """Returns the serialised record.

    Raises:
      ValueError: the shape or dtype of the image is not that of the feature.
    """
    if record.image.shape != self._image_shape or record.image.dtype != np.int16:
      raise ValueError(
        f'image must be int16 {self._image_shape}. Received: {record.image.dtype} '
        f'{record.image.shape}'
      )
    return tf_example.serialize(
      (
        tf_example.int64_entry('candidate_id', record.candidate_id),
        tf_example.bytes_entry(
          'center_xyz_mm', struct.pack('<3d', *record.center_xyz_mm)
        ),
        tf_example.float32_entry('center_zyx', _float32_bytes(record.center_zyx)),
        self._shared_entries(
          ('diameter_mm', 'excluded'), (record.diameter_mm, record.excluded)
        ),
        tf_example.bytes_entry('image', record.image.tobytes()),
        self._shared_entries(
          ('label', 'nodule_id', 'seriesuid', 'spacing_xyz_mm', 'subset'),
          (
            record.label,
            record.nodule_id,
            record.seriesuid,
            record.spacing_xyz_mm,
            record.subset,
          ),
        ),
      )
    )

  def _shared_entries(self, names: tuple[str, ...], values: tuple[Any, ...]) -> bytes:
    """Returns the entries of features whose values most records of a scan share."""
    entries = self._entries.get((names, values))
    if entries is None:
      entries = b''.join(map(_entry, names, values))
      self._entries[names, values] = entries
    return entries


def _float32_bytes(values: np.ndarray | tuple[float, ...]) -> bytes:
  """Returns three numbers as float32, little-endian."""
  try:
    return struct.pack('<3f', *values)
  except OverflowError:  # far outside the scan, a centre may be infinite in float32
    with np.errstate(over='ignore'):
      return np.asarray(values, '<f4').tobytes()


def _entry(name: str, value: Any) -> bytes:
  """Returns the entry of a feature of numbers or text."""
  kind, _, _ = _STORED[name]
  if kind == 'int64':
    return tf_example.int64_entry(name, int(value))
  if kind == 'float32':
    return tf_example.float32_entry(name, np.asarray(value, '<f4').tobytes())
  return tf_example.bytes_entry(name, value.encode())


def shard_name(split: str, index: int, num_shards: int) -> str:
  """Returns the file name of a shard by TFDS's convention."""
  return f'{DATASET_NAME}-{split}.tfrecord-{index:05d}-of-{num_shards:05d}'


def parse_shard_name(name: str) -> tuple[str, int]:
  """Returns (split, index) of a shard from its file name.

  Raises:
    ValueError: it is not the name of a shard.
  """
  match = _SHARD_NAME.fullmatch(name)
  if not match or len(name.encode()) > atomic_files.MAX_NAME_BYTES:
    raise ValueError(f'not the file name of a shard. Received: {shown_text(name)!r}')
  return match['split'], int(match['index'])


def record_bytes(image_shape: tuple[int, ...]) -> int:
  """Returns the approximate size of a record in a shard."""
  image = int(np.prod(image_shape, dtype=np.int64)) * np.dtype(np.int16).itemsize
  return image + METADATA_BYTES + tfrecord.TFRECORD_OVERHEAD_BYTES


def parse_batch(
  serialized: Any, image_shape: tuple[int, ...], names: Iterable[str] | None = None
) -> dict[str, Any]:
  """Parses a batch of serialised records at once, in a tf.data graph or eagerly.

  Args:
    serialized: [n] string tensor.
    image_shape: shape of an image.
    names: the features to parse; all by default. Others are not decoded.

  Returns:
    Tensors [n, ...] by name, with the dtypes of the features.
  """
  import tensorflow as tf

  names = tuple(_STORED) if names is None else tuple(names)
  spec = {
    name: tf.io.FixedLenFeature(_STORED[name][1], getattr(tf, _STORED[name][0]))
    for name in names
  }
  parsed: dict[str, Any] = tf.io.parse_example(serialized, spec)
  shapes = {'image': image_shape, 'center_xyz_mm': (3,)}
  for name in names:
    stored, _, dtype = _STORED[name]
    if name in shapes:
      flat = tf.io.decode_raw(parsed[name], getattr(tf, dtype))
      parsed[name] = tf.reshape(flat, (-1, *shapes[name]))
    elif stored != dtype:
      parsed[name] = tf.cast(parsed[name], getattr(tf, dtype))
  return parsed


def batch_keys(parsed: dict[str, Any]) -> Any:
  """Returns the record keys of a parsed batch, in a tf.data graph or eagerly.

  Args:
    parsed: from `parse_batch`, with `seriesuid` and `candidate_id`.

  Returns:
    [n] string tensor of `seriesuid/candidate_id`, as `record_keys.record_key`.
  """
  import tensorflow as tf

  candidate_ids = tf.strings.as_string(parsed['candidate_id'])
  return tf.strings.join([parsed['seriesuid'], candidate_ids], separator='/')
