"""The averaged weights are validated and saved, while training continues without them."""

from __future__ import annotations

from collections.abc import Mapping

import keras
import numpy as np


class AverageWeights(keras.callbacks.Callback):
  """Puts the averaged weights in for validation and for the callbacks after it.

  Keras's `SwapEMAWeights` exchanges the values by additions, which rounds the weights of
  training; a run that continues from a checkpoint would not be equal bit by bit.
  """

  def __init__(self) -> None:
    super().__init__()
    self._training_weights: list[np.ndarray] | None = None

  def on_test_begin(self, logs: Mapping[str, float] | None = None) -> None:
    """Puts the average in."""
    self._put_in()

  def on_test_end(self, logs: Mapping[str, float] | None = None) -> None:
    """Puts the weights of training back."""
    self.put_back()

  def on_epoch_end(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
    """Puts the average in for the callbacks that follow."""
    self._put_in()

  def on_epoch_begin(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
    """Puts the weights of training back."""
    self.put_back()

  def _put_in(self) -> None:
    if self._training_weights is None:
      variables = self.model.trainable_variables
      self._training_weights = [keras.ops.convert_to_numpy(v) for v in variables]
      self.model.optimizer.finalize_variable_values(variables)

  def put_back(self) -> None:
    """Puts the weights of training back, if the average is in the model."""
    if self._training_weights is not None:
      for variable, value in zip(
        self.model.trainable_variables, self._training_weights, strict=True
      ):
        variable.assign(value)
      self._training_weights = None
