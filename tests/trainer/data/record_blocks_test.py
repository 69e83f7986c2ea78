import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from luna_tfds import records
from trainer.data import record_blocks
from trainer.data import split_index
from trainer.data.split_index import SplitIndex
from trainer.data.split_source import ShardSlice


def numbers_of(blocks):
  return [
    records.parse_batch(block, (), ('candidate_id',))['candidate_id'].numpy()
    for block in record_blocks.with_options(blocks)
  ]


def read_ranges(source, wanted, chunk_records=64, block_records=32):
  source = split_index.with_index(source)
  index = SplitIndex.of_source(source)
  chunk_of = np.arange(len(index.is_nodule), dtype=np.int32) // chunk_records
  found = record_blocks.find_ranges(np.array(wanted), chunk_of, index, source)
  ranges = record_blocks.RecordRanges(*map(tf.constant, found))
  return numbers_of(record_blocks.range_blocks(source, ranges, block_records))


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


@pytest.mark.parametrize('block_records', [1, 7, 256])
@pytest.mark.parametrize('chunk_records', [10, 90])
def test_ranges_hold_the_wanted_records_alone(
  small_split, block_records, chunk_records
):
  rng = np.random.default_rng(block_records)
  chunks = np.arange(360).reshape(-1, chunk_records)
  wanted = np.concatenate(
    [
      chunk[np.sort(rng.choice(chunk_records, 5, replace=False))]
      for chunk in rng.permutation(chunks)
    ]
  )
  blocks = read_ranges(small_split.source, wanted, chunk_records, block_records)
  np.testing.assert_array_equal(np.sort(np.concatenate(blocks)), np.sort(wanted))
  # The records of a block are of one range.
  assert all(len({n // chunk_records for n in block}) <= 1 for block in blocks)
  again = read_ranges(small_split.source, wanted, chunk_records, block_records)
  np.testing.assert_array_equal(np.concatenate(again), np.concatenate(blocks))


def test_a_chunk_may_come_at_the_start_and_at_the_end_of_a_pass(small_split):
  wanted = [70, 71, 80, 5, 6, 64, 65]
  (first, second, third) = read_ranges(small_split.source, wanted)
  assert first.tolist() == [70, 71, 80]
  assert second.tolist() == [5, 6]
  assert third.tolist() == [64, 65]


def test_ranges_of_slices_start_inside_the_files(small_split):
  paths = [item.path for item in small_split.source.slices]
  slices = (ShardSlice(paths[2], 10, 80), ShardSlice(paths[0], 88, 2))
  source = dataclasses.replace(small_split.source, slices=slices)
  # Records 70 and 71 of the split are 80 and 81 of the file, 260 and 261 of all.
  blocks = read_ranges(source, [70, 71, 80, 81], chunk_records=80)
  assert np.concatenate(blocks).tolist() == [260, 261, 88, 89]
