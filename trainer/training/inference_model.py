"""From a trained network to the model that is used: raw HU in, probability out."""

from __future__ import annotations

import dataclasses
import sys

import keras
import numpy as np

from luna_tfds.errors import JobError
from luna_tfds.files import atomic_files
from model.networks import layers
from trainer.data import split_index
from trainer.scoring import calibration
from trainer.scoring import inference
from trainer.scoring import operating_point
from trainer.scoring import scored_records
from trainer.scoring.calibration_result import CalibrationResult
from trainer.scoring.calibration_result import FittedMethod
from trainer.scoring.scored_records import ScoredRecords
from trainer.training import checkpoints
from trainer.training.loop import TrainingRun
from trainer.workdir import Workdir

# Of each class; a fit to fewer records is worse than the shift of the prior.
_MIN_CALIBRATION_RECORDS = 20


def build_inference_model(
  network: keras.Model,
  trained_prior: float = 0.0,
  deployed_prior: float = 0.0,
  calibrated: calibration.LogitCalibration | None = None,
) -> keras.Model:
  """Adds the prior shift and the sigmoid to a network.

  Args:
    network: the trained network, from HU to logit.
    trained_prior: fraction of nodules in the stream that trained it or, if it is
      calibrated, in the records it was calibrated on.
    deployed_prior: prevalence of nodules among the records that will be scored. The prior
      is not shifted if one of the two is 0 or 1.
    calibrated: scale and offset of the logits; None to take them as they are.

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
  """Writes model.keras of the best checkpoint, calibration.json, operating_point.json.

  If the config gives no deployed prior, it is the fraction of nodules among the
  training records without excluded findings, as the metrics leave these out. The
  threshold is chosen on the validation split; without nodules and non-nodules there, it
  is 0.5.

  Args:
    run: fitted.

  Returns:
    The operating point.

  Raises:
    JobError: there is no best checkpoint.
  """
  config, validation = run.config, run.validation
  _check_best(run.workdir)
  network = checkpoints.load_network(run.workdir.best)
  trained_prior = float(run.balance.nodule_fraction)
  index = split_index.SplitIndex.of_source(run.balance.source)
  deployed_prior = config.deployed_prior or index.prevalence
  calibrated = _calibrate(run, network)
  print(calibrated, file=sys.stderr)
  if calibrated.chosen is None or calibrated.method == calibration.PRIOR_SHIFT:
    model = build_inference_model(network, trained_prior, deployed_prior)
  else:
    # The fit is for the fraction of nodules among the records that it was fitted on.
    fitted_prior = calibrated.nodules / calibrated.records
    model = build_inference_model(
      network, fitted_prior, deployed_prior, calibrated.chosen.map
    )
  # Until the new threshold is stored, the run counts as not finished: the old one was
  # chosen for another model.
  run.workdir.operating_point.unlink(missing_ok=True)
  checkpoints.save(model, run.workdir.model)
  atomic_files.write_json(run.workdir.calibration, calibrated.to_json())
  point = operating_point.OperatingPoint(
    rule=config.threshold,
    threshold=operating_point.DEFAULT_THRESHOLD,
    chosen_on=None,
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


def _check_best(workdir: Workdir) -> None:
  if workdir.best.is_file():
    return
  losses = [row['val_loss'] for row in workdir.history.read() if 'val_loss' in row]
  if losses and not np.isfinite(losses).any():
    raise JobError(
      f'{workdir.path}: no epoch has a finite validation loss, so there is no best '
      'checkpoint; train again in another --workdir with a lower --learning_rate or with '
      '--precision=float32'
    )
  raise JobError(
    f'{workdir.best}: the best checkpoint is missing; delete the folder {workdir.path} '
    'and run the command again to train from the start'
  )


def _calibrate(run: TrainingRun, network: keras.Model) -> CalibrationResult:
  """Fits every method on the validation split, if it has enough records.

  If hard non-nodules were drawn more often, the non-nodules of the stream differ from
  those of the split in more than their share, which the shift of the prior cannot undo.
  Excluded findings are left out, as in the metrics.
  """
  has_hard_negatives = bool(run.balance.counts.hard_negative)
  method = run.config.calibration
  if method == 'auto':
    method = calibration.PLATT if has_hard_negatives else calibration.PRIOR_SHIFT
  validation, records = run.validation, _score_validation(run, network)
  if validation is None or records is None:
    if method != calibration.PRIOR_SHIFT:
      why = ' with --hard_negatives' if run.config.calibration == 'auto' else ''
      print(
        f'luna16-train: warning: the probabilities are not calibrated by {method}: '
        f'that{why} needs a validation split with at least {_MIN_CALIBRATION_RECORDS} '
        'nodule candidates and as many non-nodules, and both classes in training',
        file=sys.stderr,
      )
    return CalibrationResult(calibration.PRIOR_SHIFT, '', 0, 0, ())
  labelled = calibration.LabelledLogits(
    records.label,
    calibration.logits(records.probability),
    float(run.balance.nodule_fraction),
  )
  in_first_half = operating_point.in_first_half(records)
  return CalibrationResult(
    method=method,
    fitted_on=validation.split,
    records=len(records),
    nodules=int(records.label.sum()),
    methods=tuple(
      FittedMethod(
        name,
        **dataclasses.asdict(calibration.fit(name, labelled)),
        ece=calibration.cross_fitted_ece(name, labelled, in_first_half),
      )
      for name in calibration.METHODS
    ),
  )


def _score_validation(run: TrainingRun, network: keras.Model) -> ScoredRecords | None:
  """Scores the validation split by the network alone, without excluded findings.

  Returns:
    The records; None if there are too few to fit a calibration, or if training had
    one class only, from which no prior can be undone.
  """
  validation = run.validation
  if validation is None or not min(validation.label_counts):
    return None
  if not 0 < run.balance.nodule_fraction < 1:
    return None
  network_alone = inference.InferenceModel(build_inference_model(network))
  records = scored_records.score_split([network_alone], validation).without_excluded
  fewest = min(np.bincount(records.label, minlength=2))
  return records if fewest >= _MIN_CALIBRATION_RECORDS else None
