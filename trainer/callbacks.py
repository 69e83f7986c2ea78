"""What happens between epochs: checkpoints that survive a kill, early stopping."""

from __future__ import annotations

from collections.abc import Callable
import math
import os
import pathlib

from absl import logging
import keras

from luna_tfds.errors import JobError

MONITOR = 'val_pr_auc'


class AverageWeights(keras.callbacks.SwapEMAWeights):
  """Puts the averaged weights in for validation and for whatever comes after it."""

  def __init__(self):
    super().__init__(swap_on_epoch=True)

  @property
  def swapped(self) -> bool:
    """Whether the model holds the average now."""
    return self._ema_weights_in_model


class SeedDropout(keras.callbacks.Callback):
  """Lets the dropout of an epoch follow from its number.

  Keras does not save the state of a dropout layer's generator, so that a run that goes
  on would drop otherwise than one that was never stopped.
  """

  def __init__(self, seed: int, start_step: int = 0):
    """Makes the callback.

    Args:
      seed: of the run.
      start_step: steps of the first epoch that an earlier run did.
    """
    super().__init__()
    self._seed = seed
    self._start_step = start_step

  def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
    """Sets every generator: its state is a key, and how often it was used."""
    layers = [layer for layer in self.model.layers if hasattr(layer, 'seed_generator')]
    for number, layer in enumerate(layers):
      key = (self._seed * 1009 + number) % 2**32
      used = (epoch * 2**18 + self._start_step) % 2**32
      layer.seed_generator.state.assign([key, used])
    self._start_step = 0


class StopOnNaN(keras.callbacks.Callback):
  """Stops at a loss that is not a number, and names the records of the batch."""

  def __init__(self, keys_of: Callable[[int, int], list[str]]):
    """Makes the callback.

    Args:
      keys_of: returns the keys of the records of a batch, by epoch and step.
    """
    super().__init__()
    self._keys_of = keys_of
    self._epoch = 0

  def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
    """Remembers the epoch."""
    self._epoch = epoch

  def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
    """Stops if the loss is not a number."""
    loss = (logs or {}).get('loss', 0.0)
    if math.isfinite(loss):
      return
    keys = self._keys_of(self._epoch, batch)
    raise JobError(
      f'the loss is {loss} in epoch {self._epoch + 1}, step {batch + 1}; the last good '
      'checkpoint is kept. Try a lower --learning_rate or --precision=float32. Records '
      f'of the batch: {" ".join(keys)}'
    )


class SaveLast(keras.callbacks.Callback):
  """Saves model and optimiser after every epoch, whole or not at all."""

  def __init__(self, path: pathlib.Path):
    super().__init__()
    self._path = path

  def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
    """Saves."""
    save_atomically(self.model, self._path)


class SaveBest(keras.callbacks.Callback):
  """Saves the network when the monitored figure is better than ever.

  Without a validation split there is nothing to compare, and the last epoch is kept.
  """

  def __init__(self, path: pathlib.Path, history: list[dict[str, float]]):
    super().__init__()
    self._path = path
    self._best = max((row.get(MONITOR, 0.0) for row in history), default=-1.0)

  def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
    """Saves if better."""
    value = (logs or {}).get(MONITOR)
    if value is None or value > self._best:
      self._best = -1.0 if value is None else value
      save_atomically(self.model, self._path)


class StopEarly(keras.callbacks.Callback):
  """Stops when the monitored figure has not risen for `patience` epochs.

  Unlike Keras's own it knows the epochs of earlier runs of the workdir.
  """

  def __init__(self, patience: int, history: list[dict[str, float]]):
    super().__init__()
    self._patience = patience
    self._values = [row[MONITOR] for row in history if MONITOR in row]

  def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
    """Stops if it is time."""
    if logs and MONITOR in logs:
      self._values.append(logs[MONITOR])
    if should_stop(self._values, self._patience):
      logging.info('no better %s for %d epochs: stopping', MONITOR, self._patience)
      self.model.stop_training = True


def should_stop(values: list[float], patience: int) -> bool:
  """Whether the best of `values` lies `patience` or more epochs back."""
  if not patience or not values:
    return False
  return len(values) - 1 - values.index(max(values)) >= patience


def save_atomically(model: keras.Model, path: pathlib.Path) -> None:
  """Saves a model whole or not at all."""
  temporary = path.with_name(f'{path.stem}.tmp.keras')
  model.save(temporary)
  os.replace(temporary, path)
