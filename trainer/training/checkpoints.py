"""Checkpoints: complete or not there, never with values that are not finite.

What belongs to the weights, as the metrics of their epoch, is stored in the same file, in
the comment of its zip archive. So weights and metrics cannot differ after a stop.
"""

from __future__ import annotations

from collections.abc import Mapping
import dataclasses
import json
import math
import pathlib
import zipfile

import keras
import numpy as np

from luna_tfds.errors import UsageError
from luna_tfds.files import atomic_files
from luna_tfds.files import local_files
from luna_tfds.files.store_requests import StoreError
from luna_tfds.text_format import error_text


@dataclasses.dataclass(frozen=True)
class CheckpointNote:
  """What belongs to the weights of a checkpoint.

  Attributes:
    metrics: metrics of the epoch that ended with these weights; empty within an epoch.
      Those of validation are missing in the checkpoint that training continues from.
    skipped_steps: steps so far in which float16 overflowed, so that the optimizer left
      the weights as they were and did not count the step.
  """

  metrics: Mapping[str, float] = dataclasses.field(default_factory=dict)
  skipped_steps: int = 0


def save(
  model: keras.Model, path: pathlib.Path, note: CheckpointNote | None = None
) -> None:
  """Saves a model and what belongs to it, complete or not at all."""
  with atomic_files.atomic_write(path) as temporary:
    model.save(temporary)
    if note is not None:
      with zipfile.ZipFile(temporary, 'a') as archive:
        archive.comment = json.dumps(dataclasses.asdict(note)).encode()


def read_note(path: pathlib.Path) -> CheckpointNote | None:
  """Returns what belongs to a checkpoint; None if release 1.0.0 wrote it.

  Raises:
    UsageError: the checkpoint is damaged.
  """
  try:
    with path.open('rb') as file, zipfile.ZipFile(file) as archive:
      comment = archive.comment
    return CheckpointNote(**json.loads(comment)) if comment else None
  except (TypeError, ValueError, zipfile.BadZipFile) as error:
    raise _damaged(path, error) from error


def load_network(path: pathlib.Path) -> keras.Model:
  """Returns the network of a checkpoint, from HU to logit.

  Raises:
    UsageError: the checkpoint is damaged.
  """
  try:
    with local_files.local_file(path) as local:
      return keras.models.load_model(local, compile=False)
  except StoreError:
    raise
  except Exception as error:  # of a damaged file Keras raises errors of many types
    raise _damaged(path, error) from error


def _damaged(path: pathlib.Path, error: Exception) -> UsageError:
  return UsageError(
    f'{path}: cannot be loaded as a checkpoint: {error_text(error)}; delete the folder '
    f'{path.parent} to train from the start'
  )


def is_finite(model: keras.Model) -> bool:
  """Whether all weights, and all variables of the optimizer, are finite."""
  variables = [*model.variables]
  optimizer = getattr(model, 'optimizer', None)  # missing before `compile`
  if optimizer is not None:
    variables += optimizer.variables
  return all(_is_finite(variable) for variable in variables)


def _is_finite(variable: keras.Variable) -> bool:
  values = np.asarray(keras.ops.convert_to_numpy(variable))
  return values.dtype.kind != 'f' or math.isfinite(float(np.sum(np.abs(values))))


def restore(network: keras.Model, path: pathlib.Path) -> None:
  """Sets weights and optimizer of a new network to those of a checkpoint.

  The loaded model itself is not used: Keras does not save which weights are excluded
  from weight decay, and a run with more epochs has a longer schedule.

  Raises:
    UsageError: the checkpoint is damaged, or of another network.
  """
  try:
    with local_files.local_file(path) as local:
      _restore(network, local)
  except StoreError:
    raise
  except Exception as error:  # of a damaged file Keras raises errors of many types
    raise _damaged(path, error) from error


def _restore(network: keras.Model, path: pathlib.Path) -> None:
  saved = keras.models.load_model(path)
  # Weights of equal shapes would fit a network that computes something else.
  if _layer_types(saved) != _layer_types(network):
    raise ValueError('its network has other layers, or has them in another order')
  network.set_weights(saved.get_weights())
  network.optimizer.build(network.trainable_variables)
  optimizer, saved_optimizer = network.optimizer, saved.optimizer
  if isinstance(optimizer, keras.optimizers.LossScaleOptimizer) and isinstance(
    saved_optimizer, keras.optimizers.LossScaleOptimizer
  ):
    optimizer.dynamic_scale.assign(saved_optimizer.dynamic_scale)
    optimizer.step_counter.assign(saved_optimizer.step_counter)
  # Only one of them scales the loss if the precision was changed.
  target, source = unscaled(optimizer), unscaled(saved_optimizer)
  for variable, value in zip(target.variables, source.variables, strict=True):
    # With a constant learning rate, that rate is a variable; it is a setting of the run.
    if variable is not target.learning_rate:
      variable.assign(value)


def _layer_types(network: keras.Model) -> list[str]:
  return [type(layer).__name__ for layer in network.layers]


def unscaled(optimizer: keras.optimizers.Optimizer) -> keras.optimizers.Optimizer:
  """Returns the optimizer that a loss scale wraps, or the optimizer itself."""
  return getattr(optimizer, 'inner_optimizer', optimizer)
