"""What a run writes so that the same command continues it: last checkpoint and history."""

from __future__ import annotations

from collections.abc import Mapping
import pathlib

from absl import logging
import keras

from trainer.history import History
from trainer.training import checkpoints
from trainer.training.checkpoints import CheckpointNote
from trainer.training.weight_averaging import AverageWeights


class CountSkippedSteps(keras.callbacks.Callback):
  """Counts the steps that the optimizer skips, because float16 overflowed in them.

  Attributes:
    count: number of skipped steps in all runs of the workdir.
  """

  def __init__(self, count: int):
    super().__init__()
    self.count = count
    self._iterations = 0

  def on_train_begin(self, logs: Mapping[str, float] | None = None) -> None:
    """Remembers where this run starts."""
    self._iterations = int(self.model.optimizer.iterations.numpy())

  def on_train_batch_end(
    self, batch: int, logs: Mapping[str, float] | None = None
  ) -> None:
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

  def on_epoch_begin(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
    """The last checkpoint is that of the epoch before."""
    self._is_saved = False

  def on_train_batch_end(
    self, batch: int, logs: Mapping[str, float] | None = None
  ) -> None:
    """Remembers the metrics, which are means over the steps so far."""
    self._metrics = {name: float(value) for name, value in (logs or {}).items()}

  def on_test_begin(self, logs: Mapping[str, float] | None = None) -> None:
    """Saves the model."""
    self._save()

  def on_epoch_end(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
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


class WriteHistory(keras.callbacks.Callback):
  """Adds the row of an epoch to history.csv, after its checkpoints."""

  def __init__(self, history: History):
    super().__init__()
    self._history = history

  def on_epoch_end(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
    """Adds the row."""
    self._history.append(epoch, logs or {})
