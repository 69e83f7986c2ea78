import dataclasses

import fake_source
import numpy as np
import pytest
import tensorflow as tf

from luna_tfds import tfrecord
from trainer.data import split_index
from trainer.data.split_index import SplitIndex
from trainer.data.split_source import ShardSlice


@pytest.fixture
def source(with_excluded):
  """A split of two slices, whose shards have no stored index."""
  paths = [item.path for item in with_excluded.source.slices]
  slices = (ShardSlice(paths[3], 5, 80), ShardSlice(paths[0], 0, 90))
  return dataclasses.replace(with_excluded.source, slices=slices)


def test_index_of_slices(source, with_excluded, excluded_numbers):
  index = SplitIndex.of_source(split_index.with_index(source))
  numbers = np.concatenate([np.arange(275, 355), np.arange(90)])
  np.testing.assert_array_equal(index.is_nodule, with_excluded.labels[numbers] == 1)
  np.testing.assert_array_equal(
    index.is_excluded, [n in excluded_numbers for n in numbers]
  )
  np.testing.assert_array_equal(index.slice_of, [0] * 80 + [1] * 90)
  np.testing.assert_array_equal(index.number_in_file, numbers % 270)


def test_prior_is_that_of_the_records_that_metrics_count(source, excluded_numbers):
  index = SplitIndex.of_source(split_index.with_index(source))
  counted = ~index.is_excluded
  assert not counted.all()
  assert index.prevalence == index.is_nodule[counted].sum() / counted.sum()
  all_excluded = dataclasses.replace(index, is_excluded=np.ones(len(counted), bool))
  assert all_excluded.prevalence == 0


def test_stored_index_equals_the_one_that_is_read(dataset):
  source = dataset.open_split('train+test')
  assert all(item.index for item in source.slices)
  slices = tuple(dataclasses.replace(item, index=None) for item in source.slices)
  read = split_index.with_index(dataclasses.replace(source, slices=slices))
  assert [item.index for item in read.slices] == [item.index for item in source.slices]


def test_a_split_with_its_index_is_not_read(source):
  indexed = split_index.with_index(source)
  assert split_index.with_index(indexed) is indexed


def test_an_index_is_needed(source):
  with pytest.raises(ValueError, match='has no index'):
    SplitIndex.of_source(source)


def test_reading_starts_at_the_stored_offsets(tmp_path):
  split = fake_source.write_split(tmp_path, 150, 50, shards=1)
  (item,) = split_index.with_index(split.source).slices
  offsets, skips = split_index.start_near(item, np.array([0, 63, 64, 199]))
  assert skips.tolist() == [0, 63, 0, 7]
  serialized = list(tfrecord.read_tfrecords(tmp_path / item.path))
  ends = np.cumsum([len(record) + 16 for record in serialized])
  assert offsets.tolist() == [0, 0, ends[63], ends[191]]


def test_a_damaged_shard_is_an_error(tmp_path):
  source = fake_source.write_split(tmp_path, 20, 5, shards=1).source
  path = tmp_path / source.slices[0].path
  path.write_bytes(path.read_bytes()[:-3])
  with pytest.raises(tf.errors.DataLossError):
    split_index.with_index(source)
