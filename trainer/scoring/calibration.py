"""Calibration of logits on labelled records (Platt scaling)."""

from __future__ import annotations

import dataclasses

import numpy as np
from scipy import optimize
from scipy import special
from sklearn import linear_model

# A probability of float32 may be rounded to 0 or 1.
_LEAST_PROBABILITY = 1e-7


@dataclasses.dataclass(frozen=True)
class LogitCalibration:
  """A calibrated logit is `scale * logit + offset`; the order of records is kept.

  Attributes:
    scale: positive.
    offset: added afterwards.
  """

  scale: float
  offset: float


def logits(probabilities: np.ndarray) -> np.ndarray:
  """Returns the log odds [n] of probabilities [n]."""
  p = np.clip(probabilities, _LEAST_PROBABILITY, 1 - _LEAST_PROBABILITY)
  result: np.ndarray = special.logit(p)
  return result


def fit(labels: np.ndarray, logit: np.ndarray) -> LogitCalibration:
  """Fits scale and offset by maximum likelihood.

  The targets are those of Platt (Advances in Large Margin Classifiers, 1999), a little
  less than 1 and more than 0, so that the scale stays finite if the classes are
  separated. If the fitted scale is not positive, only the offset is fitted.

  Args:
    labels: [n], 1 for nodules; both classes are needed.
    logit: [n], before calibration.

  Raises:
    ValueError: a class has no record.
  """
  nodules = int(np.sum(labels))
  others = len(labels) - nodules
  if not nodules or not others:
    raise ValueError('records of both classes are needed to calibrate')
  targets = np.where(labels, (nodules + 1) / (nodules + 2), 1 / (others + 2))
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
