"""Merges the folds of a cross-validation: submission, FROC curve, metrics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import dataclasses
import math
import pathlib
from typing import Any

import numpy as np

from luna_tfds import atomic_files
from luna_tfds import tables
from luna_tfds.text_format import count_text
from model.metrics.classification import METRIC_LABELS
from model.metrics.classification import METRICS
from model.metrics.resampling import Resampling
from trainer.crossvalidation import folds as folds_lib
from trainer.crossvalidation.folds import FoldPlan
from trainer.evaluation import measurement
from trainer.pictures import froc_plot
from trainer.report import formatting
from trainer.scoring import froc_submission
from trainer.scoring import prediction_files
from trainer.scoring import scored_records
from trainer.scoring.froc_submission import FrocReference
from trainer.scoring.froc_submission import FrocResult

_TABLE_METRICS = ('pr_auc', 'roc_auc', 'recall', 'precision', 'f1')
# Of the metrics of a fold, what stays in its own file.
_LEFT_OUT = ('article', 'by_diameter', 'by_subset', 'by_slice_thickness')


@dataclasses.dataclass(frozen=True)
class MergedFolds:
  """What crossval.json holds.

  Attributes:
    plans: of the folds.
    fold_metrics: the content of each fold's file of metrics.
    pooled: the metrics of the records of all folds together.
    froc: of the merged submission; None without annotations.
    warnings: what a reader of the metrics should know; each is one line.
  """

  plans: tuple[FoldPlan, ...]
  fold_metrics: tuple[Mapping[str, Any], ...]
  pooled: measurement.Measurement
  froc: FrocResult | None
  warnings: tuple[str, ...]

  def mean(self, name: str) -> float:
    """Returns the mean of a metric over the folds where it is defined, or NaN."""
    values = self._values(name)
    return float(np.mean(values)) if values else math.nan

  def standard_deviation(self, name: str) -> float:
    """Returns the sample standard deviation over the folds; NaN for fewer than two."""
    values = self._values(name)
    return float(np.std(values, ddof=1)) if len(values) > 1 else math.nan

  def _values(self, name: str) -> list[float]:
    return [fold[name] for fold in self.fold_metrics if fold[name] is not None]

  def to_json(self) -> dict[str, Any]:
    """Returns the content of crossval.json; undefined metrics are NaN."""
    config = self.plans[0].config
    rows = [
      {
        'fold': plan.number,
        **{name: value for name, value in fold.items() if name not in _LEFT_OUT},
      }
      for plan, fold in zip(self.plans, self.fold_metrics)
    ]
    fields = {
      'dataset': config.dataset,
      'test_dataset': self.plans[0].test_dataset_argument,
      'model': config.model,
      'folds': rows,
      'mean': {name: self.mean(name) for name in METRICS},
      'std': {name: self.standard_deviation(name) for name in METRICS},
      'pooled': self.pooled.to_json(),
      'warnings': list(self.warnings),
    }
    return fields if self.froc is None else {**fields, 'froc': self.froc.to_json()}


def merge(
  plans: Sequence[FoldPlan],
  workdir: pathlib.Path,
  reference: FrocReference | None,
  resampling: Resampling,
) -> MergedFolds:
  """Merges the folds: submission.csv, the FROC curve, and crossval.json last.

  Args:
    plans: of the folds, scored.
    workdir: to write to.
    reference: what the submission is compared with; None for no FROC curve.
    resampling: for the intervals.
  """
  scores = [folds_lib.read_scores(plan.scores_file) for plan in plans]
  records = scored_records.concatenate([records for records, _ in scores])
  predicted = np.concatenate([predicted for _, predicted in scores])
  submission = workdir / 'submission.csv'
  prediction_files.write_submission(
    submission, records.seriesuid, records.center_xyz_mm, records.probability
  )
  froc = None
  if reference is not None:
    froc = froc_submission.score_submission(
      # As it was written, so that luna16-froc gives the same result.
      tables.read_table(submission, 'probability'),
      reference,
      resampling,
    )
    froc_submission.write_result(froc, workdir)
    froc_plot.save_froc_curve(
      froc.curve, froc.band, resampling.resamples, str(froc), workdir / 'froc.png'
    )
  fold_metrics = tuple(plan.read_metrics() for plan in plans)
  merged = MergedFolds(
    plans=tuple(plans),
    fold_metrics=fold_metrics,
    pooled=measurement.measure(
      records, predicted, plans[0].test_dataset.metadata.patch, resampling
    ),
    froc=froc,
    warnings=(
      *_fold_warnings(plans, fold_metrics),
      *_missing_negatives_warning(plans[0]),
      *(froc.warnings if froc else ()),
    ),
  )
  atomic_files.write_json(workdir / 'crossval.json', merged.to_json())
  return merged


def table(merged: MergedFolds) -> str:
  """Returns the metrics of the folds as text."""
  head = ''.join(f'{METRIC_LABELS[name]:>11}' for name in _TABLE_METRICS)
  lines = [f'{"fold":<8}{"records":>9}{"positive":>9}{head}']

  def line(name: str, values: Mapping[str, float | None], *counts: int) -> str:
    left = ''.join(f'{count:>9}' for count in counts)
    texts = (formatting.number(values[metric]) for metric in _TABLE_METRICS)
    return f'{name:<8}{left:<18}' + ''.join(f'{text:>11}' for text in texts)

  for plan, fold in zip(merged.plans, merged.fold_metrics):
    lines.append(line(str(plan.number), fold, fold['records'], fold['nodules']))
  lines.append(line('mean', {name: merged.mean(name) for name in _TABLE_METRICS}))
  spread = {name: merged.standard_deviation(name) for name in _TABLE_METRICS}
  lines.append(line('std', spread))
  pooled = merged.pooled.metrics
  lines.append(line('pooled', pooled.to_json(), pooled.records, pooled.nodules))
  if merged.pooled.num_excluded:
    everything = merged.pooled.all_candidates.metrics
    counts = everything.records, everything.nodules
    lines.append(line('  all', everything.to_json(), *counts))
    excluded = count_text(merged.pooled.num_excluded, 'excluded finding')
    lines.append(f'  all: with {excluded} as non-nodules; the others leave them out')
  for name in _TABLE_METRICS:
    if text := formatting.interval(merged.pooled.intervals.get(name)):
      lines.append(
        f'  {METRIC_LABELS[name]} of all folds, 95 % interval over scans: {text}'
      )
  if merged.froc is not None:
    lines.append(f'  {merged.froc}')
  return '\n'.join(lines)


def _fold_warnings(
  plans: Sequence[FoldPlan], fold_metrics: Sequence[Mapping[str, Any]]
) -> list[str]:
  return [
    f'fold {plan.number}: {warning}'
    for plan, fold in zip(plans, fold_metrics)
    for warning in fold.get('warnings', ())
  ]


def _missing_negatives_warning(plan: FoldPlan) -> list[str]:
  if plan.test_dataset.holds_all_candidates:
    return []
  return [
    f'{plan.test_dataset.name} holds only a part of the negatives: the false positives '
    "per scan are too low for LUNA16's protocol; test on all candidates, e.g. with "
    '--test_dataset=luna16_patches/axial_50px_all'
  ]
