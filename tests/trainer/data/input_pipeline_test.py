import collections
import dataclasses
import gc
import hashlib
import os
import subprocess
import sys

import numpy as np
import pytest
from scipy import stats
import tensorflow as tf

from luna_tfds import records
from luna_tfds import tfrecord
from luna_tfds.errors import UsageError
from trainer.data import augment
from trainer.data import input_pipeline
from trainer.data import split_source

SHAPE = (4, 4, 1)
REGIMES = {
  'memory': {'balance': 'rejection'},
  'files': {'balance': 'rejection', 'memory_budget_mb': 1},
  'streams': {'balance': 'streams'},
  'none': {'balance': 'none'},
  'none from files': {'balance': 'none', 'memory_budget_mb': 1},
}


def write_source(folder, negatives, positives, shards=4, shape=SHAPE, excluded=()):
  """Shuffled records whose image holds, all over, the record's number."""
  count = negatives + positives
  rng = np.random.default_rng(1)
  labels = rng.permutation(np.arange(count) < positives).astype(int)
  encoder = records.RecordEncoder(shape)
  pieces = []
  for shard, numbers in enumerate(np.array_split(np.arange(count), shards)):
    path = folder / f'fake-train.tfrecord-{shard:05d}-of-{shards:05d}'
    serialized = [
      encoder.encode(
        records.Record(
          np.full(shape, n, np.int16),
          int(labels[n]),
          f'1.2.{shard}',
          int(n),
          excluded=n in excluded,
        )
      )
      for n in numbers
    ]
    tfrecord.write_tfrecords(path, serialized)
    pieces.append(split_source.Piece(str(path), 0, len(numbers)))
  num_bytes = count * records.record_bytes(shape)
  source = split_source.Source(
    'train', tuple(pieces), shape, (negatives, positives), num_bytes, 'fake'
  )
  return source, labels


@pytest.fixture(scope='module')
def small(tmp_path_factory):
  return write_source(tmp_path_factory.mktemp('small'), 300, 60)


@pytest.fixture(scope='module')
def large(tmp_path_factory):
  """More than a budget of 1 MB."""
  return write_source(tmp_path_factory.mktemp('large'), 3000, 600, shards=7)


def config_of(**fields):
  return input_pipeline.InputConfig(**{'batch_size': 12, **fields})


def source_for(name, small, large):
  return (large if 'memory_budget_mb' in REGIMES[name] else small)[0]


def drawn(source, config, batches, **arguments):
  """Numbers and labels of the records of some batches, [batches, batch_size]."""
  dataset = input_pipeline.train_batches(source, config, **arguments).take(batches)
  pairs = [(x.numpy()[:, 0, 0, 0], y.numpy()) for x, y in dataset]
  return tuple(np.stack(parts) for parts in zip(*pairs))


def hashes(source, config, batches, **arguments):
  dataset = input_pipeline.train_batches(source, config, **arguments).take(batches)
  return [
    hashlib.sha256(x.numpy().tobytes() + y.numpy().tobytes()).hexdigest()
    for x, y in dataset
  ]


@pytest.mark.parametrize('name', REGIMES)
def test_element_spec_is_static(name, small, large):
  source = source_for(name, small, large)
  for recipe, dtype in (('turns', tf.int16), ('standard', tf.float32)):
    config = config_of(augment=augment.RECIPES[recipe], **REGIMES[name])
    image, label = input_pipeline.train_batches(source, config).element_spec
    assert image == tf.TensorSpec((12, *SHAPE), dtype)
    assert label == tf.TensorSpec((12,), tf.float32)


@pytest.mark.parametrize('name', REGIMES)
def test_labels_belong_to_images(name, small, large):
  source, labels = large if 'memory_budget_mb' in REGIMES[name] else small
  numbers, given = drawn(source, config_of(**REGIMES[name]), 40)
  np.testing.assert_array_equal(given, labels[numbers])


def oracle(labels, wanted, kept):
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
  number, label = next(iter(dataset.map(lambda _, element: element).batch(kept)))
  return number.numpy(), label.numpy()


@pytest.mark.parametrize(
  ('ratio', 'fraction', 'regime'),
  [(1, 0.5, 'memory'), (5, 0.5, 'files'), (40, 0.25, 'memory'), (400, 0.5, 'files')],
)
def test_distribution_is_rejection_resamples(tmp_path, capfd, ratio, fraction, regime):
  positives = {1: 300, 5: 700, 40: 40, 400: 10}[ratio]
  source, labels = write_source(tmp_path, ratio * positives, positives)
  # From files whatever the size of the split.
  source = dataclasses.replace(source, num_bytes=2**30 if regime == 'files' else 1)
  config = config_of(balance='rejection', positive_fraction=fraction, seed=11)
  batches = {1: 300, 5: 200, 40: 60, 400: 30}[ratio]
  numbers, given = drawn(source, config, batches)
  numbers, given = numbers.ravel(), given.ravel()
  theirs, their_labels = oracle(labels, fraction, len(numbers))
  capfd.readouterr()  # tf.data prints as it rejects
  table = [np.bincount(part.astype(int), minlength=2) for part in (given, their_labels)]
  assert stats.chi2_contingency(table).pvalue > 1e-3
  assert stats.binomtest(int(given.sum()), len(given), fraction).pvalue > 1e-3
  # Which records of a class come: all alike, so in ten equal groups as often.
  for label in (0, 1):
    members = np.flatnonzero(labels == label)
    groups = np.empty(len(labels), int)
    groups[members] = np.arange(len(members)) * 10 // len(members)
    rows = [
      np.bincount(groups[part[of == label]], minlength=10)
      for part, of in ((numbers, given), (theirs, their_labels))
    ]
    assert stats.chi2_contingency(rows).pvalue > 1e-3


@pytest.mark.parametrize('name', ['memory', 'files'])
def test_a_pass_takes_the_short_class_whole_and_once(name, small, large):
  source, labels = small if name == 'memory' else large
  config = config_of(positive_fraction=0.5, batch_size=1, **REGIMES[name])
  balance = input_pipeline.plan_balance(source, config)
  # The first pass ends where a record comes again.
  numbers = drawn(source, config, int(balance.kept_per_pass * 1.3))[0].ravel()
  repeated = next(k for k in range(len(numbers)) if numbers[k] in numbers[:k])
  nodules = [n for n in numbers[:repeated] if labels[n]]
  assert len(nodules) >= 0.95 * source.label_counts[1]


def test_no_balance_takes_every_record_once_a_pass(small):
  source, _ = small
  numbers, _ = drawn(source, config_of(balance='none'), 30)
  np.testing.assert_array_equal(np.sort(numbers.ravel()), np.arange(360))


def test_no_balance_from_files_takes_every_record_once_a_pass(large):
  source, _ = large
  numbers, _ = drawn(source, config_of(**REGIMES['none from files']), 300)
  np.testing.assert_array_equal(np.sort(numbers.ravel()), np.arange(3600))


@pytest.mark.parametrize(
  ('batch_size', 'fraction'), [(12, 0.5), (3, 0.5), (1, 0.5), (10, 0.35), (2, 0.07)]
)
def test_streams_meet_the_share_exactly(small, batch_size, fraction):
  source, labels = small
  config = config_of(
    balance='streams', batch_size=batch_size, positive_fraction=fraction
  )
  numbers, given = drawn(source, config, 200, steps_per_epoch=200)
  np.testing.assert_array_equal(given, labels[numbers])
  assert given.mean() == pytest.approx(fraction, abs=1e-6)
  assert input_pipeline.plan_balance(source, config).prior == pytest.approx(fraction)
  per_batch = given.sum(1)
  assert per_batch.max() - per_batch.min() <= 1


def test_streams_of_an_odd_share_tell_the_share_they_have(small):
  config = config_of(balance='streams', positive_fraction=0.123456)
  given = drawn(small[0], config, 64, steps_per_epoch=64)[1]
  prior = input_pipeline.plan_balance(small[0], config).prior
  assert given.mean() == pytest.approx(prior, abs=1e-6)
  assert prior == pytest.approx(0.123456, abs=0.005)


def test_streams_take_every_record_of_a_class_alike(small):
  source, labels = small
  numbers, _ = drawn(source, config_of(balance='streams'), 300, steps_per_epoch=300)
  counts = np.bincount(numbers.ravel(), minlength=360)
  assert set(counts[labels == 1]) == {30}
  assert set(counts[labels == 0]) == {6}


def test_nodules_too_many_for_memory_are_streamed(large):
  source, labels = large
  config = config_of(balance='streams', memory_budget_mb=1)
  few = dataclasses.replace(source, image_shape=SHAPE)
  numbers, given = drawn(few, config, 100)
  assert not input_pipeline._fits(
    dataclasses.replace(source, image_shape=(50, 50, 1)), config, 600
  )
  from_files = input_pipeline._nodules_of_files(source, config, [6], False, 600)
  blocks = list(from_files(tf.constant(0, tf.int64)).take(100))
  parsed = records.parse_batch(tf.concat(blocks, 0), SHAPE, ['image', 'label'])
  assert set(parsed['label'].numpy()) == {1}
  assert sorted(parsed['image'].numpy()[:, 0, 0, 0]) == sorted(np.flatnonzero(labels))
  np.testing.assert_array_equal(given, labels[numbers])


@pytest.mark.parametrize('balance', ['rejection', 'streams'])
def test_tiny_data_does_not_starve(tmp_path, balance):
  source, _ = write_source(tmp_path, 2, 1, shards=2)
  config = config_of(balance=balance, batch_size=64)
  given = drawn(source, config, 3, steps_per_epoch=3)[1]
  assert 70 < given.sum() < 122


@pytest.mark.parametrize('name', REGIMES)
def test_a_run_is_reproducible_and_goes_on_where_it_stopped(name, small, large):
  source = source_for(name, small, large)
  config = config_of(augment=augment.RECIPES['standard'], seed=4, **REGIMES[name])
  tf.random.set_seed(1)
  whole = hashes(source, config, 21, steps_per_epoch=7)
  assert len(set(whole)) == 21
  # Not even of the program's global seed does the order depend.
  tf.random.set_seed(2)
  rest = hashes(source, config, 10, steps_per_epoch=7, start_epoch=1, start_step=4)
  assert rest == whole[11:]
  other = dataclasses.replace(config, seed=5)
  assert not set(hashes(source, other, 7, steps_per_epoch=7)) & set(whole)


@pytest.mark.parametrize('name', REGIMES)
def test_every_epoch_and_pass_has_another_order(name, small, large):
  source = source_for(name, small, large)
  config = config_of(**REGIMES[name])
  steps = input_pipeline.default_steps_per_epoch(source, config)
  numbers = drawn(source, config, 2 * steps)[0].reshape(2, -1)
  # Of one epoch that is longer than a pass, too.
  one_epoch = drawn(source, config, 2 * steps, steps_per_epoch=2 * steps)[0]
  for first, second in (numbers, one_epoch.reshape(2, -1)):
    assert np.mean(first == second) < 0.1


def test_shuffle_reaches_over_files(large):
  numbers, _ = drawn(large[0], config_of(**REGIMES['none from files']), 300)
  shards = numbers.ravel() * 7 // 3600
  # Neighbours of one file would be alike; of a perfect shuffle a seventh is.
  assert np.mean(shards[1:] == shards[:-1]) < 0.5


def test_short_epochs_see_all_parts_of_files(tmp_path):
  source, _ = write_source(tmp_path, 4000, 4000, shards=2)
  config = config_of(balance='rejection', memory_budget_mb=1)
  numbers = drawn(source, config, 60, steps_per_epoch=2)[0].ravel()
  counts = np.histogram(numbers % 4000, bins=4, range=(0, 4000))[0]
  assert counts.min() > 0.1 * len(numbers)


def test_auto_chooses_by_amplification(tmp_path, small, capsys):
  assert input_pipeline.plan_balance(small[0], config_of()).mode == 'rejection'
  rare, _ = write_source(tmp_path, 400, 4)
  balance = input_pipeline.plan_balance(rare, config_of())
  assert balance.mode == 'streams'
  assert balance.amplification == pytest.approx(404 / 8)
  input_pipeline.train_batches(rare, config_of())
  lines = capsys.readouterr().err.splitlines()
  assert lines == [
    'balance: streams, 50.0% nodules; rejection would read 50.5 records for one it '
    'keeps; streamed'
  ]


@pytest.mark.parametrize('fraction', [0.05, 0.5, 0.9])
def test_plan_keeps_the_short_class_whole(small, fraction):
  balance = input_pipeline.plan_balance(
    small[0], config_of(balance='rejection', positive_fraction=fraction)
  )
  negative, positive, _, dropped = balance.keep
  assert max(negative, positive) == 1.0
  assert dropped == 0
  kept = 300 * negative + 60 * positive
  assert 60 * positive / kept == pytest.approx(fraction)
  assert balance.kept_per_pass == pytest.approx(kept)
  assert balance.amplification == pytest.approx(360 / kept)


def test_a_missing_class_is_told(tmp_path):
  source, _ = write_source(tmp_path, 8, 0)
  with pytest.raises(ValueError, match='8 non-nodules and 0 nodules; both are needed'):
    input_pipeline.plan_balance(source, config_of())
  assert input_pipeline.plan_balance(source, config_of(balance='none')).prior == 0


EXCLUDED = frozenset(range(0, 360, 5))


@pytest.fixture(scope='module')
def with_excluded(tmp_path_factory):
  return write_source(tmp_path_factory.mktemp('ex'), 300, 60, excluded=EXCLUDED)


@pytest.mark.parametrize('name', REGIMES)
def test_excluded_are_dropped_and_the_mix_stays(name, with_excluded):
  source, labels = with_excluded
  if 'memory_budget_mb' in REGIMES[name]:
    source = dataclasses.replace(source, num_bytes=2**30)
  config = config_of(drop_excluded=True, **REGIMES[name])
  left = np.array([n not in EXCLUDED for n in range(360)])
  balance = input_pipeline.plan_balance(source, config)
  assert balance.amplification * balance.kept_per_pass == pytest.approx(360)
  wanted = labels[left].mean() if 'none' in name else 0.5
  assert balance.prior == pytest.approx(wanted)
  numbers, given = drawn(source, config, 240)
  assert left[numbers].all()
  assert set(numbers.ravel()) == set(np.flatnonzero(left))
  assert given.mean() == pytest.approx(wanted, abs=0.03)


def write_predictions(path, labels, hard):
  rows = ['seriesuid,candidate_id,label,probability']
  for n, label in enumerate(labels):
    shard = next(k for k, p in enumerate(np.array_split(range(360), 4)) if n in p)
    rows.append(f'1.2.{shard},{n},{label},{0.9 if n in hard or label else 0.1}')
  path.write_text('\n'.join(rows) + '\n')
  return str(path)


@pytest.mark.parametrize(
  ('name', 'drop'), [*((name, True) for name in REGIMES), ('files', False)]
)
def test_hard_negatives_come_as_often_as_asked(tmp_path, with_excluded, name, drop):
  source, labels = with_excluded
  if 'memory_budget_mb' in REGIMES[name]:
    source = dataclasses.replace(source, num_bytes=2**30)
  hard = set(np.flatnonzero(labels == 0)[:40])
  path = write_predictions(tmp_path / 'predictions.csv', labels, hard)
  config = config_of(
    hard_negatives=path,
    hard_negative_factor=3.0,
    drop_excluded=drop,
    **REGIMES[name],
  )
  numbers, given = drawn(source, config, 400, steps_per_epoch=400)
  gc.collect()
  counts = np.bincount(numbers.ravel(), minlength=360)
  left = np.array([not drop or n not in EXCLUDED for n in range(360)])
  is_hard = np.isin(np.arange(360), list(hard))
  easy = counts[left & ~is_hard & (labels == 0)].mean()
  assert counts[left & is_hard].mean() / easy == pytest.approx(3, rel=0.1)
  assert not counts[~left].any()
  balance = input_pipeline.plan_balance(source, config)
  wanted = labels[left].mean() if 'none' in name else 0.5
  assert balance.prior == pytest.approx(wanted)
  assert given.mean() == pytest.approx(wanted, abs=0.03)


def test_hard_negatives_of_another_split_are_told(tmp_path, small):
  path = tmp_path / 'predictions.csv'
  path.write_text('seriesuid,candidate_id,label,probability\n9.9,1,0,0.7\n')
  config = config_of(hard_negatives=str(path))
  with pytest.raises(UsageError, match='none of its hard non-nodules is in the split'):
    input_pipeline.plan_balance(small[0], config)


@pytest.mark.parametrize('batch_size', [7, 60, 256, 400])
def test_evaluation_sees_every_record_once_in_stored_order(small, batch_size):
  source, labels = small
  batches = list(input_pipeline.evaluation_batches(source, batch_size))
  sizes = [len(batch['label']) for batch in batches]
  assert sizes[:-1] == [batch_size] * (len(sizes) - 1)
  ids = np.concatenate([batch['candidate_id'] for batch in batches])
  np.testing.assert_array_equal(ids, np.arange(360))
  images = np.concatenate([batch['image'] for batch in batches])
  np.testing.assert_array_equal(images[:, 0, 0, 0], ids)
  np.testing.assert_array_equal(
    np.concatenate([batch['label'] for batch in batches]), labels
  )
  assert batches[0]['seriesuid'][0] == b'1.2.0'


@pytest.mark.parametrize('batch_size', [90, 360, 500])
def test_keras_counts_every_validation_record_once(small, batch_size):
  """At an unknown length Keras counted a last batch of static size twice."""
  import keras

  source, labels = small
  batches = input_pipeline.evaluation_batches(source, batch_size, ('image', 'label'))
  assert int(batches.cardinality()) == -(-360 // batch_size)
  image = keras.Input(SHAPE)
  logit = keras.layers.Dense(1, kernel_initializer='zeros', bias_initializer='ones')(
    keras.layers.Flatten()(image)
  )
  model = keras.Model(image, logit)
  model.compile(metrics=[keras.metrics.BinaryAccuracy(threshold=0.0)], loss='mse')
  pairs = batches.map(lambda r: (r['image'], tf.cast(r['label'], tf.float32)))
  _, accuracy = model.evaluate(pairs, verbose=0)
  assert accuracy == pytest.approx(labels.mean())


def test_evaluation_shapes_are_static_where_they_can_be(small):
  for batch_size, static in ((60, 60), (61, None)):
    dataset = input_pipeline.evaluation_batches(small[0], batch_size, ('image',))
    assert dataset.element_spec == {'image': tf.TensorSpec((static, *SHAPE), tf.int16)}


def test_memory_settings_follow_from_the_budget():
  cube = split_source.Source('train', (), (48, 48, 48, 1), (9000, 1000), 2**32, '')
  for budget in (64, 256, 1024):
    config = config_of(memory_budget_mb=budget)
    one = records.record_bytes(cube.image_shape)
    block = input_pipeline._block_size(cube, config, 1.0)
    assert block == 8 or 24 * block * one <= budget * 2**20 / 2
    ahead = input_pipeline._decoded_ahead(cube, config)
    assert ahead == 1 or ahead * 2 * 12 * one <= budget * 2**20 / 8
  patch = dataclasses.replace(cube, image_shape=(50, 50, 1))
  assert input_pipeline._block_size(patch, config_of(memory_budget_mb=1024), 1.0) == 256


@pytest.mark.parametrize(
  'fields',
  [
    {'batch_size': 0},
    {'balance': 'oversample'},
    {'positive_fraction': 1.0},
    {'memory_budget_mb': 0},
    {'hard_negative_factor': 0.5},
    {'hard_negative_factor': float('nan')},
  ],
)
def test_ranges_are_checked(fields):
  with pytest.raises(ValueError, match=f'{next(iter(fields))} must .* Received: '):
    input_pipeline.InputConfig(**fields)


def test_real_extraction_can_be_drawn_from(data_dir):
  builder = split_source.open_builder(str(data_dir), 'axial_50px')
  source = split_source.open_source(builder, 'train')
  config = config_of(augment=augment.RECIPES['article'])
  image, label = next(iter(input_pipeline.train_batches(source, config)))
  assert image.shape == (12, 50, 50, 1)
  assert image.numpy().min() >= -1000.5
  assert collections.Counter(label.numpy().tolist()).keys() <= {0.0, 1.0}


@pytest.mark.slow
def test_rejection_prints_nothing_but_its_line(tmp_path):
  """tf.data's own prints a warning for each batch of rejections."""
  write_source(tmp_path, 500, 5, shards=1)
  code = (
    'import sys\nfrom trainer import input_pipeline as ip, sources\n'
    'piece = split_source.Piece(sys.argv[1], 0, 505)\n'
    's = split_source.Source("train", (piece,), (4, 4, 1), (500, 5), 2**30, "")\n'
    'c = ip.InputConfig(balance="rejection", batch_size=8)\n'
    'print(len(list(ip.train_batches(s, c).take(4))))\n'
  )
  path = next(tmp_path.glob('*.tfrecord-*'))
  done = subprocess.run(
    [sys.executable, '-c', code, str(path)],
    env={**os.environ, 'TF_CPP_MIN_LOG_LEVEL': '1'},
    capture_output=True,
    text=True,
    check=True,
  )
  assert done.stdout == '4\n'
  ours = [line for line in done.stderr.splitlines() if 'reject' in line.lower()]
  assert len(ours) == 1
  assert ours[0].startswith('balance: rejection')
