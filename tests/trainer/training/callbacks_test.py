import keras
import numpy as np
import pytest

from luna_tfds.errors import JobError
from trainer.training import callbacks
from trainer.training import checkpoints

NAN = float('nan')


def small_model():
  return keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])


def with_model(callback, model):
  callback.set_model(model)
  return callback


@pytest.mark.parametrize(
  ('values', 'patience', 'expected'),
  [
    ([], 3, False),
    ([0.5, 0.4, 0.3], 3, False),
    ([0.5, 0.4, 0.3, 0.2], 3, True),
    ([0.5, 0.4, 0.6, 0.2], 3, False),
    # An equal value is no rise.
    ([0.5, 0.5, 0.5, 0.5], 3, True),
    ([0.5, 0.4, 0.3, 0.2], 0, False),
  ],
)
def test_should_stop(values, patience, expected):
  assert callbacks.should_stop(values, patience) == expected


def test_early_stopping_counts_the_epochs_of_earlier_runs():
  history = [{'epoch': i, callbacks.MONITOR: v} for i, v in enumerate((0.5, 0.4))]
  for earlier, expected in ((history, True), ([], False)):
    callback = with_model(callbacks.StopEarly(2, earlier), small_model())
    callback.model.stop_training = False
    callback.on_epoch_end(2, {callbacks.MONITOR: 0.45})
    assert callback.model.stop_training == expected


def test_early_stopping_needs_the_metric():
  callback = with_model(callbacks.StopEarly(1, []), small_model())
  callback.model.stop_training = False
  for epoch in range(3):
    callback.on_epoch_end(epoch, {'loss': 1.0})
  assert not callback.model.stop_training


def saved_bias(path):
  return float(keras.models.load_model(path, compile=False).get_weights()[1][0])


def save_epochs(callback, rows):
  """Ends epochs with some metrics; the bias of the model is the epoch."""
  model = small_model()
  with_model(callback, model)
  for epoch, row in enumerate(rows):
    model.layers[0].bias.assign([epoch])
    callback.on_epoch_end(epoch, row)


def monitored(*values):
  return [{} if value is None else {callbacks.MONITOR: value} for value in values]


@pytest.mark.parametrize(
  ('values', 'best'),
  [
    ([0.3, 0.5, 0.4], 1),
    # The first of equal ones.
    ([0.3, 0.5, 0.5], 1),
    ([0.0, 0.0], 0),
    # Without validation the last.
    ([None, None, None], 2),
  ],
)
def test_best_epoch_is_saved(tmp_path, values, best):
  path = tmp_path / 'best.keras'
  save_epochs(callbacks.SaveBest(path, []), monitored(*values))
  assert saved_bias(path) == best
  assert checkpoints.read_note(path).metrics.get(callbacks.MONITOR) == values[best]


def test_best_epoch_of_an_earlier_run_is_kept(tmp_path):
  path = tmp_path / 'best.keras'
  save_epochs(callbacks.SaveBest(path, []), monitored(0.6))
  # Neither is the history needed, nor is a row of an epoch trusted that is not saved.
  history = monitored(0.9, 0.2)
  save_epochs(callbacks.SaveBest(path, history), monitored(0.5, 0.6))
  assert saved_bias(path) == 0
  save_epochs(callbacks.SaveBest(path, history), monitored(0.5, 0.7))
  assert saved_bias(path) == 1


def test_the_loss_chooses_the_epoch_if_validation_has_one_class(tmp_path):
  path = tmp_path / 'best.keras'
  rows = [{callbacks.MONITOR: 0.0, 'val_loss': loss} for loss in (2.0, 0.5, 0.7)]
  monitor = callbacks.ONE_CLASS_MONITOR
  save_epochs(callbacks.SaveBest(path, [], monitor), rows)
  assert saved_bias(path) == 1
  # In a later run too.
  save_epochs(callbacks.SaveBest(path, rows, monitor), [{'val_loss': 0.6}])
  assert saved_bias(path) == 1
  values = callbacks.monitored_values(rows, monitor)
  assert callbacks.should_stop(values, patience=1)
  assert not callbacks.should_stop(values, patience=2)


def test_the_best_value_of_version_1_1_is_that_of_the_history(tmp_path):
  path = tmp_path / 'best.keras'
  checkpoints.save(small_model(), path)
  before = path.read_bytes()
  save_epochs(callbacks.SaveBest(path, monitored(0.6, 0.2)), monitored(0.5))
  assert path.read_bytes() == before
  save_epochs(callbacks.SaveBest(path, monitored(0.6, 0.2)), monitored(0.7))
  assert path.read_bytes() != before


def test_an_epoch_without_a_finite_validation_loss_is_not_the_best(tmp_path):
  path = tmp_path / 'best.keras'
  rows = [{callbacks.MONITOR: 0.9, 'val_loss': NAN}, {callbacks.MONITOR: 0.2}]
  save_epochs(callbacks.SaveBest(path, []), rows)
  assert saved_bias(path) == 1


def save_last(path, model):
  callback = callbacks.SaveLast(path, callbacks.CountSkippedSteps(7))
  return with_model(callback, model)


def test_last_epoch_is_saved_before_its_validation(tmp_path):
  path, model = tmp_path / 'last.keras', small_model()
  callback = save_last(path, model)
  for epoch in range(2):
    callback.on_epoch_begin(epoch)
    callback.on_train_batch_end(0, {'loss': 0.5 - epoch})
    model.layers[0].bias.assign([epoch])
    callback.on_test_begin()
    # What happens in validation and afterwards is not saved.
    model.layers[0].bias.assign([-1])
    callback.on_epoch_end(epoch, {'loss': 0.0})
    assert saved_bias(path) == epoch
    note = checkpoints.read_note(path)
    assert note == checkpoints.CheckpointNote({'loss': 0.5 - epoch}, skipped_steps=7)


def test_last_epoch_is_saved_without_validation(tmp_path):
  path, model = tmp_path / 'last.keras', small_model()
  callback = save_last(path, model)
  callback.on_epoch_begin(0)
  model.layers[0].bias.assign([3])
  callback.on_epoch_end(0, {})
  assert saved_bias(path) == 3


def test_an_interrupted_epoch_is_saved_if_its_weights_are_finite(tmp_path):
  path, model = tmp_path / 'last.keras', small_model()
  callback = save_last(path, model)
  callback.on_epoch_begin(0)
  model.layers[0].bias.assign([3])
  callback.save_interrupted(None)
  assert saved_bias(path) == 3
  model.layers[0].bias.assign([NAN])
  callback.save_interrupted(None)
  assert saved_bias(path) == 3


def make_nan_callback(start_step):
  asked_for = []

  def keys_of_batch(epoch, step):
    asked_for.append((epoch, step))
    return ['1.2/3', '1.2/5']

  return callbacks.StopOnNaN(keys_of_batch, start_step), asked_for


@pytest.mark.parametrize('loss', [NAN, float('inf')])
def test_a_loss_that_is_not_a_number_stops_and_names_the_records(loss):
  callback, asked_for = make_nan_callback(0)
  callback.on_epoch_begin(1)
  callback.on_train_batch_end(0, {'loss': 0.7})
  with pytest.raises(
    JobError, match=rf'the loss is {loss} in epoch 2, step 4; .*batch: 1\.2/3 1\.2/5'
  ):
    callback.on_train_batch_end(3, {'loss': loss})
  assert asked_for == [(1, 3)]


def test_steps_of_a_resumed_epoch_are_counted_from_its_start():
  callback, asked_for = make_nan_callback(start_step=10)
  callback.on_epoch_begin(1)
  with pytest.raises(JobError, match='epoch 2, step 13;'):
    callback.on_train_batch_end(2, {'loss': NAN})
  callback.on_epoch_begin(2)
  with pytest.raises(JobError, match='epoch 3, step 3;'):
    callback.on_train_batch_end(2, {'loss': NAN})
  assert asked_for == [(1, 12), (2, 2)]


def dropped_units(epoch, calls, seed=3, start_step=0):
  """What a dropout layer gives in the calls of an epoch."""
  model = keras.Sequential([keras.Input((64,)), keras.layers.Dropout(0.5)])
  callback = with_model(callbacks.SeedDropout(seed, start_step), model)
  callback.on_epoch_begin(epoch)
  ones = np.ones((1, 64), np.float32)
  return [model(ones, training=True).numpy().tobytes() for _ in range(calls)]


def test_dropout_follows_from_seed_epoch_and_step():
  whole = dropped_units(epoch=2, calls=5)
  assert len(set(whole)) == 5
  assert dropped_units(epoch=2, calls=5) == whole
  assert dropped_units(epoch=2, calls=2, start_step=3) == whole[3:]
  assert not set(dropped_units(epoch=3, calls=5)) & set(whole)
  assert not set(dropped_units(epoch=2, calls=5, seed=4)) & set(whole)


def test_start_step_is_of_the_first_epoch_only():
  model = keras.Sequential([keras.Input((64,)), keras.layers.Dropout(0.5)])
  callback = with_model(callbacks.SeedDropout(3, start_step=3), model)
  callback.on_epoch_begin(2)
  callback.on_epoch_begin(3)
  ones = np.ones((1, 64), np.float32)
  result = model(ones, training=True).numpy().tobytes()
  assert result == dropped_units(epoch=3, calls=1)[0]


@pytest.mark.parametrize('wrap', [False, True])
def test_average_is_in_the_model_after_an_epoch_only(wrap):
  """The weights of training are put back without rounding."""
  model = small_model()
  optimizer = keras.optimizers.SGD(0.1, use_ema=True, ema_momentum=0.9)
  if wrap:  # as for float16
    optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
  model.compile(optimizer, 'mse')
  seen, trained = [], []

  def kernel():
    return model.layers[0].kernel.numpy().copy()

  class Watch(keras.callbacks.Callback):
    def on_train_batch_begin(self, batch, logs=None):
      if trained:
        np.testing.assert_array_equal(kernel(), trained[-1])

    def on_train_batch_end(self, batch, logs=None):
      trained.append(kernel())

    def on_test_begin(self, logs=None):
      seen.append(np.abs(kernel() - trained[-1]).max() > 0)

    def on_epoch_end(self, epoch, logs=None):
      seen.append(np.abs(kernel() - trained[-1]).max() > 0)

  x, y = np.ones((4, 2), np.float32), np.ones((4, 1), np.float32)
  chain = [callbacks.AverageWeights(), Watch()]
  model.fit(x, y, epochs=3, validation_data=(x, y), callbacks=chain, verbose=0)
  # After the first step the average is that of one value. Each epoch is seen twice.
  assert seen == 2 * [False] + 4 * [True]


def test_weights_that_are_not_finite_stop_before_validation():
  """The last update of an epoch may spoil the weights although its loss was finite."""
  callback, asked_for = make_nan_callback(0)
  model = small_model()
  with_model(callback, model)
  callback.on_epoch_begin(1)
  callback.on_train_batch_end(3, {'loss': 0.7})
  callback.on_test_begin()
  model.layers[0].bias.assign([NAN])
  for end in (callback.on_test_begin, lambda: callback.on_epoch_end(1, {})):
    with pytest.raises(
      callbacks.NotFiniteError, match='the weights are not finite in epoch 2, step 4;'
    ):
      end()
  assert asked_for == 2 * [(1, 3)]


def test_steps_that_the_optimizer_skips_are_counted():
  model = small_model()
  optimizer = keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.1))
  model.compile(optimizer, 'mse')
  x = np.ones((3, 2), np.float32)
  x[1] = np.inf
  skipped = callbacks.CountSkippedSteps(4)
  model.fit(
    x, np.ones((3, 1)), batch_size=1, shuffle=False, callbacks=[skipped], verbose=0
  )
  assert skipped.count == 5
  assert int(model.optimizer.iterations) == 2
