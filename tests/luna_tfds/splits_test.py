import itertools
import re

import hypothesis
from hypothesis import strategies as st
import pytest

from luna_tfds import splits

# Two shards of subsets 0 and 3, one of every other.
METADATA = {
  'shard_subsets': {
    'train': [0, 0, 1, 2, 3, 3, 4, 5, 6, 7],
    'validation': [8],
    'test': [9],
  }
}


def shards_of(split_string):
  """Returns the shards (split, index) that a split string names."""
  found = []
  for part in split_string.split('+'):
    split, first, last = re.fullmatch(r'(\w+)\[(\d+)shard:(\d+)shard\]', part).groups()
    assert int(first) < int(last)
    found += [(split, i) for i in range(int(first), int(last))]
  assert len(found) == len(set(found))
  return found


def test_default_splits():
  found = [splits.split_of_subset(k) for k in range(10)]
  assert found == ['train'] * 8 + ['validation', 'test']


def test_fold_by_hand():
  assert splits.fold_splits(METADATA, 3) == {
    'train': (
      'train[0shard:2shard]+train[2shard:3shard]+train[6shard:7shard]'
      '+train[7shard:8shard]+train[8shard:9shard]+train[9shard:10shard]'
      '+validation[0shard:1shard]+test[0shard:1shard]'
    ),
    'validation': 'train[3shard:4shard]',
    'test': 'train[4shard:6shard]',
  }


def test_fold_nine_is_the_default_split():
  fold = {k: shards_of(v) for k, v in splits.fold_splits(METADATA, 9).items()}
  for split, subsets in METADATA['shard_subsets'].items():
    assert fold[split] == [(split, i) for i in range(len(subsets))]


def test_fold_zero_validates_on_subset_nine():
  fold = splits.fold_splits(METADATA, 0)
  assert shards_of(fold['test']) == [('train', 0), ('train', 1)]
  assert shards_of(fold['validation']) == [('test', 0)]


@hypothesis.given(shards=st.lists(st.integers(1, 4), min_size=10, max_size=10))
def test_every_fold_covers_all_shards_once(shards):
  stored = {'train': [], 'validation': [], 'test': []}
  for subset, count in enumerate(shards):
    stored[splits.split_of_subset(subset)] += [subset] * count
  subset_of = {
    (split, i): subset
    for split, subsets in stored.items()
    for i, subset in enumerate(subsets)
  }
  for fold in range(10):
    parts = splits.fold_splits({'shard_subsets': stored}, fold)
    named = {part: shards_of(text) for part, text in parts.items()}
    assert sorted(itertools.chain(*named.values())) == sorted(subset_of)
    assert {subset_of[shard] for shard in named['test']} == {fold}
    assert {subset_of[shard] for shard in named['validation']} == {(fold - 1) % 10}


def test_every_subset_is_the_test_split_of_one_fold():
  tested = [shards_of(splits.fold_splits(METADATA, fold)['test']) for fold in range(10)]
  assert len(set(itertools.chain(*tested))) == sum(map(len, tested)) == 12


def test_subset_slices_join_consecutive_shards():
  slices = splits.subset_slices({'train': [2, 0, 0, 2, 0], 'test': [9]})
  assert slices == {
    0: 'train[1shard:3shard]+train[4shard:5shard]',
    2: 'train[0shard:1shard]+train[3shard:4shard]',
    9: 'test[0shard:1shard]',
  }


@pytest.mark.parametrize('fold', [-1, 10])
def test_fold_out_of_range(fold):
  with pytest.raises(ValueError, match=rf'the fold must be 0\.\.9\. Received: {fold}'):
    splits.fold_splits(METADATA, fold)


def test_fold_of_a_dataset_that_lacks_a_subset():
  metadata = {'shard_subsets': {'train': [0, 1, 2], 'test': [9]}}
  with pytest.raises(
    ValueError,
    match=r'fold 9 needs subset 8 .* contains only records of subsets \[0, 1',
  ):
    splits.fold_splits(metadata, 9)
  assert splits.fold_splits(metadata, 2)['train'] == (
    'train[0shard:1shard]+test[0shard:1shard]'
  )


def test_fold_without_training_data():
  with pytest.raises(ValueError, match='contains no other subset to train on'):
    splits.fold_splits({'shard_subsets': {'validation': [8], 'test': [9]}}, 9)


def test_unknown_subsets_are_never_trained_on():
  # The article's patches: their scans are unknown.
  metadata = {'shard_subsets': {'train': [-1, 0, 1, 2]}}
  assert splits.fold_splits(metadata, 2)['train'] == 'train[1shard:2shard]'


def test_shards_without_records_are_left_out():
  """TFDS cannot read a split string that names only shards without records."""
  counts = {
    'train': [[3, 1], [0, 0], [2, 0], [0, 0], [1, 1], [1, 1], *[[1, 0]] * 4],
    'validation': [[4, 2]],
    'test': [[1, 1]],
  }
  metadata = {**METADATA, 'shard_label_counts': counts}
  assert splits.fold_splits(metadata, 4)['validation'] == 'train[4shard:6shard]'
  train = splits.fold_splits(metadata, 9)['train']
  assert shards_of(train) == [('train', i) for i in (0, 2, 4, 5, 6, 7, 8, 9)]
  with pytest.raises(ValueError, match=r'fold 2 needs subset 2 for its test split'):
    splits.fold_splits(metadata, 2)
