"""Evaluation in three steps: score, decide, compute the metrics.

runs = trained_run.open_runs(paths)
scored = score(runs, dataset, split)
decision = decide(scored)
result = compute_metrics(scored, decision, resampling)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import dataclasses
from typing import Any

import numpy as np

from luna_tfds.errors import JobError
from luna_tfds.errors import UsageError
from model.metrics.resampling import Resampling
from trainer import article_baseline
from trainer.data.dataset import OpenedDataset
from trainer.data.split_source import SplitSource
from trainer.evaluation import froc_evaluation
from trainer.evaluation import overlap
from trainer.evaluation import split_metrics
from trainer.evaluation import trained_run
from trainer.evaluation.overlap import ScoredSource
from trainer.evaluation.split_metrics import SplitMetrics
from trainer.evaluation.trained_run import TrainedRun
from trainer.scoring import operating_point
from trainer.scoring import scored_records
from trainer.scoring.calibration_result import CalibrationResult
from trainer.scoring.froc_submission import FrocReference
from trainer.scoring.froc_submission import FrocResult
from trainer.scoring.operating_point import Decision
from trainer.scoring.operating_point import OperatingPoint
from trainer.scoring.scored_records import ScoredRecords


@dataclasses.dataclass(frozen=True)
class ScoredSplit:
  """A split and what the models say of its records.

  Attributes:
    runs: one, or the members of an ensemble.
    dataset: the scored dataset.
    source: the split.
    records: the scored records.
    point: the operating point, with the rule and the test-time augmentation asked for.
    selection: the records to choose the threshold on; None if the stored one is valid,
      or if no records are needed or there are none.
    chooses_threshold: whether the stored threshold is not valid for the rule, the models
      or the test-time augmentation.
    shares_selection_records: whether the threshold was chosen on records of this split.
    records_trained_on: scored records of scans that training saw; None if it cannot be
      told, see `overlap.num_trained_on`.
    selection_trained_on: the same of `selection`; 0 without.
  """

  runs: tuple[TrainedRun, ...]
  dataset: OpenedDataset
  source: SplitSource
  records: ScoredRecords
  point: OperatingPoint
  selection: ScoredRecords | None
  chooses_threshold: bool
  shares_selection_records: bool
  records_trained_on: int | None
  selection_trained_on: int | None


@dataclasses.dataclass(frozen=True)
class EvaluationResult:
  """What metrics.json holds.

  Attributes:
    dataset: full name of the scored dataset.
    split: split string of the scored records.
    model: name of the network.
    models: members of the ensemble, 1 for a single model.
    tta: whether probabilities are means over flips and rotations.
    decision: which records are predicted to be nodules.
    deployed_prior: prevalence of nodules that the probabilities are for.
    records_trained_on: scored records of scans that training saw; None if it cannot be
      told.
    warnings: what a reader of the metrics should know; each is one line.
    split_metrics: the metrics.
    froc: the FROC curve; None if scans or nodules are unknown.
    calibrations: calibration of each model; None for those of an older version.
  """

  dataset: str
  split: str
  model: str
  models: int
  tta: bool
  decision: Decision
  deployed_prior: float
  records_trained_on: int | None
  warnings: tuple[str, ...]
  split_metrics: SplitMetrics
  froc: FrocResult | None
  calibrations: tuple[CalibrationResult | None, ...]

  @property
  def article(self) -> Mapping[str, float]:
    """The article's metrics, if the records are of its patches; else empty."""
    return article_baseline.comparable_metrics(self.dataset)

  def to_json(self) -> dict[str, Any]:
    """Returns the content of metrics.json; undefined metrics are NaN."""
    return {
      'dataset': self.dataset,
      'split': self.split,
      'model': self.model,
      'models': self.models,
      'tta': self.tta,
      'threshold': self.decision.point.threshold,
      'threshold_rule': self.decision.point.rule,
      'threshold_chosen_on': self.decision.chosen_on_text,
      'deployed_prior': self.deployed_prior,
      'records_trained_on': self.records_trained_on,
      'warnings': list(self.warnings),
      'calibration': [c and c.to_json() for c in self.calibrations],
      **self.split_metrics.to_json(),
      **({'froc': self.froc.to_json()} if self.froc else {}),
      **({'article': self.article} if self.article else {}),
    }


@dataclasses.dataclass(frozen=True)
class Evaluation:
  """The result of all three steps.

  Attributes:
    scored: the records and their probabilities.
    decision: which are predicted to be nodules.
    result: metrics of the records and the decision.
  """

  scored: ScoredSplit
  decision: Decision
  result: EvaluationResult


def evaluate(
  runs: tuple[TrainedRun, ...],
  dataset: OpenedDataset,
  split: str,
  resampling: Resampling,
  *,
  rule: str | None = None,
  tta: bool | None = None,
  reference: FrocReference | None = None,
) -> Evaluation:
  """Runs the three steps, see `score`, `decide` and `compute_metrics`."""
  scored = score(runs, dataset, split, rule=rule, tta=tta)
  decision = decide(scored)
  result = compute_metrics(scored, decision, resampling, reference)
  return Evaluation(scored, decision, result)


def default_split(dataset: OpenedDataset) -> str:
  """Returns the split that is scored by default: test, or validation without a test."""
  return 'test' if 'test' in dataset.split_names else 'validation'


def score(
  runs: tuple[TrainedRun, ...],
  dataset: OpenedDataset,
  split: str,
  *,
  rule: str | None = None,
  tta: bool | None = None,
) -> ScoredSplit:
  """Scores a split.

  Also scores the validation split if a threshold has to be chosen there: for an
  ensemble, for another rule, or if test-time augmentation is not used as in training.

  Args:
    runs: their probabilities are averaged.
    dataset: the dataset whose records are scored.
    split: TFDS split string.
    rule: another threshold rule than the stored one.
    tta: whether to average over the eight flips and rotations, if not as trained.

  Raises:
    UsageError: the split is missing, the patches are of another kind (shape, spacing or
      layout) than those trained on, or there are no records to choose the threshold by
      the rule.
    JobError: a model gives probabilities that are not finite.
  """
  source = dataset.open_split(split)
  for run in runs:
    trained_run.check_patches(run, dataset)
  stored = runs[0].point
  point = dataclasses.replace(
    stored, rule=rule or stored.rule, tta=stored.tta if tta is None else tta
  )
  chooses_threshold = len(runs) > 1 or point != stored
  selection = None
  if chooses_threshold and not point.is_fixed:
    selection = _score_validation(runs, dataset, tta=point.tta)
    if selection is None and rule:
      raise UsageError(
        f'--threshold={rule} needs a validation split with both classes to choose on, '
        f'and {dataset.name} has none; give a number'
      )
  records = _score_records(runs, source, tta=point.tta)
  scored = ScoredSource(dataset, source, records)
  return ScoredSplit(
    runs=runs,
    dataset=dataset,
    source=source,
    records=records,
    point=point,
    selection=selection.records if selection else None,
    chooses_threshold=chooses_threshold,
    shares_selection_records=_shares_selection_records(runs, scored, selection),
    records_trained_on=overlap.num_trained_on(runs, scored),
    selection_trained_on=overlap.num_trained_on(runs, selection) if selection else 0,
  )


def _score_validation(
  runs: Sequence[TrainedRun], dataset: OpenedDataset, *, tta: bool
) -> ScoredSource | None:
  """Scores the records to choose a threshold on; None without nodules or non-nodules."""
  split = runs[0].config.validation_split
  if not dataset.has_split(split):
    return None
  validation = dataset.open_split(split)
  if not min(validation.label_counts):
    return None
  records = _score_records(runs, validation, tta=tta)
  if not records.without_excluded.has_both_classes:
    return None
  return ScoredSource(dataset, validation, records)


def _score_records(
  runs: Sequence[TrainedRun], source: SplitSource, *, tta: bool
) -> ScoredRecords:
  """Scores all records of a split; raises JobError if a probability is not finite."""
  records = scored_records.score_split([run.model for run in runs], source, tta=tta)
  not_finite = int(np.sum(~np.isfinite(records.probability)))
  if not_finite:
    raise JobError(
      f'{runs[0].workdir.path}: the probabilities of {not_finite} of {len(records)} '
      'records are not finite; training diverged: train again with a lower '
      '--learning_rate'
    )
  return records


def decide(scored: ScoredSplit) -> Decision:
  """Predicts which records are nodules, with a threshold chosen on other records."""
  point = scored.point
  if scored.chooses_threshold:
    split = scored.runs[0].config.validation_split
    point = point.choose(scored.selection, split)
  return operating_point.decide(
    scored.records,
    scored.source.split,
    point,
    shares_selection_records=scored.shares_selection_records,
  )


def compute_metrics(
  scored: ScoredSplit,
  decision: Decision,
  resampling: Resampling,
  reference: FrocReference | None = None,
) -> EvaluationResult:
  """Computes all metrics of a scored split.

  Args:
    scored: the records and their probabilities.
    decision: which are predicted to be nodules.
    resampling: how the intervals are computed.
    reference: the annotations for the FROC curve; None for the nodules that candidates
      reach.

  Raises:
    UsageError: the list of scans of `reference` names none of the scored ones.
  """
  return EvaluationResult(
    dataset=scored.dataset.name,
    split=scored.source.split,
    model=scored.runs[0].config.model,
    models=len(scored.runs),
    tta=scored.point.tta,
    decision=decision,
    deployed_prior=scored.point.deployed_prior,
    records_trained_on=scored.records_trained_on,
    warnings=_warnings(scored),
    split_metrics=split_metrics.compute(
      scored.records, decision.predicted, scored.dataset.metadata.patch, resampling
    ),
    froc=froc_evaluation.evaluate_froc(
      scored.records,
      reference,
      resampling,
      [
        *froc_evaluation.missing_negatives_warnings(scored.dataset, '--dataset'),
        *froc_evaluation.cut_shards_warnings(scored.dataset, scored.source),
      ],
    ),
    calibrations=tuple(run.calibration for run in scored.runs),
  )


def _shares_selection_records(
  runs: Sequence[TrainedRun], scored: ScoredSource, selection: ScoredSource | None
) -> bool:
  """Whether the split holds scans that the threshold was chosen on.

  Args:
    runs: the models.
    scored: the split.
    selection: the records that choose the threshold; None for the stored threshold.
  """
  if selection is not None:
    return bool(
      selection.source.num_shared_records(scored.source)
      or set(selection.records.seriesuid) & set(scored.records.seriesuid) - {''}
    )
  split = runs[0].config.validation_split
  shared = overlap.records_in_split(runs[0], split, scored)
  if shared is None:
    # The name of a split says which subsets it holds, in any dataset.
    return scored.source.split == split and '[' not in split
  return bool(shared.any())


def _warnings(scored: ScoredSplit) -> tuple[str, ...]:
  warnings: list[str] = []
  if scored.records_trained_on is None:
    warnings.append(
      'whether the scored records are of scans that were trained on is not known: the '
      'dataset of the training is not there any more, or its scans are unknown'
    )
  elif scored.records_trained_on:
    warnings.append(
      f'{scored.records_trained_on} of the {len(scored.records)} records are of scans '
      'that were trained on: the metrics show how well the network remembers them, not '
      'how well it works on new scans'
    )
  spec = scored.dataset.metadata.patch
  if any((run.patch is None) != (spec is None) for run in scored.runs):
    warnings.append(
      'the model was trained on published patches or scored on them, but not both: '
      'whether spacing and layout are the same is not known'
    )
  if (
    scored.chooses_threshold and not scored.point.is_fixed and scored.selection is None
  ):
    warnings.append(
      f'{scored.dataset.name} has no records of both classes to choose the threshold on: '
      f'it is {operating_point.DEFAULT_THRESHOLD}; give one with --threshold'
    )
  if scored.selection is not None and scored.selection_trained_on:
    warnings += overlap.selection_warnings(
      len(scored.selection), scored.selection_trained_on
    )
  warnings += split_metrics.only_excluded_warnings(scored.records)
  return tuple(warnings)
