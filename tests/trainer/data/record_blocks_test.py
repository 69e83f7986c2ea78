import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from luna_tfds import records
from trainer.data import record_blocks
from trainer.data.split_source import ShardSlice


def numbers_of(blocks):
  return [
    records.parse_batch(block, (), ('candidate_id',))['candidate_id'].numpy()
    for block in record_blocks.with_options(blocks)
  ]


def shuffled(source, *, number=0, random_offset=False, seed=3):
  return numbers_of(
    record_blocks.shuffled_blocks(
      source, 32, seed, tf.constant(number, tf.int64), random_offset=random_offset
    )
  )


def test_stored_blocks_keep_the_order_and_end_with_their_file(small_split):
  blocks = numbers_of(record_blocks.stored_blocks(small_split.source, 32))
  # Four files of 90 records.
  assert [len(block) for block in blocks] == [32, 32, 26] * 4
  np.testing.assert_array_equal(np.concatenate(blocks), np.arange(360))


def test_only_the_records_of_a_slice_are_read(small_split):
  paths = [item.path for item in small_split.source.slices]
  slices = (ShardSlice(paths[2], 10, 5), ShardSlice(paths[0], 88, 2))
  source = dataclasses.replace(small_split.source, slices=slices)
  (first, second) = numbers_of(record_blocks.stored_blocks(source, 32))
  assert first.tolist() == [190, 191, 192, 193, 194]
  assert second.tolist() == [88, 89]
  read = np.concatenate(shuffled(source, random_offset=True))
  assert sorted(read) == [88, 89, 190, 191, 192, 193, 194]


@pytest.mark.parametrize('random_offset', [False, True])
def test_a_pass_reads_every_record_once(small_split, random_offset):
  blocks = shuffled(small_split.source, random_offset=random_offset)
  np.testing.assert_array_equal(np.sort(np.concatenate(blocks)), np.arange(360))
  # The records of a block are of one file.
  assert all(len({n // 90 for n in block}) == 1 for block in blocks)


def test_a_pass_is_a_function_of_its_seed_and_number(small_split):
  first = np.concatenate(shuffled(small_split.source))
  np.testing.assert_array_equal(first, np.concatenate(shuffled(small_split.source)))
  for fields in ({'number': 1}, {'seed': 4}):
    other = np.concatenate(shuffled(small_split.source, **fields))
    assert not np.array_equal(first, other)


def test_random_offset_starts_inside_the_files(small_split):
  starts = [
    shuffled(small_split.source, number=number, random_offset=True)[0][0] % 90
    for number in range(12)
  ]
  assert len(set(starts)) > 6
  assert {
    shuffled(small_split.source, number=number)[0][0] % 90 for number in range(4)
  } == {0}
