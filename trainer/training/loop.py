"""Fits a network; a run that was stopped continues where it was."""

from __future__ import annotations

import dataclasses
import pathlib
import sys

import keras
import numpy as np
import tensorflow as tf

from luna_tfds import records
from luna_tfds.command_line import cli
from luna_tfds.errors import UsageError
from luna_tfds.files import local_files
from luna_tfds.hounsfield import WINDOW_HU
from model.networks import registry
from trainer import config as config_lib
from trainer import workdir as workdir_lib
from trainer.data import input_pipeline
from trainer.data import memory_budget
from trainer.data import split_index
from trainer.data.balance import Balance
from trainer.data.split_source import SplitSource
from trainer.training import best_epoch
from trainer.training import checkpoints
from trainer.training import determinism
from trainer.training import distribution
from trainer.training import network as network_lib
from trainer.training import not_finite
from trainer.training import resume_state
from trainer.training import tensorboard_images
from trainer.training import weight_averaging
from trainer.training.checkpoints import CheckpointNote


@dataclasses.dataclass(frozen=True)
class FitRange:
  """The part of a run that one call of `Model.fit` does.

  Attributes:
    epoch: the first, from 0.
    step: the first step in it.
    last_epoch: the end, exclusive.
    steps_per_epoch: batches of an epoch.
  """

  epoch: int
  step: int
  last_epoch: int
  steps_per_epoch: int

  @classmethod
  def after(cls, done: int, steps_per_epoch: int, epochs: int) -> FitRange:
    """Returns the part of a run that comes after some steps.

    An epoch that was interrupted is finished first, in a range of its own.

    Args:
      done: optimizer steps so far.
      steps_per_epoch: batches of an epoch.
      epochs: number of epochs of the whole run.
    """
    epoch, step = divmod(done, steps_per_epoch)
    return cls(epoch, step, epoch + 1 if step else epochs, steps_per_epoch)


@dataclasses.dataclass(frozen=True)
class TrainingRun:
  """All that fitting needs.

  Attributes:
    config: the settings.
    source: training records.
    balance: how the classes of these records are balanced.
    validation: validation records; None if there are none.
    workdir: the folder of the run.
  """

  config: config_lib.TrainConfig
  source: SplitSource
  balance: Balance
  validation: SplitSource | None
  workdir: workdir_lib.Workdir


def check(run: TrainingRun) -> None:
  """Checks what `fit` needs, before anything is written.

  Raises:
    UsageError: the strategy is not available, the devices cannot share the batches, or
      the images are too small for the network.
  """
  config = run.config
  replicas = distribution.make_strategy(config.strategy).num_replicas_in_sync
  if config.input.batch_size % replicas:
    raise UsageError(
      f'--batch_size={config.input.batch_size} must be a multiple of the {replicas} '
      'devices that share a batch'
    )
  if run.validation is not None:
    _validation_batch_size(run.validation, replicas)
  cli.as_usage_error(
    registry.build,
    config.model,
    run.source.image_shape,
    WINDOW_HU,
    flag_prefix='--model: ',
  )


def fit(run: TrainingRun) -> int:
  """Fits the network of a run, from its last checkpoint if there is one.

  The checkpoint holds weights, optimizer and weight average; the order of the records
  and the dropout of an epoch follow from its number. So a run that was killed continues
  after its last complete epoch, and one that was interrupted at the next batch.

  Returns:
    Epochs done, in all runs of the workdir.

  Raises:
    JobError: the loss is not a number.
    KeyboardInterrupt: training was interrupted; its state has been saved.
  """
  config = run.config
  keras.utils.set_random_seed(config.input.seed)
  if config.deterministic:
    determinism.enable()
  strategy = distribution.make_strategy(config.strategy)
  steps = config.recipe.steps_per_epoch or input_pipeline.default_steps_per_epoch(
    run.balance, config.input.batch_size
  )
  _log_balance(run)
  while True:
    with strategy.scope():
      network = network_lib.build_network(
        config, run.source.image_shape, float(run.balance.nodule_fraction), steps
      )
      note = CheckpointNote()
      if run.workdir.last.is_file():
        checkpoints.restore(network, run.workdir.last)
        note = checkpoints.read_note(run.workdir.last) or note
    done = int(network.optimizer.iterations.numpy()) + note.skipped_steps
    fit_range = FitRange.after(done, steps, config.recipe.epochs)
    run.workdir.history.truncate(fit_range.epoch)
    replicas = strategy.num_replicas_in_sync
    if not fit_range.step:
      _finish_epoch(run, network, fit_range.epoch - 1, note, replicas)
    if _is_finished(run, fit_range.epoch):
      return fit_range.epoch
    if done:
      print(
        f'continuing after epoch {fit_range.epoch}, step {fit_range.step}',
        file=sys.stderr,
      )
    _fit_range(run, network, fit_range, note.skipped_steps, replicas)


def _finish_epoch(
  run: TrainingRun,
  network: keras.Model,
  epoch: int,
  note: CheckpointNote,
  replicas: int,
) -> None:
  """Does what an epoch lacks that was stopped after its steps: validation, best, row.

  Args:
    run: the run.
    network: the network at the end of the epoch.
    epoch: number of the epoch, from 0; -1 before the first.
    note: what the checkpoint stores besides the weights.
    replicas: devices that share a batch.
  """
  rows = run.workdir.history.read()
  # By number: history.csv may have been deleted while the run continued.
  if epoch < 0 or any(row['epoch'] == epoch for row in rows):
    return
  average = _average(run)
  metrics = dict(note.metrics)
  averages: list[keras.callbacks.Callback] = [average] if average else []
  chain = [
    *averages,
    best_epoch.SaveBest(run.workdir.best, rows, _monitor(run)),
    resume_state.WriteHistory(run.workdir.history),
  ]
  for callback in chain:
    callback.set_model(network)
  batches = _validation_batches(run.validation, replicas)
  if batches is not None:
    print(f'epoch {epoch + 1} was not validated: validating', file=sys.stderr)
    values = network.evaluate(batches, callbacks=averages, return_dict=True, verbose=0)
    metrics |= {f'val_{name}': value for name, value in values.items()}
  for callback in chain:
    callback.on_epoch_end(epoch, metrics)
  if average is not None:
    average.put_back()


def _average(run: TrainingRun) -> weight_averaging.AverageWeights | None:
  return weight_averaging.AverageWeights() if run.config.recipe.ema else None


def _log_balance(run: TrainingRun) -> None:
  held = input_pipeline.is_held_in_memory(run.source, run.config.input)
  print(f'{run.balance}; {"held in memory" if held else "streamed"}', file=sys.stderr)


def _is_finished(run: TrainingRun, epochs: int) -> bool:
  if epochs >= run.config.recipe.epochs:
    return True
  history = run.workdir.history.read()
  values = best_epoch.monitored_values(history, _monitor(run))
  return best_epoch.should_stop(values, run.config.patience)


def _monitor(run: TrainingRun) -> str:
  if run.validation is None:
    return best_epoch.MONITOR
  one_class = split_index.has_one_class(split_index.with_index(run.validation))
  return best_epoch.ONE_CLASS_MONITOR if one_class else best_epoch.MONITOR


def _fit_range(
  run: TrainingRun,
  network: keras.Model,
  fit_range: FitRange,
  skipped_steps: int,
  replicas: int,
) -> None:
  """Fits one range; saves the state if it is interrupted."""
  average = _average(run)
  skipped = resume_state.CountSkippedSteps(skipped_steps)
  batches = input_pipeline.train_batches(
    run.config.input,
    run.balance,
    fit_range.steps_per_epoch,
    fit_range.epoch,
    fit_range.step,
    undistorted_from_epoch=run.config.recipe.undistorted_from_epoch,
  )
  save_last = resume_state.SaveLast(run.workdir.last, skipped)
  try:
    with local_files.local_folder(run.workdir.tensorboard) as logs:
      network.fit(
        distribution.shard_by_data(batches),
        steps_per_epoch=fit_range.steps_per_epoch - fit_range.step,
        epochs=fit_range.last_epoch,
        initial_epoch=fit_range.epoch,
        validation_data=_validation_batches(run.validation, replicas),
        callbacks=_callbacks(run, fit_range, skipped, save_last, average, logs),
        shuffle=False,  # the stream is shuffled; Keras warns that it cannot do so again
        verbose='auto' if sys.stdout.isatty() else 2,
      )
  except not_finite.NotFiniteError:
    run.workdir.mark_not_finite()
    raise
  except KeyboardInterrupt:
    save_last.save_interrupted(average)
    raise


def _validation_batch_size(validation: SplitSource, replicas: int) -> int:
  at_most = memory_budget.evaluation_batch_size(validation.image_shape)
  return distribution.divisible_batch_size(
    validation.num_records, replicas, max(at_most, replicas)
  )


def _validation_batches(
  validation: SplitSource | None, replicas: int
) -> tf.data.Dataset | None:
  if validation is None:
    return None
  batch_size = _validation_batch_size(validation, replicas)
  batches = input_pipeline.evaluation_batches(
    validation, batch_size, ('image', 'label', 'excluded')
  )
  index = split_index.SplitIndex.of_source(split_index.with_index(validation))
  # Keras divides the loss by the number of all records, whatever their weights are.
  weight = len(index.is_excluded) / max(int(np.sum(~index.is_excluded)), 1)

  def without_excluded(record: dict[str, tf.Tensor]) -> tuple[tf.Tensor, ...]:
    weights = tf.where(record['excluded'], 0.0, weight)
    return record['image'], tf.cast(record['label'], tf.float32), weights

  return batches.map(without_excluded)


def _keys_of_batch(
  run: TrainingRun, steps_per_epoch: int, epoch: int, step: int
) -> list[str]:
  """Returns the keys of the records of a batch, found by their pixels.

  The stream has no keys, because nothing else needs them. It is the same every time, so
  its batch can be drawn again and looked up among the stored records.
  """
  plain = dataclasses.replace(
    run.config.input, augment=config_lib.AUGMENTATIONS['none']
  )
  batches = input_pipeline.train_batches(
    plain, run.balance, steps_per_epoch, epoch, step
  )
  images, _ = next(iter(batches))
  wanted = {image.tobytes() for image in images.numpy()}
  keys = []
  names = ('image', 'seriesuid', 'candidate_id')
  for batch in input_pipeline.evaluation_batches(run.source, names=names):
    for image, key in zip(batch['image'].numpy(), records.batch_keys(batch).numpy()):
      if image.tobytes() in wanted:
        keys.append(key.decode())
  return keys


def _callbacks(
  run: TrainingRun,
  fit_range: FitRange,
  skipped: resume_state.CountSkippedSteps,
  save_last: resume_state.SaveLast,
  average: weight_averaging.AverageWeights | None,
  logs: pathlib.Path,
) -> list[keras.callbacks.Callback]:
  """In this order: the averaged weights are put in after SaveLast.

  The row of the history comes after both checkpoints. So an epoch that has no row is
  validated again, whatever else it has.
  """
  workdir, config = run.workdir, run.config
  rows = workdir.history.read()

  def keys_of_batch(epoch: int, step: int) -> list[str]:
    return _keys_of_batch(run, fit_range.steps_per_epoch, epoch, step)

  chain: list[keras.callbacks.Callback] = [
    determinism.SeedDropout(config.input.seed, fit_range.step),
    not_finite.StopOnNaN(keys_of_batch, fit_range.step),
    skipped,
    save_last,
  ]
  if average is not None:
    chain.append(average)
  chain += [
    best_epoch.SaveBest(workdir.best, rows, _monitor(run)),
    resume_state.WriteHistory(workdir.history),
    keras.callbacks.TensorBoard(str(logs), write_graph=False),
    tensorboard_images.TensorBoardImages(logs, run.validation),
    tensorboard_images.UploadLogs(logs, workdir.tensorboard),
    best_epoch.StopEarly(config.patience, rows, _monitor(run)),
  ]
  return chain
