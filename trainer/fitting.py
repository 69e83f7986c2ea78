"""Builds, fits and delivers a network."""

from __future__ import annotations

import dataclasses
import math
import sys
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from luna_tfds import sampling
from luna_tfds.errors import UsageError
from model import layers
from model import metrics
from model import registry
from trainer import augment
from trainer import board
from trainer import callbacks
from trainer import config as config_lib
from trainer import distribution
from trainer import input_pipeline
from trainer import scoring
from trainer import sources
from trainer import workdir as workdir_lib

_WARM_UP_SHARE = 0.05


def fit(
  config: config_lib.TrainConfig,
  source: sources.Source,
  validation: sources.Source | None,
  workdir: workdir_lib.Workdir,
) -> int:
  """Fits the network from where the workdir's last checkpoint stands.

  The checkpoint holds weights, optimiser, weight average and the state of the dropout;
  the order of an epoch follows from its number. So a run that was killed goes on from
  the end of its last epoch, one that was interrupted from the very batch.

  Args:
    config: the run.
    source: training records.
    validation: validation records, or None.
    workdir: the run's folder.

  Returns:
    Epochs done, in all runs of the workdir.

  Raises:
    UsageError: the split cannot be balanced, or the strategy cannot be had.
    JobError: the loss is not a number.
    KeyboardInterrupt: after the state was saved.
  """
  keras.utils.set_random_seed(config.input.seed)
  if config.deterministic:
    tf.config.experimental.enable_op_determinism()
  strategy = distribution.make_strategy(config.strategy)
  steps = _steps_per_epoch(config, source, strategy.num_replicas_in_sync)
  while True:
    with strategy.scope():
      network = _network(config, source, steps, workdir)
    epoch, step = divmod(int(network.optimizer.iterations.numpy()), steps)
    workdir.truncate_history(epoch)
    if epoch >= config.recipe.epochs or callbacks.should_stop(
      [
        row[callbacks.MONITOR]
        for row in workdir.read_history()
        if callbacks.MONITOR in row
      ],
      config.patience,
    ):
      return epoch
    if epoch or step:
      print(f'going on after epoch {epoch}, step {step}', file=sys.stderr)
    # An epoch that was interrupted is finished first, by itself.
    last = epoch + 1 if step else config.recipe.epochs
    _fit_epochs(
      config, network, source, validation, workdir, (epoch, last, step, steps)
    )


def _steps_per_epoch(
  config: config_lib.TrainConfig, source: sources.Source, replicas: int
) -> int:
  """Batches of an epoch; checks that the batches can be made."""
  if config.input.batch_size % replicas:
    raise UsageError(
      f'--batch_size={config.input.batch_size} must be a multiple of the {replicas} '
      'devices it is shared among'
    )
  try:
    return config.recipe.steps_per_epoch or input_pipeline.default_steps_per_epoch(
      source, config.input
    )
  except ValueError as error:
    raise UsageError(str(error)) from error


def _fit_epochs(
  config: config_lib.TrainConfig,
  network: keras.Model,
  source: sources.Source,
  validation: sources.Source | None,
  workdir: workdir_lib.Workdir,
  span: tuple[int, int, int, int],
) -> None:
  """Fits from (epoch, step) to the end of an epoch; saves if interrupted."""
  epoch, last, step, steps = span
  replicas = distribution.make_strategy(config.strategy).num_replicas_in_sync
  average = callbacks.AverageWeights() if config.recipe.ema else None
  chain = _callbacks(config, source, validation, (step, steps), workdir, average)
  try:
    network.fit(
      distribution.share(
        input_pipeline.train_batches(source, config.input, steps, epoch, step)
      ),
      steps_per_epoch=steps - step,
      epochs=last,
      initial_epoch=epoch,
      validation_data=_validation_batches(validation, replicas),
      callbacks=chain,
      verbose='auto' if sys.stdout.isatty() else 2,
    )
  except KeyboardInterrupt:
    # While the average is in the model its weights are not those of training.
    if average is None or not average.swapped:
      callbacks.save_atomically(network, workdir.last)
    raise


def deliver(
  config: config_lib.TrainConfig,
  source: sources.Source,
  validation: sources.Source | None,
  workdir: workdir_lib.Workdir,
) -> dict[str, Any]:
  """Writes model.keras, raw HU in and probability out, and the operating point.

  Args:
    config: the run.
    source: training records; their prior is the deployment's if none is given.
    validation: where the threshold is chosen; 0.5 without it.
    workdir: the run's folder.

  Returns:
    The operating point.
  """
  network = keras.models.load_model(workdir.best, compile=False)
  trained = input_pipeline.plan_balance(source, config.input).prior
  deployed = config.deployed_prior or source.prior
  logit = network.output
  if 0 < trained < 1 and 0 < deployed < 1:
    logit = layers.PriorShift(trained, deployed, name='prior_shift')(logit)
  probability = keras.layers.Activation('sigmoid', dtype='float32', name='probability')(
    logit
  )
  model = keras.Model(network.input, probability, name=network.name)
  callbacks.save_atomically(model, workdir.model)
  point = {
    'rule': config.threshold,
    'threshold': 0.5,
    'chosen_on': 'no validation split',
    'tta': config.tta,
    'trained_prior': trained,
    'deployed_prior': deployed,
  }
  if validation is not None and min(validation.label_counts):
    scores = scoring.score([model], validation, tta=config.tta)
    point['threshold'] = metrics.choose_threshold(
      scores.labels, scores.probabilities, config.threshold
    )
    point['chosen_on'] = validation.split
  workdir_lib.write_json(workdir.operating_point, point)
  return point


def _network(
  config: config_lib.TrainConfig,
  source: sources.Source,
  steps: int,
  workdir: workdir_lib.Workdir,
) -> keras.Model:
  """A new network with its optimiser, in the state of the last checkpoint if any."""
  network = _new_network(config, source, steps)
  if workdir.last.is_file():
    # Not the loaded model itself: Keras does not save which weights are excluded from
    # weight decay, and a run made longer follows a longer schedule.
    saved = keras.models.load_model(workdir.last)
    network.set_weights(saved.get_weights())
    network.optimizer.build(network.trainable_variables)
    for variable, value in zip(network.optimizer.variables, saved.optimizer.variables):
      variable.assign(value)
  return network


def _new_network(
  config: config_lib.TrainConfig, source: sources.Source, steps: int
) -> keras.Model:
  before = keras.config.dtype_policy()
  keras.config.set_dtype_policy(config_lib.resolve_precision(config.precision))
  try:
    network = registry.build(config.model, source.image_shape)
  finally:
    keras.config.set_dtype_policy(before)
  _start_at_prior(network, config, source)
  recipe = config.recipe
  # A short run must not average over its own beginning.
  ema = min(recipe.ema, 1 - 10 / (config.recipe.epochs * steps + 10))
  common = {
    'learning_rate': _learning_rate(config, steps),
    'use_ema': ema > 0,
    'ema_momentum': ema or 0.99,
  }
  if recipe.optimizer == 'adamw':
    optimizer = keras.optimizers.AdamW(weight_decay=recipe.weight_decay, **common)
    optimizer.exclude_from_weight_decay(var_names=['bias', 'gamma', 'beta'])
  else:
    optimizer = keras.optimizers.Adam(**common)
  network.compile(
    optimizer=optimizer,
    loss=keras.losses.BinaryCrossentropy(from_logits=True),
    metrics=[
      keras.metrics.BinaryAccuracy(name='accuracy', threshold=0.0),
      keras.metrics.AUC(
        curve='ROC', from_logits=True, num_thresholds=1000, name='roc_auc'
      ),
      keras.metrics.AUC(
        curve='PR', from_logits=True, num_thresholds=1000, name='pr_auc'
      ),
    ],
    jit_compile=config.jit_compile,
  )
  return network


def _start_at_prior(
  network: keras.Model, config: config_lib.TrainConfig, source: sources.Source
) -> None:
  """Sets the last bias so that training starts from the stream's share of nodules."""
  prior = input_pipeline.plan_balance(source, config.input).prior
  if 0 < prior < 1:
    bias = network.get_layer('logit').bias
    bias.assign(np.full(bias.shape, math.log(prior / (1 - prior)), np.float32))


def _learning_rate(config: config_lib.TrainConfig, steps: int) -> Any:
  recipe = config.recipe
  if recipe.schedule == 'constant':
    return recipe.learning_rate
  total = config.recipe.epochs * steps
  warm_up = max(round(total * _WARM_UP_SHARE), 1)
  return keras.optimizers.schedules.CosineDecay(
    initial_learning_rate=recipe.learning_rate / 20,
    decay_steps=max(total - warm_up, 1),
    warmup_target=recipe.learning_rate,
    warmup_steps=warm_up,
  )


def _validation_batches(validation: sources.Source | None, replicas: int) -> Any:
  if validation is None:
    return None
  batch_size = distribution.shared_batch_size(validation.num_records, replicas)
  batches = input_pipeline.evaluation_batches(
    validation, batch_size, ('image', 'label')
  )
  return batches.map(lambda r: (r['image'], tf.cast(r['label'], tf.float32)))


def _keys_of_batch(
  source: sources.Source,
  config: input_pipeline.InputConfig,
  steps: int,
  epoch: int,
  step: int,
) -> list[str]:
  """Returns the keys of the records of a batch, found by their pixels.

  The stream does not carry keys, which only this needs; it is the same every time, so
  its batch can be drawn again, and looked up among the stored records.
  """
  plain = dataclasses.replace(config, augment=augment.RECIPES['none'])
  batches = input_pipeline.train_batches(source, plain, steps, epoch, step)
  images, _ = next(iter(batches))
  wanted = {image.tobytes() for image in images.numpy()}
  keys = []
  for batch in input_pipeline.evaluation_batches(
    source, names=('image', 'seriesuid', 'candidate_id')
  ):
    for image, seriesuid, candidate_id in zip(
      *(batch[name].numpy() for name in ('image', 'seriesuid', 'candidate_id'))
    ):
      if image.tobytes() in wanted:
        keys.append(sampling.record_key(seriesuid.decode(), int(candidate_id)))
  return keys


def _callbacks(
  config: config_lib.TrainConfig,
  source: sources.Source,
  validation: sources.Source | None,
  progress: tuple[int, int],
  workdir: workdir_lib.Workdir,
  average: callbacks.AverageWeights | None,
) -> list[keras.callbacks.Callback]:
  """In this order: SaveLast before the averaged weights are put in."""
  history = workdir.read_history()
  step, steps = progress

  def keys_of(epoch: int, step: int) -> list[str]:
    return _keys_of_batch(source, config.input, steps, epoch, step)

  chain: list[keras.callbacks.Callback] = [
    callbacks.SeedDropout(config.input.seed, step),
    callbacks.StopOnNaN(keys_of),
    keras.callbacks.CSVLogger(str(workdir.history), append=True),
    keras.callbacks.TensorBoard(str(workdir.tensorboard), write_graph=False),
    callbacks.SaveLast(workdir.last),
  ]
  if average is not None:
    chain.append(average)
  chain.append(callbacks.SaveBest(workdir.best, history))
  chain.append(board.Pictures(workdir.tensorboard, validation))
  chain.append(callbacks.StopEarly(config.patience, history))
  return chain
