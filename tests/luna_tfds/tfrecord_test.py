import hashlib
import struct

import pytest

from luna_tfds import tfrecord

RECORDS = [b'', b'x', bytes(range(256)) * 100, b'\xff' * 7]


def test_tensorflow_reads_the_file(tmp_path):
  import tensorflow as tf

  path = tmp_path / 'a.tfrecord'
  written = tfrecord.write_tfrecords(path, iter(RECORDS))
  assert written.num_bytes == path.stat().st_size
  assert written.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
  # TFRecordDataset checks both checksums of each record.
  assert list(tf.data.TFRecordDataset(str(path)).as_numpy_iterator()) == RECORDS


@pytest.mark.parametrize('repeats', [0, 1, 40], ids=['none', 'few', 'several_writes'])
def test_bytes_are_those_of_tensorflow(repeats, tmp_path):
  import tensorflow as tf

  with tf.io.TFRecordWriter(str(tmp_path / 'expected')) as writer:
    for record in RECORDS * repeats:
      writer.write(record)
  written = tfrecord.write_tfrecords(tmp_path / 'found', RECORDS * repeats)
  assert written.num_bytes == (tmp_path / 'expected').stat().st_size
  assert (tmp_path / 'found').read_bytes() == (tmp_path / 'expected').read_bytes()


def test_overhead_of_a_record(tmp_path):
  tfrecord.write_tfrecords(tmp_path / 'a', [b'abc'])
  content = (tmp_path / 'a').read_bytes()
  assert len(content) == 3 + tfrecord.TFRECORD_OVERHEAD_BYTES
  assert struct.unpack('<Q', content[:8]) == (3,)
  assert content[12:15] == b'abc'


def test_an_existing_file_is_replaced(tmp_path):
  tfrecord.write_tfrecords(tmp_path / 'a', [b'abc'] * 9)
  tfrecord.write_tfrecords(tmp_path / 'a', [])
  assert (tmp_path / 'a').read_bytes() == b''


def test_records_are_read_as_written(tmp_path):
  tfrecord.write_tfrecords(tmp_path / 'a', RECORDS)
  assert list(tfrecord.read_tfrecords(tmp_path / 'a')) == RECORDS


def test_every_damaged_byte_is_found(tmp_path):
  path = tmp_path / 'a'
  tfrecord.write_tfrecords(path, [b'abc', b'de'])
  content = path.read_bytes()
  for position in range(len(content)):
    damaged = bytearray(content)
    damaged[position] ^= 4
    path.write_bytes(damaged)
    with pytest.raises(ValueError, match=r'record [01] \(from 0\) is '):
      list(tfrecord.read_tfrecords(path))


def test_every_truncation_within_a_record_is_found(tmp_path):
  path = tmp_path / 'a'
  tfrecord.write_tfrecords(path, [b'abc', b'de'])
  content = path.read_bytes()
  first = 3 + tfrecord.TFRECORD_OVERHEAD_BYTES
  for size in set(range(1, len(content))) - {first}:
    path.write_bytes(content[:size])
    with pytest.raises(ValueError, match='truncated'):
      list(tfrecord.read_tfrecords(path))
