import keras
import numpy as np
import small_model

from trainer.training import checkpoints
from trainer.training import resume_state

NAN = float('nan')


def save_last(path, model):
  callback = resume_state.SaveLast(path, resume_state.CountSkippedSteps(7))
  return small_model.attach(callback, model)


def test_last_epoch_is_saved_before_its_validation(tmp_path):
  path, model = tmp_path / 'last.keras', small_model.make()
  callback = save_last(path, model)
  for epoch in range(2):
    callback.on_epoch_begin(epoch)
    callback.on_train_batch_end(0, {'loss': 0.5 - epoch})
    model.layers[0].bias.assign([epoch])
    callback.on_test_begin()
    # What happens in validation and afterwards is not saved.
    model.layers[0].bias.assign([-1])
    callback.on_epoch_end(epoch, {'loss': 0.0})
    assert small_model.saved_bias(path) == epoch
    note = checkpoints.read_note(path)
    assert note == checkpoints.CheckpointNote({'loss': 0.5 - epoch}, skipped_steps=7)


def test_last_epoch_is_saved_without_validation(tmp_path):
  path, model = tmp_path / 'last.keras', small_model.make()
  callback = save_last(path, model)
  callback.on_epoch_begin(0)
  model.layers[0].bias.assign([3])
  callback.on_epoch_end(0, {})
  assert small_model.saved_bias(path) == 3


def test_an_interrupted_epoch_is_saved_if_its_weights_are_finite(tmp_path):
  path, model = tmp_path / 'last.keras', small_model.make()
  callback = save_last(path, model)
  callback.on_epoch_begin(0)
  model.layers[0].bias.assign([3])
  callback.save_interrupted(None)
  assert small_model.saved_bias(path) == 3
  model.layers[0].bias.assign([NAN])
  callback.save_interrupted(None)
  assert small_model.saved_bias(path) == 3


def test_steps_that_the_optimizer_skips_are_counted():
  model = small_model.make()
  optimizer = keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.1))
  model.compile(optimizer, 'mse')
  x = np.ones((3, 2), np.float32)
  x[1] = np.inf
  skipped = resume_state.CountSkippedSteps(4)
  model.fit(
    x, np.ones((3, 1)), batch_size=1, shuffle=False, callbacks=[skipped], verbose=0
  )
  assert skipped.count == 5
  assert int(model.optimizer.iterations) == 2
