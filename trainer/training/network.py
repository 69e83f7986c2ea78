"""A new network, compiled with its optimizer."""

from __future__ import annotations

import math

import keras
import numpy as np

from luna_tfds.hounsfield import WINDOW_HU
from model.networks import registry
from trainer import config as config_lib
from trainer.training import precision

_WARM_UP_SHARE = 0.05
# The warm-up starts at this fraction of the highest learning rate.
_WARM_UP_START = 1 / 20
# The weight average must not reach back to the beginning of a short run: its memory is
# at most about a tenth of all steps.
_EMA_STEPS_SHARE = 10
_LOGIT_LAYER = 'logit'


def build_network(
  config: config_lib.TrainConfig,
  image_shape: tuple[int, ...],
  prior: float,
  steps_per_epoch: int,
) -> keras.Model:
  """Builds and compiles the network of a run.

  Args:
    config: the run.
    image_shape: shape of one image.
    prior: fraction of nodules in the training stream, at which the output starts.
    steps_per_epoch: batches of an epoch.

  Returns:
    A compiled model from HU to logit.
  """
  policy = keras.config.dtype_policy()
  name = precision.resolve_precision(config.precision)
  keras.config.set_dtype_policy(name)
  try:
    network = registry.build(config.model, image_shape, WINDOW_HU)
  finally:
    keras.config.set_dtype_policy(policy)
  _start_at_prior(network, prior)
  optimizer = _optimizer(config.recipe, config.recipe.epochs * steps_per_epoch)
  if name == 'mixed_float16':
    # Keras would do it, too, but not when it loads the checkpoint: the dtype policy of
    # the model is not saved, and the state of the optimizer would be left out.
    optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
  network.compile(
    optimizer=optimizer,
    loss=keras.losses.BinaryCrossentropy(from_logits=True),
    # Weighted, because excluded findings have the weight 0 in validation.
    weighted_metrics=[
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


def learning_rate(
  recipe: config_lib.Recipe, total_steps: int
) -> float | keras.optimizers.schedules.LearningRateSchedule:
  """Returns the learning rate, or its schedule over all steps of the run."""
  if recipe.schedule == 'constant':
    return recipe.learning_rate
  warm_up = max(round(total_steps * _WARM_UP_SHARE), 1)
  return keras.optimizers.schedules.CosineDecay(
    initial_learning_rate=recipe.learning_rate * _WARM_UP_START,
    decay_steps=max(total_steps - warm_up, 1),
    warmup_target=recipe.learning_rate,
    warmup_steps=warm_up,
  )


def ema_momentum(recipe: config_lib.Recipe, total_steps: int) -> float:
  """Returns the momentum of the weight average, lowered for a short run."""
  return min(recipe.ema, 1 - _EMA_STEPS_SHARE / (total_steps + _EMA_STEPS_SHARE))


def _optimizer(
  recipe: config_lib.Recipe, total_steps: int
) -> keras.optimizers.Optimizer:
  momentum = ema_momentum(recipe, total_steps)
  rate = learning_rate(recipe, total_steps)
  # Keras checks the momentum also where no average is kept.
  ema = {'use_ema': momentum > 0, 'ema_momentum': momentum or 0.99}
  if recipe.optimizer == 'adam':
    return keras.optimizers.Adam(learning_rate=rate, **ema)
  optimizer = keras.optimizers.AdamW(
    learning_rate=rate, weight_decay=recipe.weight_decay, **ema
  )
  optimizer.exclude_from_weight_decay(var_names=['bias', 'gamma', 'beta'])
  return optimizer


def _start_at_prior(network: keras.Model, prior: float) -> None:
  """Sets the last bias so that the first outputs equal `prior`."""
  if 0 < prior < 1:
    bias = network.get_layer(_LOGIT_LAYER).bias
    bias.assign(np.full(bias.shape, math.log(prior / (1 - prior)), np.float32))
