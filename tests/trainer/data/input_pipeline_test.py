import collections
import dataclasses

import fake_source
import keras
import numpy as np
import pytest
import tensorflow as tf

from trainer import config as config_lib
from trainer.data import input_pipeline
from trainer.data.balance import plan_balance

STANDARD = config_lib.AUGMENTATIONS['standard']


@pytest.mark.parametrize('name', fake_source.STREAM_FIELDS)
def test_training_batches_have_static_shapes(name, split_for):
  source = split_for(name).source
  for augmentation, dtype in (('flips_and_rot90', tf.int16), ('standard', tf.float32)):
    config = fake_source.input_config(
      augment=config_lib.AUGMENTATIONS[augmentation], **fake_source.STREAM_FIELDS[name]
    )
    image, label = fake_source.train_batches(source, config).element_spec
    assert image == tf.TensorSpec((12, *fake_source.SHAPE), dtype)
    assert label == tf.TensorSpec((12,), tf.float32)


@pytest.mark.parametrize('name', fake_source.STREAM_FIELDS)
def test_a_run_is_reproducible_and_continues_where_it_stopped(name, split_for):
  source = split_for(name).source
  config = fake_source.input_config(
    augment=STANDARD, seed=4, **fake_source.STREAM_FIELDS[name]
  )
  tf.random.set_seed(1)
  whole = fake_source.hash_batches(source, config, 21, steps_per_epoch=7)
  assert len(set(whole)) == 21
  # The order does not even depend on TensorFlow's global seed.
  tf.random.set_seed(2)
  rest = fake_source.hash_batches(
    source, config, 10, steps_per_epoch=7, start_epoch=1, start_step=4
  )
  assert rest == whole[11:]
  other = dataclasses.replace(config, seed=5)
  others = fake_source.hash_batches(source, other, 7, steps_per_epoch=7)
  assert not set(others) & set(whole)


@pytest.mark.parametrize('name', ['memory', 'files'])
def test_the_last_epochs_only_flip_and_rotate_by_90_degrees(name, split_for):
  source = split_for(name).source
  config = fake_source.input_config(augment=STANDARD, **fake_source.STREAM_FIELDS[name])
  arguments = {'steps_per_epoch': 5}
  whole = fake_source.hash_batches(source, config, 15, **arguments)
  last = {'undistorted_from_epoch': 2, **arguments}
  changed = fake_source.hash_batches(source, config, 15, **last)
  assert changed[:10] == whole[:10]
  assert not set(changed[10:]) & set(whole)
  # The records stay the same. A fake image has one value, which distortion changes.
  stored, _ = fake_source.draw(
    source, fake_source.input_config(**fake_source.STREAM_FIELDS[name]), 15, **arguments
  )
  drawn, _ = fake_source.draw(source, config, 15, **last)
  assert not (drawn[:10] == stored[:10]).all()
  np.testing.assert_array_equal(drawn[10:], stored[10:])
  # A run that stopped in them continues with the same batches.
  rest = fake_source.hash_batches(
    source, config, 2, start_epoch=2, start_step=3, **last
  )
  assert rest == changed[13:]


def test_default_epoch_is_one_balanced_pass(small_split):
  config = fake_source.input_config(balance='rejection', batch_size=50)
  balance = plan_balance(small_split.source, config)
  # 60 nodules and 60 of the non-nodules, in batches of 50.
  assert input_pipeline.default_steps_per_epoch(balance, 50) == 3


def test_a_small_split_is_held_in_memory(small_split):
  config = fake_source.input_config(memory_budget_mb=1)
  assert input_pipeline.is_held_in_memory(small_split.source, config)
  larger = small_split.larger_than_any_budget()
  assert not input_pipeline.is_held_in_memory(larger.source, config)


@pytest.mark.parametrize('batch_size', [7, 60, 256, 400])
def test_evaluation_reads_every_record_once_in_stored_order(small_split, batch_size):
  batches = list(input_pipeline.evaluation_batches(small_split.source, batch_size))
  sizes = [len(batch['label']) for batch in batches]
  assert sizes[:-1] == [batch_size] * (len(sizes) - 1)
  ids = np.concatenate([batch['candidate_id'] for batch in batches])
  np.testing.assert_array_equal(ids, np.arange(360))
  images = np.concatenate([batch['image'] for batch in batches])
  np.testing.assert_array_equal(images[:, 0, 0, 0], ids)
  labels = np.concatenate([batch['label'] for batch in batches])
  np.testing.assert_array_equal(labels, small_split.labels)
  assert batches[0]['seriesuid'][0] == b'1.2.0'


@pytest.mark.parametrize('batch_size', [90, 360, 500])
def test_keras_counts_every_validation_record_once(small_split, batch_size):
  """At an unknown length Keras counted a last batch of static size twice."""
  batches = input_pipeline.evaluation_batches(
    small_split.source, batch_size, ('image', 'label')
  )
  assert int(batches.cardinality()) == -(-360 // batch_size)
  image = keras.Input(fake_source.SHAPE)
  logit = keras.layers.Dense(1, kernel_initializer='zeros', bias_initializer='ones')(
    keras.layers.Flatten()(image)
  )
  model = keras.Model(image, logit)
  model.compile(metrics=[keras.metrics.BinaryAccuracy(threshold=0.0)], loss='mse')
  pairs = batches.map(lambda r: (r['image'], tf.cast(r['label'], tf.float32)))
  _, accuracy = model.evaluate(pairs, verbose=0)
  assert accuracy == pytest.approx(small_split.labels.mean())


def test_evaluation_shapes_are_static_where_all_batches_are_full(small_split):
  for batch_size, static in ((60, 60), (61, None)):
    batches = input_pipeline.evaluation_batches(
      small_split.source, batch_size, ('image',)
    )
    shape = (static, *fake_source.SHAPE)
    assert batches.element_spec == {'image': tf.TensorSpec(shape, tf.int16)}


def test_batches_of_an_extracted_dataset(dataset):
  config = fake_source.input_config(augment=config_lib.AUGMENTATIONS['article'])
  image, label = next(
    iter(fake_source.train_batches(dataset.open_split('train'), config))
  )
  assert image.shape == (12, 50, 50, 1)
  assert image.numpy().min() >= -1000.5
  assert collections.Counter(label.numpy().tolist()).keys() == {0.0, 1.0}
