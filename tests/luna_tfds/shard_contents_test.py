import numpy as np
import pytest

from luna_tfds import records
from luna_tfds import shard_contents
from luna_tfds import tfrecord

SHAPE = (2, 3, 1)


def write_shard(path, *made):
  encoder = records.RecordEncoder(SHAPE)
  tfrecord.write_tfrecords(path, [encoder.encode(record) for record in made])
  return path


def make_record(candidate_id, label, excluded=False):
  image = np.full(SHAPE, candidate_id, np.int16)
  return records.Record(
    image, label, 'scan', candidate_id, subset=candidate_id % 2, excluded=excluded
  )


def test_contents_of_a_shard(tmp_path):
  made = [make_record(7, 1), make_record(2, 0, excluded=True), make_record(4, 0)]
  path = write_shard(tmp_path / 'shard', *made)
  contents = shard_contents.read_shard(path, SHAPE)
  assert contents.keys == ['scan/7', 'scan/2', 'scan/4']
  assert contents.labels == [1, 0, 0]
  assert contents.label_counts == [2, 1]
  assert contents.excluded == [False, True, False]
  assert contents.subsets == {0, 1}
  assert contents.num_bytes == list(map(len, tfrecord.read_tfrecords(path)))
  assert contents.index().nodules == (0,)


def test_an_empty_shard(tmp_path):
  contents = shard_contents.read_shard(write_shard(tmp_path / 'shard'), SHAPE)
  assert (contents.keys, contents.label_counts) == ([], [0, 0])


@pytest.mark.parametrize(
  ('record', 'shape', 'problem'),
  [
    (make_record(1, 0), (2, 3, 2), 'label 0, 12 bytes of image, expected 24'),
    (make_record(1, 2), SHAPE, 'label 2, 12 bytes of image, expected 12'),
  ],
)
def test_a_record_of_another_dataset(record, shape, problem, tmp_path):
  path = write_shard(tmp_path / 'shard', record)
  with pytest.raises(ValueError, match=r'shard: record 0 \(from 0\): ' + problem):
    shard_contents.read_shard(path, shape)
