"""Bootstrap resampling of scans, and confidence intervals.

Records of one scan are not independent. So whole scans are drawn with replacement, and a
scan that is drawn twice counts twice (Efron and Tibshirani, "An Introduction to the
Bootstrap", 1993).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
import contextlib
import contextvars
import dataclasses
from typing import Any

import numpy as np

CONFIDENCE_LEVEL = 0.95

# The quantiles of the resamples that bound an interval.
LOWER_QUANTILE = (1 - CONFIDENCE_LEVEL) / 2
UPPER_QUANTILE = 1 - LOWER_QUANTILE


# With fewer scans, resampling tells too little of how much scans differ.
FEW_SCANS = 20

# Takes how many resamples are done, and how many there are. It is a context variable
# because it has no influence on a result: a command sets it once, and the functions
# between, from the evaluation to the metrics of a subgroup, do not have to pass it on.
Report = Callable[[int, int], None]
_REPORT: contextvars.ContextVar[Report | None] = contextvars.ContextVar(
  'report', default=None
)


@dataclasses.dataclass(frozen=True)
class Resampling:
  """How scans are resampled.

  Attributes:
    resamples: how often as many scans as there are are drawn; 0 for no intervals.
    seed: seed of the random numbers.
  """

  resamples: int = 1000
  seed: int = 0

  def __post_init__(self) -> None:
    for name in ('resamples', 'seed'):
      if getattr(self, name) < 0:
        raise ValueError(f'{name} must be 0 or more. Received: {getattr(self, name)}')

  def to_json(self, unit: str) -> dict[str, Any]:
    """Returns the entry `bootstrap` of metrics.json and the like.

    Args:
      unit: what is drawn, 'scans' or 'records'.
    """
    return {**dataclasses.asdict(self), 'unit': unit}


@dataclasses.dataclass(frozen=True)
class Interval:
  """A confidence interval at `CONFIDENCE_LEVEL`; both bounds NaN if it is undefined."""

  lower: float
  upper: float

  def to_json(self) -> list[float]:
    """Returns [lower, upper]."""
    return [self.lower, self.upper]


def intervals_to_json(intervals: Mapping[str, Interval]) -> dict[str, Any]:
  """Returns {'intervals': {name: [lower, upper]}}; {} if there are none."""
  if not intervals:
    return {}
  return {'intervals': {name: i.to_json() for name, i in intervals.items()}}


@dataclasses.dataclass(frozen=True)
class ScanIndex:
  """The scan of each record, as a number.

  Attributes:
    of_record: [n] int64, from 0 to `num_scans` - 1.
    num_scans: number of scans.
  """

  of_record: np.ndarray
  num_scans: int

  @classmethod
  def from_ids(cls, scan_ids: np.ndarray) -> ScanIndex:
    """Numbers the scans in sorted order of their ids.

    Args:
      scan_ids: [n] id of each record's scan: text or numbers.
    """
    unique, of_record = np.unique(np.asarray(scan_ids), return_inverse=True)
    return cls(of_record.reshape(-1), len(unique))


def draw_scan_weights(num_scans: int, resampling: Resampling) -> Iterator[np.ndarray]:
  """Draws as many scans as there are with replacement, once for each resample.

  Yields:
    [num_scans] int64: how many times each scan was drawn.
  """
  rng = np.random.default_rng(resampling.seed)
  report = _REPORT.get()
  for done in range(resampling.resamples):
    if report:
      report(done, resampling.resamples)
    yield np.bincount(rng.integers(num_scans, size=num_scans), minlength=num_scans)
  if report:
    report(resampling.resamples, resampling.resamples)


@contextlib.contextmanager
def reported_to(report: Report) -> Iterator[None]:
  """Reports the progress of every bootstrap in a `with` block.

  Args:
    report: called with the resamples done, from 0, and the resamples of the bootstrap.
  """
  token = _REPORT.set(report)
  try:
    yield
  finally:
    _REPORT.reset(token)


@dataclasses.dataclass(frozen=True)
class Difference:
  """The difference of a metric between two models; NaN where undefined.

  Attributes:
    value: first model minus second, on all scans.
    interval: confidence interval of the difference.
    p_value: two-sided, of the hypothesis that there is no difference.
  """

  value: float
  interval: Interval
  p_value: float

  @classmethod
  def from_resamples(cls, value: float, resampled: np.ndarray) -> Difference:
    """Summarises the differences of paired resamples.

    Args:
      value: the difference on all scans.
      resampled: [resamples] the difference in each resample; NaN where undefined.
    """
    return cls(value, percentile_interval(resampled), bootstrap_p_value(resampled))

  def to_json(self) -> dict[str, float]:
    """Returns `difference`, `lower`, `upper` and `p_value`."""
    return {
      'difference': self.value,
      **dataclasses.asdict(self.interval),
      'p_value': self.p_value,
    }


def bootstrap_p_value(differences: np.ndarray) -> float:
  """Returns the two-sided p value of the hypothesis that a difference is 0.

  Twice the share of resamples on the smaller side of 0, resamples at 0 on both sides. It
  belongs to the percentile interval: below 0.05, the interval excludes 0. One resample is
  added to each side, as the p value of finitely many resamples is never 0 (Davison and
  Hinkley, "Bootstrap Methods and their Application", 1997, section 4.2).

  Args:
    differences: [resamples]; NaN where undefined.

  Returns:
    The p value; NaN if no difference is defined.
  """
  differences = differences[np.isfinite(differences)]
  if not len(differences):
    return np.nan
  smaller = min(np.sum(differences <= 0), np.sum(differences >= 0))
  return float(min(1.0, 2 * (smaller + 1) / (len(differences) + 1)))


def percentile_interval(values: np.ndarray) -> Interval:
  """Returns the percentile interval of the finite values.

  Args:
    values: [resamples] value of a metric in each resample; NaN where undefined.
  """
  values = values[np.isfinite(values)]
  if not len(values):
    return Interval(np.nan, np.nan)
  lower, upper = np.quantile(values, [LOWER_QUANTILE, UPPER_QUANTILE])
  return Interval(float(lower), float(upper))
