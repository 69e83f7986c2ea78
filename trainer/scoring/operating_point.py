"""The decision threshold, chosen on other records than those that are scored."""

from __future__ import annotations

from collections.abc import Mapping
import dataclasses
import math
import pathlib
from typing import Any

import numpy as np

from luna_tfds import dataclass_json
from luna_tfds import record_keys
from luna_tfds.errors import UsageError
from luna_tfds.files import atomic_files
from luna_tfds.text_format import error_text
from model.metrics import classification
from model.metrics import thresholds
from model.metrics.threshold_rule import ThresholdRule
from trainer.scoring.scored_records import ScoredRecords

# Where there are no records to choose a threshold on.
DEFAULT_THRESHOLD = 0.5

# `chosen_on` in files of release 1.0.0 where no record chose the threshold; now it is None.
_NOT_CHOSEN = ('given', 'no validation split')


@dataclasses.dataclass(frozen=True)
class OperatingPoint:
  """The threshold of a trained model and what belongs to it.

  Attributes:
    rule: the rule that chooses the threshold, see `threshold_rule.THRESHOLD_RULES`.
    threshold: a record is predicted to be a nodule at this probability and above.
    chosen_on: split string of the records that the threshold was chosen on; None if the
      rule is a number, or if there were no records of both classes.
    tta: whether probabilities are means over the eight flips and rotations.
    trained_prior: fraction of nodules in the stream that trained the model.
    deployed_prior: prevalence of nodules where the probabilities are used.
  """

  rule: str
  threshold: float
  chosen_on: str | None
  tta: bool
  trained_prior: float
  deployed_prior: float

  @classmethod
  def read(cls, path: pathlib.Path) -> OperatingPoint:
    """Reads operating_point.json.

    Raises:
      UsageError: the file is damaged, or another version of the project wrote it.
    """
    try:
      fields: Mapping[str, Any] = atomic_files.read_json(path)
      point = dataclass_json.make(cls, fields)
      if point.chosen_on in _NOT_CHOSEN:
        point = dataclasses.replace(point, chosen_on=None)
      ThresholdRule.parse(point.rule)
      if not math.isfinite(point.threshold):
        raise ValueError(f'threshold must be finite. Received: {point.threshold}')
    except (AttributeError, TypeError, ValueError) as error:
      raise UsageError(
        f'{path}: cannot be read: {error_text(error)}; run the same luna16-train command '
        'again to write it'
      ) from error
    return point

  def write(self, path: pathlib.Path) -> None:
    """Writes operating_point.json."""
    atomic_files.write_json(path, dataclasses.asdict(self))

  @property
  def parsed_rule(self) -> ThresholdRule:
    """The rule, parsed."""
    return ThresholdRule.parse(self.rule)

  @property
  def is_fixed(self) -> bool:
    """Whether the rule is a number, so that no records are needed to choose."""
    return self.parsed_rule.fixed_threshold is not None

  @property
  def chosen_on_text(self) -> str:
    """The records that the threshold was chosen on, or why there are none, in words."""
    if self.is_fixed:
      return 'given'
    return self.chosen_on or 'no validation records of both classes'

  def choose(
    self, validation: ScoredRecords | None, split: str | None
  ) -> OperatingPoint:
    """Returns the operating point with a threshold chosen by its rule.

    Excluded findings are left out, as in the metrics.

    Args:
      validation: records to choose on; None if there are none of both classes.
      split: their split string.
    """
    fixed = self.parsed_rule.fixed_threshold
    if fixed is not None:
      return dataclasses.replace(self, threshold=fixed, chosen_on=None)
    counted = None if validation is None else validation.without_excluded
    if counted is None or split is None or not counted.has_both_classes:
      return dataclasses.replace(self, threshold=DEFAULT_THRESHOLD, chosen_on=None)
    threshold = thresholds.choose_threshold(
      counted.label, counted.probability, self.parsed_rule
    )
    return dataclasses.replace(self, threshold=threshold, chosen_on=split)


@dataclasses.dataclass(frozen=True)
class Decision:
  """Which records are predicted to be nodules.

  Attributes:
    predicted: [n] bool.
    point: the operating point that was used; with cross-fitting, its threshold is the
      mean of the two, and it was chosen on the split itself.
    is_cross_fitted: whether each half of the scans has a threshold of its own.
  """

  predicted: np.ndarray
  point: OperatingPoint
  is_cross_fitted: bool = False

  @property
  def chosen_on_text(self) -> str:
    """The records that the threshold was chosen on, or why there are none, in words."""
    text = self.point.chosen_on_text
    if self.is_cross_fitted:
      return f'the other half of {text}, by two-fold cross-fitting'
    return text


def decide(
  records: ScoredRecords,
  split: str,
  point: OperatingPoint,
  *,
  shares_selection_records: bool,
) -> Decision:
  """Predicts which records of a split are nodules.

  Reusing the records that the threshold was chosen on biases the metrics. There, two-fold
  cross-fitting is used: each half of the scans gets the threshold that the other half
  chooses.

  Args:
    records: scored records of the split.
    split: its split string.
    point: the operating point.
    shares_selection_records: whether the threshold was chosen on records of this split.
  """
  if point.chosen_on is None or not shares_selection_records:
    return Decision(records.probability >= point.threshold, point)
  predicted, fitted = cross_fit(records, point.parsed_rule)
  used = dataclasses.replace(point, threshold=float(np.mean(fitted)), chosen_on=split)
  return Decision(predicted, used, is_cross_fitted=True)


def cross_fit(
  records: ScoredRecords, rule: ThresholdRule
) -> tuple[np.ndarray, tuple[float, float]]:
  """Gives each half of the scans the threshold that is chosen on the other half.

  Excluded findings do not choose, but are predicted like all records.

  Returns:
    (predicted [n] bool, the thresholds of the first half and of the second).
  """
  first = in_first_half(records)
  predicted = np.zeros(len(records), bool)
  fitted = []
  for half in (first, ~first):
    others = ~half & ~records.excluded
    threshold = DEFAULT_THRESHOLD
    if classification.has_both_classes(records.label[others]):
      threshold = thresholds.choose_threshold(
        records.label[others], records.probability[others], rule
      )
    predicted[half] = records.probability[half] >= threshold
    fitted.append(threshold)
  return predicted, (fitted[0], fitted[1])


def in_first_half(records: ScoredRecords) -> np.ndarray:
  """Returns [n] bool: whether the scan of a record is in the first half, by a hash."""
  groups = (str(group) for group in records.groups)
  in_first: np.ndarray = record_keys.hash_keys(groups, 0, 'cross-fit') % 2 == 0
  return in_first
