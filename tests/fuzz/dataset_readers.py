"""Readers of an extracted dataset: its metadata, its shards."""

import input_files
import mutations
import numpy as np
from readers import Reader

from luna_tfds import records
from luna_tfds import tfrecord
from luna_tfds import verification

_SHAPE = (4, 4, 1)


def _records():
  encoder = records.RecordEncoder(_SHAPE)
  image = np.arange(16, dtype=np.int16).reshape(_SHAPE)
  return [
    encoder.encode(records.Record(image, number % 2, f'1.2.{number // 2}', number))
    for number in range(4)
  ]


def _shard_seeds(folder):
  folder.mkdir()
  tfrecord.write_tfrecords(folder / records.shard_name('train', 0, 1), _records())
  return [input_files.read(folder)]


def _mutate_shard(files, rng):
  return {name: mutations.mutate_tfrecord(data, rng) for name, data in files.items()}


def _read_shard(folder):
  """Reads a shard as luna16-inspect --verify does."""
  path = folder / records.shard_name('train', 0, 1)
  try:
    verification.record_keys_of(path, _SHAPE)
  except ValueError as error:  # documented; `verify` lists its message
    if type(error) is not ValueError:
      raise
    assert str(path) in str(error)


_ALL = (
  Reader(
    'tfrecord',
    _shard_seeds,
    _mutate_shard,
    _read_shard,
    ('luna_tfds.tfrecord', 'luna_tfds.verification'),
  ),
)
READERS = {reader.name: reader for reader in _ALL}
