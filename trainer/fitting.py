"""Builds, fits and delivers a network."""

from __future__ import annotations

import math
import sys
from typing import Any

import keras
import numpy as np

from luna_tfds.errors import UsageError
from model import layers
from model import metrics
from model import registry
from trainer import callbacks
from trainer import config as config_lib
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

  Args:
    config: the run.
    source: training records.
    validation: validation records, or None.
    workdir: the run's folder.

  Returns:
    Epochs done, in all runs of the workdir.

  Raises:
    UsageError: the split cannot be balanced.
  """
  keras.utils.set_random_seed(config.input.seed)
  keras.config.set_dtype_policy(config_lib.resolve_precision(config.precision))
  if config.deterministic:
    import tensorflow as tf

    tf.config.experimental.enable_op_determinism()
  try:
    steps = config.recipe.steps_per_epoch or input_pipeline.default_steps_per_epoch(
      source, config.input
    )
  except ValueError as error:
    raise UsageError(str(error)) from error
  network = _network(config, source, steps, workdir)
  done = int(network.optimizer.iterations.numpy()) // steps
  workdir.truncate_history(done)
  history = workdir.read_history()
  finished = done >= config.recipe.epochs or callbacks.should_stop(
    [row[callbacks.MONITOR] for row in history if callbacks.MONITOR in row],
    config.patience,
  )
  if finished:
    return done
  if done:
    print(f'going on after epoch {done}', file=sys.stderr)
  network.fit(
    input_pipeline.train_batches(source, config.input, steps, start_epoch=done),
    steps_per_epoch=steps,
    epochs=config.recipe.epochs,
    initial_epoch=done,
    validation_data=_validation_batches(validation),
    callbacks=_callbacks(config, workdir, history),
    verbose='auto' if sys.stdout.isatty() else 2,
  )
  return int(network.optimizer.iterations.numpy()) // steps


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
  """The network of the last checkpoint with its optimiser, or a new one."""
  if workdir.last.is_file():
    network = keras.models.load_model(workdir.last)
    schedule = _learning_rate(config, steps)
    if not isinstance(schedule, float):
      # A run made longer follows the longer schedule.
      network.optimizer._learning_rate = schedule
    return network
  network = registry.build(config.model, source.image_shape)
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


def _validation_batches(validation: sources.Source | None) -> Any:
  if validation is None:
    return None
  import tensorflow as tf

  batches = input_pipeline.evaluation_batches(validation, names=('image', 'label'))
  return batches.map(lambda r: (r['image'], tf.cast(r['label'], tf.float32)))


def _callbacks(
  config: config_lib.TrainConfig,
  workdir: workdir_lib.Workdir,
  history: list[dict[str, float]],
) -> list[keras.callbacks.Callback]:
  """In this order: SaveLast before the averaged weights are swapped in."""
  chain: list[keras.callbacks.Callback] = [
    keras.callbacks.TerminateOnNaN(),
    keras.callbacks.CSVLogger(str(workdir.history), append=True),
    keras.callbacks.TensorBoard(str(workdir.tensorboard), write_graph=False),
    callbacks.SaveLast(workdir.last),
  ]
  if config.recipe.ema:
    chain.append(keras.callbacks.SwapEMAWeights(swap_on_epoch=True))
  chain.append(callbacks.SaveBest(workdir.best, history))
  chain.append(callbacks.StopEarly(config.patience, history))
  return chain
