from hypothesis import given
from hypothesis import strategies as st
import pytest
import tensorflow as tf

from luna_tfds.errors import UsageError
from trainer.training import distribution


@pytest.mark.parametrize(
  ('num_records', 'replicas', 'expected'),
  [
    (100, 1, 100),
    (1000, 1, 256),
    (1000, 2, 256),
    (1000, 3, 255),
    (2, 2, 2),
    (256, 2, 256),
    # 256 would leave one record for two devices, 254 leaves three.
    (257, 2, 254),
  ],
)
def test_batch_sizes_computed_by_hand(num_records, replicas, expected):
  assert distribution.divisible_batch_size(num_records, replicas, 256) == expected


@pytest.mark.parametrize(('num_records', 'replicas'), [(1, 2), (3, 2), (6, 4)])
def test_too_few_records_for_the_devices_are_refused(num_records, replicas):
  with pytest.raises(
    UsageError, match=f'{num_records} validation records? cannot be divided among'
  ):
    distribution.divisible_batch_size(num_records, replicas, 256)


def batches_of(num_records, size):
  return [min(size, num_records - start) for start in range(0, num_records, size)]


@given(st.integers(1, 3000), st.integers(1, 9), st.integers(9, 300))
def test_every_batch_leaves_each_replica_a_record(num_records, replicas, at_most):
  def is_valid(size):
    batches = batches_of(num_records, size)
    return batches[0] % replicas == 0 and min(batches) >= replicas

  valid = [size for size in range(1, at_most + 1) if is_valid(size)]
  try:
    size = distribution.divisible_batch_size(num_records, replicas, at_most)
  except UsageError:
    assert not valid
  else:
    assert size <= at_most
    assert is_valid(size)


def test_strategies():
  assert distribution.make_strategy('none').num_replicas_in_sync == 1
  mirrored = distribution.make_strategy('mirrored')
  devices = tf.config.list_logical_devices('CPU')
  assert mirrored.num_replicas_in_sync == len(devices)


def test_training_over_several_processes_is_refused():
  with pytest.raises(
    UsageError, match=r'--strategy=multiworker: .*--strategy=mirrored'
  ):
    distribution.make_strategy('multiworker')


def test_a_stream_is_divided_by_records_and_not_by_files():
  dataset = distribution.shard_by_data(tf.data.Dataset.range(6).batch(3))
  policy = dataset.options().experimental_distribute.auto_shard_policy
  assert policy == tf.data.experimental.AutoShardPolicy.DATA
  assert [list(batch) for batch in dataset.as_numpy_iterator()] == [
    [0, 1, 2],
    [3, 4, 5],
  ]
