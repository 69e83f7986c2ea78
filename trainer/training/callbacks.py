"""What happens between epochs: checkpoints that survive a kill, early stopping."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
import math
import pathlib

from absl import logging
import keras

from luna_tfds import atomic_files
from luna_tfds.errors import JobError

# The metric that chooses the best epoch.
MONITOR = 'val_pr_auc'

# What Keras hands to a callback.
_Logs = Mapping[str, float] | None


class AverageWeights(keras.callbacks.SwapEMAWeights):
  """Puts the averaged weights in for validation and for the callbacks after it."""

  def __init__(self) -> None:
    super().__init__(swap_on_epoch=True)

  @property
  def swapped(self) -> bool:
    """Whether the model holds the average now."""
    # Keras has no public way to tell; the alternative is a second copy of this state.
    return bool(self._ema_weights_in_model)


class SeedDropout(keras.callbacks.Callback):
  """Makes the dropout of an epoch a function of its number.

  Keras does not save the state of a dropout layer's generator, so that a resumed run
  would otherwise drop other units than one that was never stopped.
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

  def on_epoch_begin(self, epoch: int, logs: _Logs = None) -> None:
    """Sets every generator: its state is a key, and how often it was used."""
    layers = [layer for layer in self.model.layers if hasattr(layer, 'seed_generator')]
    for number, layer in enumerate(layers):
      key = (self._seed * 1009 + number) % 2**32
      used = (epoch * 2**18 + self._start_step) % 2**32
      layer.seed_generator.state.assign([key, used])
    self._start_step = 0


class StopOnNaN(keras.callbacks.Callback):
  """Stops at a loss that is not a number, and names the records of the batch."""

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
    self._epoch = self._start_step = 0

  def on_epoch_begin(self, epoch: int, logs: _Logs = None) -> None:
    """Remembers the epoch, and at which of its steps it starts."""
    self._epoch = epoch
    self._start_step, self._next_start_step = self._next_start_step, 0

  def on_train_batch_end(self, batch: int, logs: _Logs = None) -> None:
    """Stops if the loss is not a number."""
    loss = (logs or {}).get('loss', 0.0)
    if math.isfinite(loss):
      return
    step = self._start_step + batch
    keys = self._keys_of_batch(self._epoch, step)
    raise JobError(
      f'the loss is {loss} in epoch {self._epoch + 1}, step {step + 1}; the last good '
      'checkpoint is kept. Try a lower --learning_rate or --precision=float32. Records '
      f'of the batch: {" ".join(keys)}'
    )


class AppendHistory(keras.callbacks.Callback):
  """Adds the metrics of every epoch to the history."""

  def __init__(self, append: Callable[[int, Mapping[str, float]], None]):
    """Makes the callback.

    Args:
      append: stores the metrics of an epoch, numbered from 0.
    """
    super().__init__()
    self._append = append

  def on_epoch_end(self, epoch: int, logs: _Logs = None) -> None:
    """Adds the metrics."""
    self._append(epoch, logs or {})


class SaveLast(keras.callbacks.Callback):
  """Saves model and optimizer after every epoch."""

  def __init__(self, path: pathlib.Path):
    super().__init__()
    self._path = path

  def on_epoch_end(self, epoch: int, logs: _Logs = None) -> None:
    """Saves the model."""
    save_model(self.model, self._path)


class SaveBest(keras.callbacks.Callback):
  """Saves the network when the monitored metric is higher than in all earlier epochs.

  Without a validation split there is nothing to compare, and the last epoch is kept.
  """

  def __init__(self, path: pathlib.Path, history: Sequence[Mapping[str, float]]):
    super().__init__()
    self._path = path
    self._best = max((row.get(MONITOR, 0.0) for row in history), default=-1.0)

  def on_epoch_end(self, epoch: int, logs: _Logs = None) -> None:
    """Saves the model if it is better."""
    value = (logs or {}).get(MONITOR)
    if value is None or value > self._best:
      self._best = -1.0 if value is None else value
      save_model(self.model, self._path)


class StopEarly(keras.callbacks.Callback):
  """Stops when the monitored metric has not risen for `patience` epochs.

  Unlike Keras's own callback it knows the epochs of earlier runs of the workdir.
  """

  def __init__(self, patience: int, history: Sequence[Mapping[str, float]]):
    super().__init__()
    self._patience = patience
    self._values = monitored_values(history)

  def on_epoch_end(self, epoch: int, logs: _Logs = None) -> None:
    """Stops if it is time."""
    if logs and MONITOR in logs:
      self._values.append(logs[MONITOR])
    if should_stop(self._values, self._patience):
      logging.info('no better %s for %d epochs: stopping', MONITOR, self._patience)
      self.model.stop_training = True


def monitored_values(history: Sequence[Mapping[str, float]]) -> list[float]:
  """Returns the monitored metric of each epoch that has it."""
  return [row[MONITOR] for row in history if MONITOR in row]


def should_stop(values: Sequence[float], patience: int) -> bool:
  """Whether the best of `values` is `patience` or more epochs ago."""
  if not patience or not values:
    return False
  return len(values) - 1 - list(values).index(max(values)) >= patience


def save_model(model: keras.Model, path: pathlib.Path) -> None:
  """Saves a model, complete or not at all."""
  with atomic_files.atomic_write(path) as temporary:
    model.save(temporary)
