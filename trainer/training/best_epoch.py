"""Which epoch is the best: its network is saved, and training stops some epochs after it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import math
import pathlib

from absl import logging
import keras

from trainer.training import checkpoints
from trainer.training.checkpoints import CheckpointNote

# The metric that chooses the best epoch: the highest value.
MONITOR = 'val_pr_auc'
# Chooses it where validation has one class only: the lowest value. The PR AUC is then the
# same in every epoch.
ONE_CLASS_MONITOR = 'val_loss'


class SaveBest(keras.callbacks.Callback):
  """Saves the network when the monitored metric is better than in all earlier epochs.

  Without a validation split there is nothing to compare, and the last epoch is kept.
  """

  def __init__(
    self,
    path: pathlib.Path,
    history: Sequence[Mapping[str, float]],
    monitor: str = MONITOR,
  ):
    """Makes the callback.

    Args:
      path: path of the checkpoint.
      history: metrics of each epoch so far; used if the checkpoint was written by
        release 1.0.0, which did not store its metrics.
      monitor: `MONITOR` or `ONE_CLASS_MONITOR`.
    """
    super().__init__()
    self._path = path
    self._monitor = monitor
    self._best = _best_value(path, history, monitor)

  def on_epoch_end(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
    """Saves the model if it is better."""
    logs = logs or {}
    value = _monitored_value(logs, self._monitor)
    if not math.isfinite(logs.get('val_loss', 0.0)):
      return
    if value is None or value > self._best:
      note = CheckpointNote({name: float(v) for name, v in logs.items()})
      checkpoints.save(self.model, self._path, note)
      self._best = -math.inf if value is None else value


def _best_value(
  path: pathlib.Path, history: Sequence[Mapping[str, float]], monitor: str
) -> float:
  """Returns the value of the best checkpoint; -infinity if there is none."""
  if not path.is_file():
    return -math.inf
  note = checkpoints.read_note(path)
  if note is None:
    return max(monitored_values(history, monitor), default=-math.inf)
  value = _monitored_value(note.metrics, monitor)
  return -math.inf if value is None else value


class StopEarly(keras.callbacks.Callback):
  """Stops when the monitored metric has not become better for `patience` epochs.

  Unlike Keras's own callback it knows the epochs of earlier runs of the workdir.
  """

  def __init__(
    self,
    patience: int,
    history: Sequence[Mapping[str, float]],
    monitor: str = MONITOR,
  ):
    super().__init__()
    self._patience = patience
    self._monitor = monitor
    self._values = monitored_values(history, monitor)

  def on_epoch_end(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
    """Stops if it is time."""
    self._values += monitored_values([logs or {}], self._monitor)
    if should_stop(self._values, self._patience):
      logging.info(
        'no better %s for %d epochs: stopping', self._monitor, self._patience
      )
      self.model.stop_training = True


def monitored_values(
  history: Sequence[Mapping[str, float]], monitor: str = MONITOR
) -> list[float]:
  """Returns the monitored metric of each epoch that has it; the highest is the best."""
  values = (_monitored_value(row, monitor) for row in history)
  return [value for value in values if value is not None]


def _monitored_value(metrics: Mapping[str, float], monitor: str) -> float | None:
  """Returns a value that is higher for a better epoch; None if it has none."""
  if monitor not in metrics:
    return None
  return -metrics[monitor] if monitor == ONE_CLASS_MONITOR else metrics[monitor]


def should_stop(values: Sequence[float], patience: int) -> bool:
  """Whether the best of `values` is `patience` or more epochs ago."""
  if not patience or not values:
    return False
  return len(values) - 1 - list(values).index(max(values)) >= patience
