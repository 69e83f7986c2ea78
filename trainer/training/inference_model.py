"""From a trained network to the model that is used: raw HU in, probability out."""

from __future__ import annotations

import dataclasses
import sys

import keras
import numpy as np

from model.metrics import classification
from model.networks import layers
from trainer.scoring import calibration
from trainer.scoring import inference
from trainer.scoring import operating_point
from trainer.scoring import scored_records
from trainer.training import checkpoints
from trainer.training.loop import TrainingRun

# Of each class; from fewer records the calibration is worse than the shift of the prior.
_MIN_CALIBRATION_RECORDS = 20


def build_inference_model(
  network: keras.Model,
  trained_prior: float,
  deployed_prior: float,
  calibrated: calibration.LogitCalibration | None = None,
) -> keras.Model:
  """Adds the prior shift and the sigmoid to a network.

  Args:
    network: from HU to logit.
    trained_prior: share of nodules in the stream that trained it or, if it is calibrated,
      in the records it was calibrated on.
    deployed_prior: share of nodules where the probabilities are used.
    calibrated: of the logits; None to take them as they are.

  Returns:
    A model from HU to probability, float32.
  """
  logit = network.output
  if calibrated is not None:
    fields = dataclasses.asdict(calibrated)
    logit = layers.LogitScale(**fields, name='calibration')(logit)
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

  If hard non-nodules were drawn more often, the non-nodules of the stream differ from
  those of the split in more than their share. Then the logits are calibrated on the
  validation split, as the shift of the prior cannot undo that.

  Args:
    run: fitted.

  Returns:
    The operating point.
  """
  config, validation = run.config, run.validation
  network = checkpoints.load_network(run.workdir.best)
  trained_prior = run.balance.prior
  deployed_prior = config.deployed_prior or run.source.prior
  calibrated = _calibrate(run, network)
  stream_prior = trained_prior
  fitted = None
  if calibrated is not None:
    fitted, stream_prior = calibrated
  model = build_inference_model(network, stream_prior, deployed_prior, fitted)
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


def _calibrate(
  run: TrainingRun, network: keras.Model
) -> tuple[calibration.LogitCalibration, float] | None:
  """Calibrates on validation if hard non-nodules were drawn more often.

  Excluded findings are left out, as in the metrics.

  Returns:
    The calibration, and the share of nodules in the records that it was fitted to.
  """
  validation = run.validation
  if not run.balance.counts.hard_negative:
    return None
  records = None
  if validation is not None and not validation.has_one_class:
    plain = inference.InferenceModel(build_inference_model(network, 0.0, 0.0))
    records = scored_records.score_split([plain], validation).without_excluded
  nodules = 0 if records is None else int(records.label.sum())
  if (
    validation is None
    or records is None
    or min(nodules, len(records) - nodules) < _MIN_CALIBRATION_RECORDS
  ):
    print(
      'warning: the probabilities are not calibrated: with --hard_negatives that needs '
      f'a validation split with at least {_MIN_CALIBRATION_RECORDS} nodule candidates and '
      'as many non-nodules',
      file=sys.stderr,
    )
    return None
  prior = nodules / len(records)
  logits = calibration.logits(records.probability)
  fitted = calibration.fit(records.label, logits)
  eces = [
    classification.expected_calibration_error(records.label, 1 / (1 + np.exp(-z)))
    for z in (
      logits
      + np.log(prior / (1 - prior))
      - np.log(run.balance.prior / (1 - run.balance.prior)),
      fitted.scale * logits + fitted.offset,
    )
  ]
  print(
    f'calibrated on {validation.split}: calibration error (ECE) {eces[1]:.4f}, '
    f'with the shift of the prior alone {eces[0]:.4f}',
    file=sys.stderr,
  )
  return fitted, prior
