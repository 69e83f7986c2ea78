import keras
import numpy as np
import small_model

from trainer.training import determinism


def dropped_units(epoch, calls, seed=3, start_step=0):
  """What a dropout layer gives in the calls of an epoch."""
  model = keras.Sequential([keras.Input((64,)), keras.layers.Dropout(0.5)])
  callback = small_model.attach(determinism.SeedDropout(seed, start_step), model)
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
  callback = small_model.attach(determinism.SeedDropout(3, start_step=3), model)
  callback.on_epoch_begin(2)
  callback.on_epoch_begin(3)
  ones = np.ones((1, 64), np.float32)
  result = model(ones, training=True).numpy().tobytes()
  assert result == dropped_units(epoch=3, calls=1)[0]
