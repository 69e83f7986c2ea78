"""Calibration of a network's logits on labelled records.

Each method is a map `scale * logit + offset` from the logit of the network to a logit for
the fraction of nodules among the records that it was fitted on:

method        fitted      what it assumes
prior_shift   nothing     only the fraction of nodules differs from that in training
temperature   the scale   besides, the evidence is over- or understated by one factor
platt         both        the logits are off by a factor and a constant
"""

from __future__ import annotations

from collections.abc import Callable
import dataclasses

import numpy as np
from scipy import optimize
from scipy import special
from sklearn import linear_model

from model.metrics import classification
from trainer import config as config_lib

METHODS = config_lib.CALIBRATION_METHODS
PRIOR_SHIFT, TEMPERATURE, PLATT = METHODS

# A probability of float32 may be rounded to 0 or 1.
_LEAST_PROBABILITY = 1e-7

# Beyond these the classes are separated, or the network knows nothing.
_LEAST_TEMPERATURE, _GREATEST_TEMPERATURE = 1e-2, 1e2


@dataclasses.dataclass(frozen=True)
class LogitCalibration:
  """A calibrated logit is `scale * logit + offset`; the order of records is kept.

  Attributes:
    scale: positive.
    offset: added afterwards.
  """

  scale: float
  offset: float

  def probabilities(self, logit: np.ndarray) -> np.ndarray:
    """Returns the calibrated probability [n] of logits [n]."""
    result: np.ndarray = special.expit(self.scale * logit + self.offset)
    return result


@dataclasses.dataclass(frozen=True)
class LabelledLogits:
  """Logits of a network, and what a calibration is fitted to.

  Attributes:
    labels: [n], 1 for nodules.
    logit: [n] float64, before calibration.
    trained_prior: fraction of nodules in the stream that trained the network.
  """

  labels: np.ndarray
  logit: np.ndarray
  trained_prior: float

  @property
  def has_both_classes(self) -> bool:
    """Whether there are nodules and non-nodules."""
    return classification.has_both_classes(self.labels)

  def __getitem__(self, rows: np.ndarray) -> LabelledLogits:
    """Returns the records that a NumPy index selects."""
    return dataclasses.replace(self, labels=self.labels[rows], logit=self.logit[rows])


def logits(probabilities: np.ndarray) -> np.ndarray:
  """Returns the log odds [n] of probabilities [n]."""
  p = np.clip(probabilities, _LEAST_PROBABILITY, 1 - _LEAST_PROBABILITY)
  result: np.ndarray = special.logit(p)
  return result


def fit(method: str, records: LabelledLogits) -> LogitCalibration:
  """Fits a calibration to the fraction of nodules among the records.

  Args:
    method: name of the method, one of `METHODS`.
    records: the records that the calibration is fitted to.

  Raises:
    ValueError: a class has no record, or the training stream held one class only.
  """
  if not records.has_both_classes:
    raise ValueError('records of both classes are needed to calibrate')
  if method != PLATT and not 0 < records.trained_prior < 1:
    raise ValueError(
      f'trained_prior must lie between 0 and 1. Received: {records.trained_prior}'
    )
  return _FIT[method](records)


def cross_fitted_ece(
  method: str, records: LabelledLogits, in_first_half: np.ndarray
) -> float:
  """Computes the calibration error on records that the calibration was not fitted to.

  Args:
    method: name of the method, one of `METHODS`.
    records: records of which each half is calibrated by a fit to the other half.
    in_first_half: [n] bool. The halves should have no scan in common.

  Returns:
    The expected calibration error; NaN if a half lacks a class.
  """
  probabilities = np.zeros(len(records.labels))
  for half in (in_first_half, ~in_first_half):
    others = records[~half]
    if not others.has_both_classes:
      return np.nan
    probabilities[half] = fit(method, others).probabilities(records.logit[half])
  return classification.expected_calibration_error(records.labels, probabilities)


def _shift_prior(records: LabelledLogits) -> LogitCalibration:
  return LogitCalibration(1.0, _evidence_free_logit(records, 1.0))


def _fit_temperature(records: LabelledLogits) -> LogitCalibration:
  """Divides the evidence by a temperature, fitted by maximum likelihood.

  Guo et al. (ICML 2017) divide the whole logit. The log odds of the prior are known, and
  a part of it, so only the rest is divided here: the log likelihood ratio, which is what
  a network overstates. The targets are Platt's.
  """
  targets = _platt_targets(records.labels)

  def loss(log_scale: float) -> float:
    scale = float(np.exp(log_scale))
    z = scale * records.logit + _evidence_free_logit(records, scale)
    return float(np.mean(np.logaddexp(0.0, z) - targets * z))

  bounds = -np.log(_GREATEST_TEMPERATURE), -np.log(_LEAST_TEMPERATURE)
  best = optimize.minimize_scalar(
    loss, bounds=bounds, method='bounded', options={'xatol': 1e-8}
  )
  scale = float(np.exp(best.x))
  return LogitCalibration(scale, _evidence_free_logit(records, scale))


def _fit_platt(records: LabelledLogits) -> LogitCalibration:
  """Fits scale and offset by maximum likelihood.

  The targets are those of Platt (Advances in Large Margin Classifiers, 1999). If the
  fitted scale is not positive, only the offset is fitted.
  """
  logit, targets = records.logit, _platt_targets(records.labels)
  # scikit-learn takes classes, not probabilities: each record is both, by its target.
  model = linear_model.LogisticRegression(C=np.inf, tol=1e-10, solver='newton-cholesky')
  model.fit(
    np.concatenate([logit, logit]).astype(np.float64)[:, np.newaxis],
    np.repeat([1, 0], len(logit)),
    sample_weight=np.concatenate([targets, 1 - targets]),
  )
  if model.coef_[0, 0] > 0:
    return LogitCalibration(float(model.coef_[0, 0]), float(model.intercept_[0]))

  def excess(offset: float) -> float:
    return float(np.sum(special.expit(logit + offset) - targets))

  # At these offsets all probabilities are about 0 and about 1.
  bound = float(np.abs(logit).max()) + 40.0
  return LogitCalibration(1.0, float(optimize.brentq(excess, -bound, bound)))


_FIT: dict[str, Callable[[LabelledLogits], LogitCalibration]] = {
  PRIOR_SHIFT: _shift_prior,
  TEMPERATURE: _fit_temperature,
  PLATT: _fit_platt,
}


def _evidence_free_logit(records: LabelledLogits, scale: float) -> float:
  """Returns the offset with which only the evidence, not the prior, is scaled."""
  log_odds = special.logit([np.mean(records.labels), records.trained_prior])
  return float(log_odds[0] - scale * log_odds[1])


def _platt_targets(labels: np.ndarray) -> np.ndarray:
  """Returns [n], a little less than 1 and more than 0.

  With them the scale stays finite if the classes are separated.
  """
  nodules = int(np.sum(labels))
  others = len(labels) - nodules
  return np.where(labels, (nodules + 1) / (nodules + 2), 1 / (others + 2))
