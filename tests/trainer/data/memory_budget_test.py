import dataclasses

from hypothesis import given
from hypothesis import strategies as st
import pytest

from luna_tfds import records
from trainer.data import memory_budget
from trainer.data.memory_budget import MemoryBudget
from trainer.data.split_source import SplitSource

CUBES = SplitSource('train', (), (48, 48, 48, 1), (9000, 1000), 2**32, '')
PATCHES = dataclasses.replace(CUBES, image_shape=(50, 50, 1))


@pytest.mark.parametrize('megabytes', [64, 256, 1024])
def test_blocks_and_batches_stay_within_their_shares(megabytes):
  budget = MemoryBudget.for_source(CUBES, megabytes)
  one = records.record_bytes(CUBES.image_shape)
  # tf.data holds up to 24 blocks; half of the budget is for them.
  block = budget.block_records(1.0)
  assert block == 8 or 24 * block * one <= megabytes * 2**20 / 2
  # A decoded image is float32, twice its stored size; an eighth is for batches.
  ahead = budget.batches_ahead(12)
  assert ahead == 1 or ahead * 2 * 12 * one <= megabytes * 2**20 / 8


def test_blocks_of_small_records_have_a_largest_size():
  budget = MemoryBudget.for_source(PATCHES, 1024)
  assert budget.block_records(1.0) == memory_budget.MAX_BLOCK_RECORDS
  assert budget.batches_ahead(1) == 8


def test_a_split_is_held_if_it_fits():
  exact = dataclasses.replace(PATCHES, num_bytes=3 * 2**20)
  assert MemoryBudget.for_source(exact, 3).holds_split(exact)
  assert not MemoryBudget.for_source(exact, 2).holds_split(exact)


def test_nodules_are_held_in_a_quarter():
  budget = MemoryBudget(num_bytes=4000, record_bytes=10)
  assert budget.holds_nodules(100)
  assert not budget.holds_nodules(101)


@pytest.mark.parametrize(
  ('share', 'at_most', 'at_least', 'expected'),
  [
    (1.0, 1000, 1, 100),  # a quarter of 4,000 bytes
    (0.5, 1000, 1, 50),
    (1.0, 70.9, 1, 70),
    (0.5, 1000, 64, 64),
  ],
)
def test_shuffle_buffer(share, at_most, at_least, expected):
  budget = MemoryBudget(num_bytes=4000, record_bytes=10)
  assert budget.shuffle_records(share, at_most, at_least) == expected


@pytest.mark.parametrize(
  ('image_shape', 'expected'),
  [
    ((50, 50, 1), 256),
    ((50, 50, 5), 83),  # 4 MiB of float32
    ((48, 48, 48, 1), 9),
    ((256, 256, 256, 1), 1),
  ],
)
def test_evaluation_batches_are_smaller_for_larger_images(image_shape, expected):
  assert memory_budget.evaluation_batch_size(image_shape) == expected


@given(st.integers(1, 10**5), st.integers(300, 10**6), st.integers(1, 512))
def test_each_size_is_at_least_one_record(megabytes, record_bytes, batch_size):
  budget = MemoryBudget(megabytes * 2**20, record_bytes)
  assert 8 <= budget.block_records(0.5) <= memory_budget.MAX_BLOCK_RECORDS
  assert 1 <= budget.batches_ahead(batch_size) <= 8
