import itertools

import numpy as np
import pytest
from scipy import stats
import tensorflow as tf

from trainer.data import stream_seeds


def splitmix64(state, count):
  """The published C code, in Python."""
  mask = 2**64 - 1
  for _ in range(count):
    state = (state + 0x9E3779B97F4A7C15) & mask
    z = state
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & mask
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
    yield z ^ (z >> 31)


def test_random_integers_are_those_of_splitmix64(monkeypatch):
  class Digest:
    def __init__(self, content, digest_size):
      assert (content, digest_size) == (b'3 deck 5', 8)

    def digest(self):
      return (2**64 - 12345).to_bytes(8, 'little')

  monkeypatch.setattr(stream_seeds.hashlib, 'blake2b', Digest)
  found = stream_seeds.random_integers(3, 'deck', 5, 20)
  assert found.dtype == np.uint64
  assert found.tolist() == list(splitmix64(2**64 - 12345, 20))


def test_random_integers_stay_the_same():
  # A change here would change every training that is continued.
  assert stream_seeds.random_integers(0, 'order', 0, 2).tolist() == [
    7495494439080098222,
    3518599310551730713,
  ]
  longer = stream_seeds.random_integers(0, 'order', 0, 50)
  assert longer[:2].tolist() == stream_seeds.random_integers(0, 'order', 0, 2).tolist()


def test_random_integers_depend_on_each_argument():
  keys = itertools.product((0, 1, 2**32 - 1), ('order', 'deck'), (0, 1, 10**6))
  firsts = {int(stream_seeds.random_integers(*key, 1)[0]) for key in keys}
  assert len(firsts) == 18


def test_random_order_is_a_uniform_permutation():
  orders = [stream_seeds.random_order(7, 'a', n, 4).tolist() for n in range(2400)]
  assert {tuple(sorted(order)) for order in orders} == {(0, 1, 2, 3)}
  counts = np.unique([str(order) for order in orders], return_counts=True)[1]
  assert len(counts) == 24
  assert stats.chisquare(counts).pvalue > 1e-3


@pytest.mark.parametrize('count', [0, 1])
def test_random_order_of_few(count):
  assert stream_seeds.random_order(0, 'a', 0, count).tolist() == list(range(count))


def test_no_two_batches_share_a_seed():
  numbers = (0, 1, 2, stream_seeds.MAX_NUMBER, stream_seeds.MAX_NUMBER**2 - 1)
  seeds = {
    tuple(stream_seeds.op_seed(seed, tf.constant(number, tf.int64)).numpy())
    for seed, number in itertools.product((0, 1, 2**32 - 1), numbers)
  }
  assert len(seeds) == 15


def test_batches_are_numbered_through_all_epochs():
  numbers = [
    list(stream_seeds.number_batches(tf.constant(epoch, tf.int64)).take(3))
    for epoch in (0, 1, 7)
  ]
  base = stream_seeds.MAX_NUMBER
  assert np.array(numbers).tolist() == [
    [0, 1, 2],
    [base, base + 1, base + 2],
    [7 * base, 7 * base + 1, 7 * base + 2],
  ]
