import itertools

import numpy as np
import tensorflow as tf

from trainer.data import stream_seeds

PURPOSES = ('order', 'offset', 'reject', 'shuffle', 'nodules', 'mix', 'augment')


def seed_of(seed, purpose, number):
  values = stream_seeds.op_seed(seed, purpose, tf.constant(number, tf.int64))
  assert values.dtype == tf.int64
  return tuple(values.numpy())


def test_no_two_ops_share_a_seed():
  numbers = (0, 1, 2, stream_seeds.MAX_NUMBER, stream_seeds.MAX_NUMBER**2 - 1)
  seeds = {
    seed_of(*key) for key in itertools.product((0, 1, 2**32 - 1), PURPOSES, numbers)
  }
  assert len(seeds) == 3 * len(PURPOSES) * len(numbers)


def test_seeds_of_earlier_releases_stay():
  # A change here would change every training that is continued.
  assert seed_of(3, 'order', 0) == (21, 0)
  assert seed_of(0, 'augment', 2) == (6, 2 * 2**22)


def test_adding_the_number_of_a_block_gives_no_seed_of_another_pass():
  first, second = (np.array(seed_of(0, 'reject', number)) for number in (0, 1))
  assert second[1] - first[1] > stream_seeds.MAX_NUMBER


def test_passes_are_numbered_through_all_epochs():
  numbers = [
    list(stream_seeds.number_passes(tf.constant(epoch, tf.int64)).take(3))
    for epoch in (0, 1, 7)
  ]
  base = stream_seeds.MAX_NUMBER
  assert np.array(numbers).tolist() == [
    [0, 1, 2],
    [base, base + 1, base + 2],
    [7 * base, 7 * base + 1, 7 * base + 2],
  ]
