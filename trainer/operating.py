"""Which probability counts as a nodule, chosen on other records than are scored."""

from __future__ import annotations

from collections.abc import Sequence
import dataclasses
import json
from typing import Any

import keras
import numpy as np

from luna_tfds import sampling
from model import metrics
from trainer import config as config_lib
from trainer import scoring
from trainer import sources
from trainer import workdir as workdir_lib


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
  scores: scoring.Scores,
  split: str,
  config: config_lib.TrainConfig,
  threshold: float,
  rule: str,
) -> Decision:
  """Calls the nodules of a split.

  On the validation split itself a threshold chosen there would flatter: each half of
  the scans is judged by the threshold that the other half chooses.

  Args:
    scores: of the split.
    split: its split string.
    config: of the run; says which split the threshold was chosen on.
    threshold: chosen on the validation split.
    rule: that chose it.
  """
  fixed = metrics.parse_threshold_rule(rule)[0] == 'fixed'
  if fixed or split != config.validation_split:
    where = 'given' if fixed else config.validation_split
    return Decision(scores.probabilities >= threshold, threshold, rule, where)
  called, thresholds = cross_fit(scores, rule)
  return Decision(
    called, float(np.mean(thresholds)), rule, f'the other half of {split} (two-fold)'
  )


def cross_fit(
  scores: scoring.Scores, rule: str
) -> tuple[np.ndarray, tuple[float, float]]:
  """Judges each half of the scans by a threshold chosen on the other half.

  Returns:
    (called [n] bool, the two thresholds).
  """
  half = sampling.hash_keys((str(g) for g in scores.groups), 0, 'cross-fit') % 2 == 0
  called = np.zeros(len(scores), bool)
  thresholds = []
  for judged in (half, ~half):
    others = ~judged
    threshold = 0.5
    if others.any():
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
  """
  point = json.loads(workdir.operating_point.read_text())
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
    point.update(threshold=value, chosen_on='given')
  elif config.validation_split in builder.info.splits or '[' in config.validation_split:
    validation = sources.open_source(builder, config.validation_split)
    scores = scoring.score(models, validation, tta=point['tta'])
    point['threshold'] = metrics.choose_threshold(
      scores.labels, scores.probabilities, point['rule']
    )
    point['chosen_on'] = config.validation_split
  return point
