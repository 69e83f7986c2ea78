import dataclasses
import json

import oracles
import pytest

from luna_tfds import record_index
from luna_tfds import tfrecord
from luna_tfds.record_index import ShardIndex

INDEX = ShardIndex(130, nodules=(3, 100), excluded=(0,), offsets=(0, 6400, 12800))


def test_index_of_records():
  labels = [0] * 130
  labels[3] = labels[100] = 1
  excluded = [number == 0 for number in range(130)]
  assert ShardIndex.from_records(labels, excluded, [84] * 130) == INDEX
  assert ShardIndex.from_records([], [], []) == ShardIndex(0, (), (), ())


def test_index_is_read_as_it_was_written(tmp_path):
  empty = ShardIndex(0, (), (), ())
  by_split = {'train': (INDEX, empty), 'test': (INDEX,)}
  record_index.write_record_index(tmp_path, by_split)
  assert record_index.read_record_index(tmp_path) == by_split


def test_a_dataset_of_version_1_0_0_has_no_index(tmp_path):
  assert record_index.read_record_index(tmp_path) == {}


@pytest.mark.parametrize(
  'changes',
  [
    {'nodules': [100, 3]},
    {'nodules': [130]},
    {'excluded': [-1]},
    {'offsets': [0, 6400]},
    {'offsets': [-1, 6400, 12800]},
    {'offsets': [0, 12800, 6400]},
    {'num_records': 2.5},
    {'other': 1},
    {'offsets': None},
    {'num_records': 'many'},
  ],
)
def test_damaged_index_is_an_error(tmp_path, changes):
  fields = {**dataclasses.asdict(INDEX), **changes}
  (tmp_path / 'record_index.json').write_text(json.dumps({'train': [fields]}))
  with pytest.raises((ValueError, TypeError)):
    record_index.read_record_index(tmp_path)


def test_extracted_datasets_have_an_index(data_dir):
  folder = oracles.dataset_folder(data_dir)
  by_split = record_index.read_record_index(folder)
  paths = {path.name: path for path in folder.glob('*.tfrecord-*')}
  for split, indexes in by_split.items():
    for number, index in enumerate(indexes):
      name = f'luna16_patches-{split}.tfrecord-{number:05d}-of-{len(indexes):05d}'
      records = list(tfrecord.read_tfrecords(paths.pop(name)))
      assert index.num_records == len(records)
      assert index.offsets[:1] == (0,)[: len(records)]
  assert not paths
