"""From a trained network to the model that is used: raw HU in, probability out."""

from __future__ import annotations

import keras

from model.networks import layers
from trainer.scoring import inference
from trainer.scoring import operating_point
from trainer.scoring import scored_records
from trainer.training import checkpoints
from trainer.training.loop import TrainingRun


def build_inference_model(
  network: keras.Model, trained_prior: float, deployed_prior: float
) -> keras.Model:
  """Adds the prior shift and the sigmoid to a network.

  Args:
    network: from HU to logit.
    trained_prior: share of nodules in the stream that trained it.
    deployed_prior: share of nodules where the probabilities are used.

  Returns:
    A model from HU to probability, float32.
  """
  logit = network.output
  if 0 < trained_prior < 1 and 0 < deployed_prior < 1:
    shift = layers.PriorShift(trained_prior, deployed_prior, name='prior_shift')
    logit = shift(logit)
  sigmoid = keras.layers.Activation(
    'sigmoid', dtype='float32', name=inference.PROBABILITY_LAYER
  )
  return keras.Model(network.input, sigmoid(logit), name=network.name)


def write_inference_model(run: TrainingRun) -> operating_point.OperatingPoint:
  """Writes model.keras from the best checkpoint, and operating_point.json.

  The deployed prior is that of the training split, if the config gives none. The
  threshold is chosen on the validation split; without nodules and non-nodules there, it
  is 0.5.

  Args:
    run: fitted.

  Returns:
    The operating point.
  """
  config, validation = run.config, run.validation
  network = keras.models.load_model(run.workdir.best, compile=False)
  trained_prior = run.balance.prior
  deployed_prior = config.deployed_prior or run.source.prior
  model = build_inference_model(network, trained_prior, deployed_prior)
  # Until the new threshold is stored, the run counts as not finished: the old one was
  # chosen for another model.
  run.workdir.operating_point.unlink(missing_ok=True)
  checkpoints.save(model, run.workdir.model)
  point = operating_point.OperatingPoint(
    rule=config.threshold,
    threshold=operating_point.DEFAULT_THRESHOLD,
    chosen_on=operating_point.NO_VALIDATION,
    tta=config.tta,
    trained_prior=trained_prior,
    deployed_prior=deployed_prior,
  )
  if validation is not None and min(validation.label_counts):
    records = scored_records.score_split(
      [inference.InferenceModel(model)], validation, tta=config.tta
    )
    point = point.choose(records, validation.split)
  point.write(run.workdir.operating_point)
  return point
