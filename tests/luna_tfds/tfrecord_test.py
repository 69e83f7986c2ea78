import struct

from luna_tfds import tfrecord

RECORDS = [b'', b'x', bytes(range(256)) * 100, b'\xff' * 7]


def test_tensorflow_reads_the_file(tmp_path):
  import tensorflow as tf

  path = tmp_path / 'a.tfrecord'
  size = tfrecord.write_tfrecords(path, iter(RECORDS))
  assert size == path.stat().st_size
  # TFRecordDataset checks both checksums of each record.
  assert list(tf.data.TFRecordDataset(str(path)).as_numpy_iterator()) == RECORDS


def test_bytes_are_those_of_tensorflow(tmp_path):
  import tensorflow as tf

  with tf.io.TFRecordWriter(str(tmp_path / 'expected')) as writer:
    for record in RECORDS:
      writer.write(record)
  tfrecord.write_tfrecords(tmp_path / 'found', RECORDS)
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
