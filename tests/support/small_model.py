"""A Keras model of one layer, for the tests of callbacks."""

import keras


def make():
  """Returns the model; its layer has two inputs and a bias."""
  return keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])


def attach(callback, model):
  """Gives a callback its model, as `Model.fit` does; returns the callback."""
  callback.set_model(model)
  return callback


def saved_bias(path):
  """Returns the bias of a saved model."""
  return float(keras.models.load_model(path, compile=False).get_weights()[1][0])
