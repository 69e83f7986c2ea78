"""Which probability counts as a nodule, chosen on other records than are scored."""

from __future__ import annotations

from collections.abc import Sequence
import dataclasses
from typing import Any

import keras
import numpy as np

from luna_tfds import sampling
from luna_tfds.errors import UsageError
from model import metrics
from trainer import config as config_lib
from trainer import scoring
from trainer import sources
from trainer import workdir as workdir_lib

# Where nothing is known to choose a threshold by.
_DEFAULT_THRESHOLD = 0.5
_NOWHERE = 'no validation split'


@dataclasses.dataclass(frozen=True)
class Decision:
  """What is called a nodule.

  Attributes:
    called: [n] bool.
    threshold: of the probabilities; the mean of two where they are cross-fitted.
    rule: that chose it.
    chosen_on: the records it was chosen on, in words.
  """

  called: np.ndarray
  threshold: float
  rule: str
  chosen_on: str


def decide(
  scores: scoring.Scores, split: str, point: dict[str, Any], *, chosen_here: bool
) -> Decision:
  """Calls the nodules of a split.

  On the records that chose the threshold it would flatter: there each half of the scans
  is judged by the threshold that the other half chooses.

  Args:
    scores: of the split.
    split: its split string.
    point: the operating point, from `threshold_for`.
    chosen_here: whether the split shares records with the one that chose the threshold.
  """
  rule, threshold = point['rule'], point['threshold']
  fixed = metrics.parse_threshold_rule(rule)[0] == 'fixed'
  if fixed or not chosen_here or point['chosen_on'] == _NOWHERE:
    where = 'given' if fixed else point['chosen_on']
    return Decision(scores.probabilities >= threshold, threshold, rule, where)
  called, thresholds = cross_fit(scores, rule)
  return Decision(
    called, float(np.mean(thresholds)), rule, f'the other half of {split} (two-fold)'
  )


def halves(scores: scoring.Scores) -> np.ndarray:
  """Returns [n] bool, which half of the scans a record is in; by hash, so for good."""
  hashes = sampling.hash_keys((str(g) for g in scores.groups), 0, 'cross-fit')
  return hashes % 2 == 0


def cross_fit(
  scores: scoring.Scores, rule: str
) -> tuple[np.ndarray, tuple[float, float]]:
  """Judges each half of the scans by a threshold chosen on the other half.

  Returns:
    (called [n] bool, the thresholds that judge the first half and the second).
  """
  half = halves(scores)
  called = np.zeros(len(scores), bool)
  thresholds = []
  for judged in (half, ~half):
    others = ~judged
    threshold = _DEFAULT_THRESHOLD
    if len(np.unique(scores.labels[others])) == 2:
      threshold = metrics.choose_threshold(
        scores.labels[others], scores.probabilities[others], rule
      )
    called[judged] = scores.probabilities[judged] >= threshold
    thresholds.append(threshold)
  return called, (thresholds[0], thresholds[1])


def threshold_for(
  models: Sequence[keras.Model],
  workdir: workdir_lib.Workdir,
  config: config_lib.TrainConfig,
  builder: Any,
  *,
  rule: str | None = None,
  tta: bool | None = None,
) -> dict[str, Any]:
  """Returns the operating point: the stored one, or one chosen anew on validation.

  Args:
    models: one, or an ensemble.
    workdir: of the (first) run.
    config: of that run.
    builder: of the dataset.
    rule: another rule than the stored one.
    tta: another setting than the stored one.

  Returns:
    `rule`, `threshold`, `chosen_on`, `tta` and the priors.

  Raises:
    UsageError: the run has no operating point, or another rule is asked for and there
      are no records to choose by.
  """
  if not workdir.operating_point.is_file():
    raise UsageError(
      f'{workdir.path}: training has not finished (operating_point.json is missing); '
      'run the same luna16-train command again to go on'
    )
  point = workdir_lib.read_json(workdir.operating_point)
  wanted = {
    'rule': rule or point['rule'],
    'tta': point['tta'] if tta is None else tta,
  }
  same = all(point[name] == value for name, value in wanted.items())
  if same and len(models) == 1:
    return point
  point.update(wanted)
  name, value = metrics.parse_threshold_rule(point['rule'])
  if name == 'fixed':
    return {**point, 'threshold': value, 'chosen_on': 'given'}
  validation = open_validation(builder, config)
  if validation is not None and min(validation.label_counts):
    scores = scoring.score(models, validation, tta=point['tta'])
    threshold = metrics.choose_threshold(
      scores.labels, scores.probabilities, point['rule']
    )
    return {**point, 'threshold': threshold, 'chosen_on': validation.split}
  if rule:
    raise UsageError(
      f'--threshold={rule} needs a validation split with both classes to choose by, and '
      f'{builder.info.full_name} has none; give a number'
    )
  return {**point, 'threshold': _DEFAULT_THRESHOLD, 'chosen_on': _NOWHERE}


def open_validation(
  builder: Any, config: config_lib.TrainConfig
) -> sources.Source | None:
  """Opens the split a run chose its threshold on; None if the dataset lacks it."""
  split = config.validation_split
  if split in builder.info.splits or '[' in split or '+' in split:
    return sources.open_source(builder, split)
  return None


def shared_records(a: sources.Source, b: sources.Source) -> int:
  """Counts the records that two splits of one dataset have in common."""
  total = 0
  for one in a.pieces:
    for other in b.pieces:
      if one.path == other.path:
        end = min(one.skip + one.take, other.skip + other.take)
        total += max(end - max(one.skip, other.skip), 0)
  return total
