"""Calibration of logits on labelled records (Platt scaling)."""

from __future__ import annotations

import dataclasses

import numpy as np

_MAX_ITERATIONS = 100
_TOLERANCE = 1e-10
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
  result: np.ndarray = np.log(p) - np.log1p(-p)
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
  columns = np.stack([logit, np.ones_like(logit)], axis=1).astype(np.float64)
  scale, offset = _newton(columns, targets, np.array([1.0, 0.0]))
  if scale <= 0:
    (offset,) = _newton(columns[:, 1:], targets, np.zeros(1), columns[:, 0])
    scale = 1.0
  return LogitCalibration(float(scale), float(offset))


def _newton(
  columns: np.ndarray,
  targets: np.ndarray,
  start: np.ndarray,
  fixed: np.ndarray | float = 0.0,
) -> np.ndarray:
  """Fits a logistic regression by Newton's method; halves steps that go too far.

  Args:
    columns: [n, k] regressors.
    targets: [n] probabilities.
    start: [k] first coefficients.
    fixed: [n] added to the logits.
  """

  def loss(weights: np.ndarray) -> float:
    z = columns @ weights + fixed
    return float(np.sum(np.logaddexp(0, z) - targets * z))

  weights, value = start, loss(start)
  for _ in range(_MAX_ITERATIONS):
    p = 1 / (1 + np.exp(-np.clip(columns @ weights + fixed, -500, 500)))
    hessian = (columns * (p * (1 - p))[:, np.newaxis]).T @ columns
    hessian += 1e-9 * np.eye(len(start))
    step = np.linalg.solve(hessian, columns.T @ (p - targets))
    new = loss(weights - step)
    while new > value and np.abs(step).max() > _TOLERANCE:
      step = step / 2
      new = loss(weights - step)
    weights, value = weights - step, min(new, value)
    if np.abs(step).max() <= _TOLERANCE:
      break
  return weights
