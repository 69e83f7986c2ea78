"""What training draws, as numbers of records, at the size of LUNA16."""

import dataclasses

from hypothesis import given
from hypothesis import strategies as st
import numpy as np
import pytest
from scipy import stats

from luna_tfds import record_index
from trainer import config as config_lib
from trainer.data import balance as balance_lib
from trainer.data import sampling_order
from trainer.data import split_source
from trainer.data.sampling_classes import KeepProbabilities
from trainer.data.split_index import SplitIndex

RECORD_BYTES = 5400


def make_source(lengths, nodules, seed=0):
  """A split of shards of these lengths; nodules are at random places."""
  rng = np.random.default_rng(seed)
  count = sum(lengths)
  is_nodule = np.zeros(count, int)
  is_nodule[rng.choice(count, nodules, replace=False)] = 1
  slices, start = [], 0
  for number, length in enumerate(lengths):
    index = record_index.ShardIndex.from_records(
      is_nodule[start : start + length], [False] * length, [RECORD_BYTES] * length
    )
    slices.append(split_source.ShardSlice(f'shard {number}', 0, length, index))
    start += length
  return split_source.SplitSource(
    split='train',
    slices=tuple(slices),
    image_shape=(50, 50, 1),
    label_counts=(count - nodules, nodules),
    num_bytes=count * RECORD_BYTES,
    fingerprint='fake',
  )


@dataclasses.dataclass(frozen=True)
class Case:
  """A split, its balance, and what is drawn of it."""

  balance: balance_lib.Balance
  index: SplitIndex
  chunk_of: np.ndarray
  config: config_lib.InputConfig
  steps: int

  @classmethod
  def make(cls, source, steps, **fields):
    config = config_lib.InputConfig(**fields)
    balance = balance_lib.plan_balance(source, config)
    index = SplitIndex.of_source(balance.source)
    chunk_of = sampling_order.chunk_numbers(index, RECORD_BYTES)
    return cls(balance, index, chunk_of, config, steps)

  def streams(self):
    arguments = self.balance, self.config.seed, self.config.batch_size, self.steps
    if self.balance.mode == 'streams':
      return sampling_order.class_streams(*arguments)
    return (sampling_order.single_stream(*arguments),)

  def draw(self, stream, epoch):
    """The records of an epoch as they are read from files."""
    return np.concatenate(
      [
        stream.sampler.records_of_pass_by_chunk(part.pass_number, self.chunk_of)[
          part.start : part.stop
        ]
        for part in stream.pass_ranges(epoch)
      ]
    )


@pytest.fixture(scope='module')
def luna16_all():
  """As the train split of `axial_50px_all`: 72 shards of unequal lengths."""
  rng = np.random.default_rng(5)
  lengths = rng.integers(300, 12_000, 72)
  return make_source(lengths.tolist(), nodules=1100)


def test_short_epochs_draw_every_non_nodule_once_before_any_twice(luna16_all):
  case = Case.make(luna16_all, steps=200, balance='auto', batch_size=128)
  assert case.balance.mode == 'streams'
  _, non_nodules = case.streams()
  count = luna16_all.label_counts[0]
  counts = np.zeros(luna16_all.num_records, int)
  epochs = -(-count // 12_800) + 1
  drawn = np.concatenate([case.draw(non_nodules, epoch) for epoch in range(epochs)])
  assert len(np.unique(drawn[:count])) == count
  counts = np.bincount(drawn, minlength=luna16_all.num_records)
  assert counts[case.index.is_nodule].max() == 0
  assert set(counts[~case.index.is_nodule]) <= {1, 2}


def test_a_short_epoch_draws_of_many_shards_in_proportion(luna16_all):
  recipe = config_lib.TRAINING_RECIPES['nodule_net']
  case = Case.make(
    luna16_all,
    steps=recipe.steps_per_epoch,
    balance='streams',
    batch_size=config_lib.BATCH_SIZES['nodule_net'],
  )
  _, non_nodules = case.streams()
  # As docs/training.md says.
  drawn = [case.draw(non_nodules, epoch) for epoch in range(recipe.epochs)]
  assert {len(records) for records in drawn} == {6_400}
  shards = [len(np.unique(case.index.slice_of[records])) for records in drawn]
  assert np.mean(shards) == pytest.approx(22, abs=2)
  assert min(shards) > 15
  # Chunks are drawn independently: a chi-square test of chunks of each third of the
  # shards, from the shortest to the longest.
  lengths = np.array([item.take for item in luna16_all.slices])
  third = np.argsort(np.argsort(lengths)) // 24
  records = np.concatenate([case.draw(non_nodules, epoch) for epoch in range(0, 40, 8)])
  observed = np.bincount(third[case.index.slice_of[records]], minlength=3) / 256
  expected = np.bincount(third, weights=lengths)
  expected = expected / expected.sum() * observed.sum()
  assert stats.chisquare(observed, expected).pvalue > 1e-3


@pytest.mark.parametrize('mode', ['rejection', 'streams'])
def test_each_record_is_as_likely_in_the_first_epoch_whatever_its_shard(mode):
  """The chi-square test over unequal shards, with one sample for each of 1,500 seeds."""
  source = make_source([303, 2020, 64, 700], nodules=60)
  counts = np.zeros(source.num_records)
  case = Case.make(source, steps=1, balance=mode, batch_size=16)
  for seed in range(1500):
    config = dataclasses.replace(case.config, seed=seed)
    case = dataclasses.replace(case, config=config)
    drawn = np.concatenate([case.draw(s, 0) for s in case.streams()])
    # One non-nodule of each epoch, so that the samples are independent.
    negatives = drawn[~case.index.is_nodule[drawn]]
    if len(negatives):
      counts[negatives[seed % len(negatives)]] += 1
  negative = ~case.index.is_nodule
  # By shard, and by tenth of the longest one.
  by_shard = np.bincount(case.index.slice_of[negative], counts[negative])
  sizes = np.bincount(case.index.slice_of[negative])
  assert stats.chisquare(by_shard, sizes / sizes.sum() * by_shard.sum()).pvalue > 1e-3
  longest = negative & (case.index.slice_of == 1)
  tenth = case.index.number_in_file[longest] // 202
  by_tenth = np.bincount(tenth, counts[longest])
  sizes = np.bincount(tenth)
  assert stats.chisquare(by_tenth, sizes / sizes.sum() * by_tenth.sum()).pvalue > 1e-3


@pytest.mark.parametrize('steps', [3, 57])
@pytest.mark.parametrize('fraction', [0.5, 0.3])
def test_share_of_nodules_of_rejection_is_the_planned_one(steps, fraction):
  source = make_source([303, 2020, 64, 700], nodules=500)
  case = Case.make(
    source, steps=steps, balance='rejection', batch_size=24, positive_fraction=fraction
  )
  (stream,) = case.streams()
  passes = 12
  draws = stream.sampler.drawn_before(passes)
  drawn = np.concatenate(
    [case.draw(stream, e) for e in range(-(-draws // (steps * 24)))]
  )[:draws]
  nodules = case.index.is_nodule[drawn].sum()
  assert abs(nodules - draws * fraction) <= 1
  counts = np.bincount(drawn, minlength=source.num_records)
  for members in (case.index.is_nodule, ~case.index.is_nodule):
    assert counts[members].max() - counts[members].min() <= 1


def test_batches_of_class_streams_hold_the_exact_share():
  source = make_source([40, 50], nodules=20)
  case = Case.make(
    source, steps=7, balance='streams', batch_size=5, positive_fraction=0.33
  )
  nodules, non_nodules = case.streams()
  total = 0
  for epoch in range(20):
    is_nodule = sampling_order.nodules_in_batches(case.balance, 0, 5, 7, epoch)
    assert is_nodule.shape == (7, 5)
    assert set(is_nodule.sum(1)) <= {1, 2}
    assert len(nodules.records_of_epoch(epoch)) == is_nodule.sum()
    assert len(non_nodules.records_of_epoch(epoch)) == (~is_nodule).sum()
    total += is_nodule.sum()
    assert total == int(0.33 * 35 * (epoch + 1) + 1e-9)


@given(
  members=st.lists(st.integers(0, 3), min_size=1, max_size=60),
  keep=st.tuples(*[st.floats(0.05, 1.0)] * 3),
  start=st.integers(0, 500),
  count=st.integers(1, 200),
)
def test_parts_cover_the_draws_of_the_endless_sequence(members, keep, start, count):
  classes = np.array([0, *members], np.int8)
  sampler = sampling_order.RecordSampler(classes, KeepProbabilities(*keep), 1, 'a')
  parts = list(sampler.pass_ranges(start, start + count))
  assert sum(part.stop - part.start for part in parts) == count
  assert sampler.drawn_before(parts[0].pass_number) + parts[0].start == start
  for part in parts:
    drawn = sampler.shuffled_records_of_pass(part.pass_number)
    assert 0 <= part.start < part.stop <= len(drawn)
    assert len(np.unique(drawn)) == len(drawn)
    assert (classes[drawn] != 3).all()
  # The same records, in the order of the files.
  chunk_of = np.arange(len(classes), dtype=np.int32) // 4
  chunks = sampler.records_of_pass_by_chunk(parts[0].pass_number, chunk_of)
  np.testing.assert_array_equal(
    np.sort(chunks), sampler.records_of_pass(parts[0].pass_number)
  )


@pytest.mark.parametrize(
  ('record_bytes', 'expected'), [(5400, 256), (20_000, 64), (221_000, 64)]
)
def test_chunks_are_runs_of_one_shard(record_bytes, expected):
  source = make_source([700, 64, 300], nodules=3)
  index = SplitIndex.of_source(source)
  chunk_of = sampling_order.chunk_numbers(index, record_bytes)
  sizes = np.bincount(chunk_of)
  assert sizes.max() == expected
  for chunk in range(len(sizes)):
    members = np.flatnonzero(chunk_of == chunk)
    assert len(np.unique(index.slice_of[members])) == 1
    assert index.number_in_file[members[0]] % 64 == 0
    assert (np.diff(index.number_in_file[members]) == 1).all()


def test_orders_differ_between_seeds_passes_and_samplers():
  classes = np.zeros(100, np.int8)
  keep = KeepProbabilities(1.0, 1.0, 1.0)
  orders = [
    tuple(
      sampling_order.RecordSampler(classes, keep, seed, name).shuffled_records_of_pass(
        number
      )
    )
    for seed in (0, 1)
    for name in ('a', 'b')
    for number in (0, 1)
  ]
  assert len(set(orders)) == 8
  assert {tuple(sorted(order)) for order in orders} == {tuple(range(100))}
