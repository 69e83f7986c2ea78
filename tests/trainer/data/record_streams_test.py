"""What the balanced streams hold: which records, how often, in which order."""

import gc
import os
import subprocess
import sys

import fake_source
import numpy as np
import pytest
from scipy import stats
import tensorflow as tf

from trainer.data import record_streams
from trainer.data.balance import plan_balance

SHORT_CLASS_STREAMS = ('memory', 'files')


@pytest.mark.parametrize('name', fake_source.STREAM_FIELDS)
def test_labels_belong_to_images(name, split_for):
  split = split_for(name)
  config = fake_source.input_config(**fake_source.STREAM_FIELDS[name])
  numbers, labels = fake_source.draw(split.source, config, 40)
  np.testing.assert_array_equal(labels, split.labels[numbers])


def resample(labels, wanted, count):
  """What tf.data's own rejection_resample makes of the same records."""
  prior = labels.mean()
  dataset = tf.data.Dataset.from_tensor_slices((np.arange(len(labels)), labels))
  dataset = dataset.shuffle(len(labels), seed=5).repeat()
  dataset = dataset.rejection_resample(
    lambda number, label: tf.cast(label, tf.int32),
    target_dist=[1 - wanted, wanted],
    initial_dist=[1 - prior, prior],
    seed=7,
  )
  number, label = next(iter(dataset.map(lambda _, element: element).batch(count)))
  return number.numpy(), label.numpy()


@pytest.mark.parametrize(
  ('ratio', 'fraction', 'name'),
  [(1, 0.5, 'memory'), (5, 0.5, 'files'), (40, 0.25, 'memory')]
  + [pytest.param(400, 0.5, 'files', marks=pytest.mark.slow)],
)
def test_distribution_is_that_of_rejection_resample(
  tmp_path, capfd, ratio, fraction, name
):
  positives = {1: 300, 5: 700, 40: 40, 400: 10}[ratio]
  split = fake_source.write_split(tmp_path, ratio * positives, positives)
  if name == 'files':
    split = split.larger_than_any_budget()
  config = fake_source.input_config(
    balance='rejection', positive_fraction=fraction, seed=11
  )
  batches = {1: 300, 5: 200, 40: 60, 400: 30}[ratio]
  drawn = fake_source.draw(split.source, config, batches)
  numbers, labels = (part.ravel() for part in drawn)
  expected_numbers, expected_labels = resample(split.labels, fraction, len(numbers))
  capfd.readouterr()  # tf.data prints as it rejects
  table = [np.bincount(y.astype(int), minlength=2) for y in (labels, expected_labels)]
  assert stats.chi2_contingency(table).pvalue > 1e-3
  assert stats.binomtest(int(labels.sum()), len(labels), fraction).pvalue > 1e-3
  # The records of a class come equally often: so do ten groups of equal size.
  for label in (0, 1):
    members = np.flatnonzero(split.labels == label)
    groups = np.empty(len(split.labels), int)
    groups[members] = np.arange(len(members)) * 10 // len(members)
    rows = [
      np.bincount(groups[part[of == label]], minlength=10)
      for part, of in ((numbers, labels), (expected_numbers, expected_labels))
    ]
    assert stats.chi2_contingency(rows).pvalue > 1e-3


@pytest.mark.parametrize('name', SHORT_CLASS_STREAMS)
def test_a_pass_holds_every_record_of_the_short_class_once(name, split_for):
  split = split_for(name)
  config = fake_source.input_config(batch_size=1, **fake_source.STREAM_FIELDS[name])
  balance = plan_balance(split.source, config)
  # The first pass ends where a record comes again.
  steps = int(balance.kept_per_pass * 1.3)
  numbers = fake_source.draw(split.source, config, steps)[0].ravel()
  repeated = next(k for k in range(len(numbers)) if numbers[k] in numbers[:k])
  nodules = [n for n in numbers[:repeated] if split.labels[n]]
  assert len(nodules) >= 0.95 * split.source.label_counts[1]


@pytest.mark.parametrize(
  ('name', 'batches', 'count'), [('none', 30, 360), ('none from files', 300, 3600)]
)
def test_without_balance_every_record_comes_once_a_pass(
  name, batches, count, split_for
):
  config = fake_source.input_config(**fake_source.STREAM_FIELDS[name])
  numbers, _ = fake_source.draw(split_for(name).source, config, batches)
  np.testing.assert_array_equal(np.sort(numbers.ravel()), np.arange(count))


@pytest.mark.parametrize(
  ('batch_size', 'fraction'), [(12, 0.5), (3, 0.5), (1, 0.5), (10, 0.35), (2, 0.07)]
)
def test_streams_meet_the_share_of_nodules_exactly(small_split, batch_size, fraction):
  small_split = small_split.larger_than_any_budget()
  config = fake_source.input_config(
    balance='streams', batch_size=batch_size, positive_fraction=fraction
  )
  numbers, labels = fake_source.draw(
    small_split.source, config, 200, steps_per_epoch=200
  )
  np.testing.assert_array_equal(labels, small_split.labels[numbers])
  assert labels.mean() == pytest.approx(fraction, abs=1e-6)
  per_batch = labels.sum(1)
  assert per_batch.max() - per_batch.min() <= 1


def test_streams_have_the_share_that_the_balance_states(small_split):
  config = fake_source.input_config(balance='streams', positive_fraction=0.123456)
  _, labels = fake_source.draw(small_split.source, config, 64, steps_per_epoch=64)
  prior = plan_balance(small_split.source, config).nodule_fraction
  assert prior == pytest.approx(0.123456)
  assert labels.sum() == int(prior * labels.size)


@pytest.mark.parametrize('from_files', [False, True])
def test_streams_draw_all_records_of_a_class_equally_often(small_split, from_files):
  split = small_split.larger_than_any_budget() if from_files else small_split
  config = fake_source.input_config(balance='streams')
  numbers, _ = fake_source.draw(split.source, config, 300, steps_per_epoch=300)
  counts = np.bincount(numbers.ravel(), minlength=360)
  assert set(counts[small_split.labels == 1]) == {30}
  assert set(counts[small_split.labels == 0]) == {6}


@pytest.mark.parametrize('held', [True, False])
def test_nodules_come_once_a_pass_held_in_memory_or_not(tmp_path, held):
  # A quarter of 1 MB holds 600 nodules of 4x4 pixels, but not 300 of 24x24.
  shape, positives = ((4, 4, 1), 600) if held else ((24, 24, 1), 300)
  split = fake_source.write_split(tmp_path, 900, positives, shape=shape)
  split = split.larger_than_any_budget()
  config = fake_source.input_config(balance='streams', memory_budget_mb=1)
  steps = positives // 6
  numbers, labels = fake_source.draw(split.source, config, steps, steps_per_epoch=steps)
  np.testing.assert_array_equal(labels, split.labels[numbers])
  np.testing.assert_array_equal(
    np.sort(numbers[labels == 1]), np.flatnonzero(split.labels)
  )


@pytest.mark.parametrize('balance', ['rejection', 'streams'])
def test_a_split_smaller_than_a_batch_fills_it(tmp_path, balance):
  split = fake_source.write_split(tmp_path, 2, 1, shards=2)
  config = fake_source.input_config(balance=balance, batch_size=64)
  _, labels = fake_source.draw(split.source, config, 3, steps_per_epoch=3)
  assert 70 < labels.sum() < 122


@pytest.mark.parametrize('name', fake_source.STREAM_FIELDS)
def test_each_epoch_and_each_pass_has_its_own_order(name, split_for):
  source = split_for(name).source
  config = fake_source.input_config(**fake_source.STREAM_FIELDS[name])
  balance = plan_balance(source, config)
  steps = int(np.ceil(balance.kept_per_pass / 12))
  two_epochs = fake_source.draw(source, config, 2 * steps)[0]
  one_epoch = fake_source.draw(source, config, 2 * steps, steps_per_epoch=2 * steps)[0]
  for numbers in (two_epochs, one_epoch):
    first, second = numbers.reshape(2, -1)
    assert np.mean(first == second) < 0.1


def test_records_of_different_files_are_mixed(large_split):
  config = fake_source.input_config(**fake_source.STREAM_FIELDS['none from files'])
  numbers, _ = fake_source.draw(large_split.source, config, 300)
  shards = numbers.ravel() * 7 // 3600
  # Neighbours would be of one file if unshuffled; of a perfect shuffle a seventh is.
  assert np.mean(shards[1:] == shards[:-1]) < 0.5


@pytest.mark.parametrize('name', fake_source.STREAM_FIELDS)
def test_short_epochs_continue_where_the_one_before_ended(name, split_for):
  split = split_for(name)
  config = fake_source.input_config(**fake_source.STREAM_FIELDS[name])
  prior = plan_balance(split.source, config).nodule_fraction
  # Epochs of 7 batches; together 0.9 of the non-nodules, of which none comes twice.
  epochs = int(0.9 * split.source.label_counts[0] / (7 * 12 * (1 - prior)))
  numbers, labels = fake_source.draw(
    split.source, config, 7 * epochs, steps_per_epoch=7
  )
  negatives = numbers[labels == 0]
  assert len(negatives) > 0.6 * split.source.label_counts[0]
  assert len(np.unique(negatives)) == len(negatives)


@pytest.mark.parametrize('name', fake_source.STREAM_FIELDS)
def test_excluded_records_are_dropped_and_the_share_stays(
  name, with_excluded, excluded_numbers
):
  split = with_excluded
  if 'memory_budget_mb' in fake_source.STREAM_FIELDS[name]:
    split = split.larger_than_any_budget()
  config = fake_source.input_config(
    drop_excluded=True, **fake_source.STREAM_FIELDS[name]
  )
  remaining = np.array([n not in excluded_numbers for n in range(360)])
  numbers, labels = fake_source.draw(split.source, config, 240)
  assert set(numbers.ravel()) == set(np.flatnonzero(remaining))
  expected = split.labels[remaining].mean() if 'none' in name else 0.5
  assert labels.mean() == pytest.approx(expected, abs=0.03)


def write_predictions(path, labels, hard):
  rows = ['seriesuid,candidate_id,label,probability']
  for shard, numbers in enumerate(np.array_split(range(360), 4)):
    for n in numbers:
      probability = 0.9 if n in hard or labels[n] else 0.1
      rows.append(f'1.2.{shard},{n},{labels[n]},{probability}')
  path.write_text('\n'.join(rows) + '\n')
  return str(path)


@pytest.mark.parametrize(
  ('name', 'drop_excluded'),
  [*((name, True) for name in fake_source.STREAM_FIELDS), ('files', False)],
)
def test_hard_negatives_come_as_often_as_configured(
  tmp_path, with_excluded, excluded_numbers, name, drop_excluded
):
  split = with_excluded
  if 'memory_budget_mb' in fake_source.STREAM_FIELDS[name]:
    split = split.larger_than_any_budget()
  hard = set(np.flatnonzero(split.labels == 0)[:40])
  config = fake_source.input_config(
    hard_negatives=write_predictions(tmp_path / 'predictions.csv', split.labels, hard),
    hard_negative_factor=3.0,
    drop_excluded=drop_excluded,
    **fake_source.STREAM_FIELDS[name],
  )
  numbers, labels = fake_source.draw(split.source, config, 400, steps_per_epoch=400)
  # The table of keys must live as long as the batches.
  gc.collect()
  counts = np.bincount(numbers.ravel(), minlength=360)
  remaining = np.array(
    [not drop_excluded or n not in excluded_numbers for n in range(360)]
  )
  is_hard = np.isin(np.arange(360), list(hard))
  others = counts[remaining & ~is_hard & (split.labels == 0)].mean()
  assert counts[remaining & is_hard].mean() / others == pytest.approx(3, rel=0.1)
  assert not counts[~remaining].any()
  expected = split.labels[remaining].mean() if 'none' in name else 0.5
  assert plan_balance(split.source, config).nodule_fraction == pytest.approx(expected)
  assert labels.mean() == pytest.approx(expected, abs=0.03)


def test_undecoded_batches_of_files_are_serialised_records(large_split):
  config = fake_source.input_config(**fake_source.STREAM_FIELDS['files'])
  balance = plan_balance(large_split.source, config)
  stream = record_streams.single_stream_from_files(config, balance, steps=5)
  undecoded = next(iter(stream.undecoded_batches(tf.constant(0, tf.int64))))
  assert undecoded.dtype == tf.string
  assert undecoded.shape == (12,)
  images, labels = stream.decode(undecoded)
  assert images.dtype == tf.int16
  numbers = images.numpy()[:, 0, 0, 0]
  np.testing.assert_array_equal(labels, large_split.labels[numbers])


@pytest.mark.slow
def test_rejection_prints_nothing(tmp_path):
  """tf.data's own rejection prints a line for each batch."""
  fake_source.write_split(tmp_path, 500, 5, shards=1)
  code = """
import sys
from trainer import config as config_lib
from trainer.data import balance, input_pipeline, split_source
item = split_source.ShardSlice(sys.argv[1], 0, 505)
source = split_source.SplitSource('train', (item,), (4, 4, 1), (500, 5), 2**30, '')
config = config_lib.InputConfig(balance='rejection', batch_size=8)
plan = balance.plan_balance(source, config)
print(len(list(input_pipeline.train_batches(config, plan).take(4))))
"""
  path = next(tmp_path.glob('*.tfrecord-*'))
  done = subprocess.run(
    [sys.executable, '-c', code, str(path)],
    env={**os.environ, 'TF_CPP_MIN_LOG_LEVEL': '1'},
    capture_output=True,
    text=True,
    check=True,
  )
  assert done.stdout == '4\n'
  assert 'reject' not in done.stderr.lower()
