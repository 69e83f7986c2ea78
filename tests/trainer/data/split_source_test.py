import pytest

from trainer.data.split_source import ShardSlice
from trainer.data.split_source import SplitSource


def source(*slices, label_counts=(0, 0)):
  return SplitSource('train', slices, (4, 4, 1), label_counts, 0, '')


def test_prior_is_the_share_of_nodules():
  assert source(label_counts=(30, 10)).num_records == 40
  assert source(label_counts=(30, 10)).nodule_fraction == 0.25
  assert source().nodule_fraction == 0


@pytest.mark.parametrize(
  ('one', 'other', 'shared'),
  [
    (ShardSlice('a', 0, 10), ShardSlice('a', 0, 10), 10),
    (ShardSlice('a', 0, 10), ShardSlice('b', 0, 10), 0),
    (ShardSlice('a', 0, 10), ShardSlice('a', 7, 10), 3),
    (ShardSlice('a', 7, 10), ShardSlice('a', 0, 10), 3),
    (ShardSlice('a', 0, 10), ShardSlice('a', 10, 5), 0),
    (ShardSlice('a', 2, 8), ShardSlice('a', 4, 2), 2),
  ],
)
def test_shared_records_of_two_slices(one, other, shared):
  assert source(one).num_shared_records(source(other)) == shared


def test_shared_records_are_summed_over_files():
  train = source(ShardSlice('a', 0, 10), ShardSlice('b', 5, 5))
  test = source(ShardSlice('b', 0, 7), ShardSlice('a', 9, 1), ShardSlice('c', 0, 4))
  assert train.num_shared_records(test) == 3


def test_shared_records_of_an_extracted_dataset(dataset):
  train = dataset.open_split('train')
  assert train.num_shared_records(train) == train.num_records
  assert train.num_shared_records(dataset.open_split('test')) == 0
  part = dataset.open_split('train[:20]')
  assert train.num_shared_records(part) == 20
