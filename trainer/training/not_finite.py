"""Training stops when the loss or the weights are not finite."""

from __future__ import annotations

from collections.abc import Callable, Mapping
import math

import keras

from luna_tfds.errors import JobError
from trainer.training import checkpoints


class NotFiniteError(JobError):
  """The loss or the weights are NaN or infinite."""


class StopOnNaN(keras.callbacks.Callback):
  """Stops at a loss or weights that are not finite, and names the records of the batch.

  The loss of a step is computed before its update: at the end of an epoch only the
  weights show what the last update did.
  """

  def __init__(
    self, keys_of_batch: Callable[[int, int], list[str]], start_step: int = 0
  ):
    """Makes the callback.

    Args:
      keys_of_batch: returns the keys of the records of a batch, by epoch and step.
      start_step: steps of the first epoch that an earlier run did; Keras counts the
        steps of this run only.
    """
    super().__init__()
    self._keys_of_batch = keys_of_batch
    self._next_start_step = start_step
    self._epoch = self._start_step = self._step = 0

  def on_epoch_begin(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
    """Remembers the epoch, and at which of its steps it starts."""
    self._epoch = epoch
    self._start_step, self._next_start_step = self._next_start_step, 0

  def on_train_batch_end(
    self, batch: int, logs: Mapping[str, float] | None = None
  ) -> None:
    """Stops if the loss is not a number."""
    self._step = self._start_step + batch
    loss = (logs or {}).get('loss', 0.0)
    if not math.isfinite(loss):
      raise self._error(f'the loss is {loss}')

  def on_test_begin(self, logs: Mapping[str, float] | None = None) -> None:
    """Stops if the last update of the epoch made weights that are not finite."""
    self._check_weights()

  def on_epoch_end(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
    """As `on_test_begin`, for a run without validation."""
    self._check_weights()

  def _check_weights(self) -> None:
    if not checkpoints.is_finite(self.model):
      raise self._error('the weights are not finite')

  def _error(self, problem: str) -> NotFiniteError:
    keys = self._keys_of_batch(self._epoch, self._step)
    return NotFiniteError(
      f'{problem} in epoch {self._epoch + 1}, step {self._step + 1}; the last good '
      'checkpoint is kept. Run the command again with a lower --learning_rate or with '
      f'--precision=float32. Records of the batch: {" ".join(keys)}'
    )
