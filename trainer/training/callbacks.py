"""What happens between epochs: checkpoints that survive a kill, early stopping."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
import math
import pathlib

from absl import logging
import keras
import numpy as np

from luna_tfds.errors import JobError
from trainer.training import checkpoints
from trainer.training.checkpoints import CheckpointNote
from trainer.workdir import Workdir

# The metric that chooses the best epoch: the highest value.
MONITOR = 'val_pr_auc'
# Chooses it where validation has one class only: the lowest value. The PR AUC is then the
# same in every epoch.
ONE_CLASS_MONITOR = 'val_loss'

# What Keras hands to a callback.
_Logs = Mapping[str, float] | None


class NotFiniteError(JobError):
  """The loss or the weights are NaN or infinite."""


class AverageWeights(keras.callbacks.Callback):
  """Puts the averaged weights in for validation and for the callbacks after it.

  Keras's `SwapEMAWeights` exchanges the values by additions, which rounds the weights of
  training; a run that continues from a checkpoint would not be equal bit by bit.
  """

  def __init__(self) -> None:
    super().__init__()
    self._training_weights: list[np.ndarray] | None = None

  def on_test_begin(self, logs: _Logs = None) -> None:
    """Puts the average in."""
    self._put_in()

  def on_test_end(self, logs: _Logs = None) -> None:
    """Puts the weights of training back."""
    self.put_back()

  def on_epoch_end(self, epoch: int, logs: _Logs = None) -> None:
    """Puts the average in for the callbacks that follow."""
    self._put_in()

  def on_epoch_begin(self, epoch: int, logs: _Logs = None) -> None:
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


class SeedDropout(keras.callbacks.Callback):
  """Makes the dropout of an epoch a function of its number.

  Keras does not save the state of a dropout layer's generator, so that a resumed run
  would otherwise drop other units than one that was never stopped.
  """

  def __init__(self, seed: int, start_step: int = 0):
    """Makes the callback.

    Args:
      seed: seed of the training run.
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

  def on_epoch_begin(self, epoch: int, logs: _Logs = None) -> None:
    """Remembers the epoch, and at which of its steps it starts."""
    self._epoch = epoch
    self._start_step, self._next_start_step = self._next_start_step, 0

  def on_train_batch_end(self, batch: int, logs: _Logs = None) -> None:
    """Stops if the loss is not a number."""
    self._step = self._start_step + batch
    loss = (logs or {}).get('loss', 0.0)
    if not math.isfinite(loss):
      raise self._error(f'the loss is {loss}')

  def on_test_begin(self, logs: _Logs = None) -> None:
    """Stops if the last update of the epoch made weights that are not finite."""
    self._check_weights()

  def on_epoch_end(self, epoch: int, logs: _Logs = None) -> None:
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


class CountSkippedSteps(keras.callbacks.Callback):
  """Counts the steps that the optimizer does not: those in which float16 overflowed.

  Attributes:
    count: number of skipped steps in all runs of the workdir.
  """

  def __init__(self, count: int):
    super().__init__()
    self.count = count
    self._iterations = 0

  def on_train_begin(self, logs: _Logs = None) -> None:
    """Remembers where this run starts."""
    self._iterations = int(self.model.optimizer.iterations.numpy())

  def on_train_batch_end(self, batch: int, logs: _Logs = None) -> None:
    """Counts the step if it was skipped."""
    if checkpoints.unscaled(self.model.optimizer) is self.model.optimizer:
      return
    iterations = int(self.model.optimizer.iterations.numpy())
    if iterations == self._iterations:
      self.count += 1
    self._iterations = iterations


class SaveLast(keras.callbacks.Callback):
  """Saves model and optimizer when the steps of an epoch are done.

  Already before validation: a run that is stopped then continues with the validation.
  It must come before `AverageWeights`, which changes the weights.
  """

  def __init__(self, path: pathlib.Path, skipped: CountSkippedSteps):
    super().__init__()
    self._path = path
    self._skipped = skipped
    self._metrics: dict[str, float] = {}
    self._is_saved = False

  def on_epoch_begin(self, epoch: int, logs: _Logs = None) -> None:
    """The last checkpoint is that of the epoch before."""
    self._is_saved = False

  def on_train_batch_end(self, batch: int, logs: _Logs = None) -> None:
    """Remembers the metrics, which are means over the steps so far."""
    self._metrics = {name: float(value) for name, value in (logs or {}).items()}

  def on_test_begin(self, logs: _Logs = None) -> None:
    """Saves the model."""
    self._save()

  def on_epoch_end(self, epoch: int, logs: _Logs = None) -> None:
    """Saves the model if there was no validation."""
    self._save()

  def save_interrupted(self, average: AverageWeights | None) -> None:
    """Saves the model when the run is interrupted anywhere.

    Args:
      average: whose weights may be in the model.
    """
    if average is not None:
      average.put_back()
    if self._is_saved:
      return
    if not checkpoints.is_finite(self.model):
      logging.warning('the weights are not finite: the last good checkpoint is kept')
      return
    self._save()

  def _save(self) -> None:
    if not self._is_saved:
      note = CheckpointNote(self._metrics, self._skipped.count)
      checkpoints.save(self.model, self._path, note)
      self._is_saved = True


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

  def on_epoch_end(self, epoch: int, logs: _Logs = None) -> None:
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


class WriteHistory(keras.callbacks.Callback):
  """Adds the row of an epoch to history.csv, after its checkpoints."""

  def __init__(self, workdir: Workdir):
    super().__init__()
    self._workdir = workdir

  def on_epoch_end(self, epoch: int, logs: _Logs = None) -> None:
    """Adds the row."""
    self._workdir.append_history(epoch, logs or {})


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

  def on_epoch_end(self, epoch: int, logs: _Logs = None) -> None:
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
