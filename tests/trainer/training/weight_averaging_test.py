import keras
import numpy as np
import pytest
import small_model

from trainer.training import weight_averaging


@pytest.mark.parametrize('wrap', [False, True])
def test_average_is_in_the_model_after_an_epoch_only(wrap):
  """The weights of training are put back without rounding."""
  model = small_model.make()
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
  chain = [weight_averaging.AverageWeights(), Watch()]
  model.fit(x, y, epochs=3, validation_data=(x, y), callbacks=chain, verbose=0)
  # After the first step the average is that of one value. Each epoch is seen twice.
  assert seen == 2 * [False] + 4 * [True]
