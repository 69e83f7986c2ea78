"""What happens between epochs: checkpoints that survive a kill, early stopping."""

from __future__ import annotations

import os
import pathlib

from absl import logging
import keras

MONITOR = 'val_pr_auc'


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
    if MONITOR in (logs or {}):
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
