"""Merges the folds of a cross-validation: submission, FROC curve, metrics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import dataclasses
import math
import pathlib
from typing import Any

import numpy as np

from luna_tfds import tables
from model.metrics.classification import METRICS
from model.metrics.resampling import Resampling
from trainer.crossvalidation import folds as folds_lib
from trainer.crossvalidation.folds import FoldPlan
from trainer.evaluation import froc_evaluation
from trainer.evaluation import split_metrics
from trainer.evaluation.split_metrics import SplitMetrics
from trainer.pictures import froc_plot
from trainer.scoring import froc_submission
from trainer.scoring import prediction_files
from trainer.scoring import scored_records
from trainer.scoring.froc_submission import FrocReference
from trainer.scoring.froc_submission import FrocResult
from trainer.scoring.scored_records import ScoredRecords

_NO_FROC = 'no nodule of the annotations is in the tested scans: no FROC curve'
# Of the metrics of a fold, what stays in its own file.
_LEFT_OUT = (
  'article',
  'by_diameter',
  'by_subset',
  'by_slice_thickness',
  'calibration',
  'froc',
)


@dataclasses.dataclass(frozen=True)
class MergedFolds:
  """What crossval.json holds.

  Attributes:
    plans: plans of the folds.
    fold_metrics: the content of each fold's file of metrics, and 'cpm' if there is a FROC
      curve.
    fold_records: the scored records of each fold.
    fold_froc: the FROC curve of each fold, without a band; None if it has no nodule.
    pooled: the metrics of the records of all folds together.
    froc: FROC result of the merged submission; without annotations, for the nodules
      that candidates reach; None if there are none.
    warnings: what a reader of the metrics should know; each is one line.
  """

  plans: tuple[FoldPlan, ...]
  fold_metrics: tuple[Mapping[str, Any], ...]
  fold_records: tuple[ScoredRecords, ...]
  fold_froc: tuple[FrocResult | None, ...]
  pooled: SplitMetrics
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
    values = (fold.get(name) for fold in self.fold_metrics)
    return [value for value in values if value is not None]

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
    names = (*METRICS, *(('cpm',) if self.froc else ()))
    fields = {
      'dataset': config.dataset,
      'test_dataset': self.plans[0].test_dataset_argument,
      'model': config.model,
      'folds': rows,
      'mean': {name: self.mean(name) for name in names},
      'std': {name: self.standard_deviation(name) for name in names},
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
  """Merges the folds: submission.csv, the FROC curve and all metrics.

  Args:
    plans: plans of the folds, which are scored.
    workdir: folder for the merged files.
    reference: what the submission is compared with; None for the nodules that candidates
      reach.
    resampling: how the intervals are computed.

  Raises:
    UsageError: the scores of a fold are damaged, or `reference` lists other scans.
  """
  scores = [folds_lib.read_scores(plan.scores_file) for plan in plans]
  records = scored_records.concatenate([records for records, _ in scores])
  predicted = np.concatenate([predicted for _, predicted in scores])
  submission = workdir / 'submission.csv'
  prediction_files.write_submission(
    submission, records.seriesuid, records.center_xyz_mm, records.probability
  )
  froc = _merged_froc(submission, records, reference, resampling)
  if froc is not None:
    froc_submission.write_result(froc, workdir)
    froc_plot.save_froc_curve(froc.curve, froc.band, str(froc), workdir / 'froc.png')
  fold_records = tuple(of_fold for of_fold, _ in scores)
  fold_froc = tuple(_froc_of_fold(of_fold, reference) for of_fold in fold_records)
  fold_metrics = tuple(
    {
      **plan.read_metrics(),
      **({} if froc is None else {'cpm': result.curve.cpm if result else None}),
    }
    for plan, result in zip(plans, fold_froc)
  )
  return MergedFolds(
    plans=tuple(plans),
    fold_metrics=fold_metrics,
    fold_records=fold_records,
    fold_froc=fold_froc,
    pooled=split_metrics.compute(
      records, predicted, plans[0].test_dataset.metadata.patch, resampling
    ),
    froc=froc,
    warnings=(
      *_fold_warnings(plans, fold_metrics),
      *froc_evaluation.missing_negatives_warnings(
        plans[0].test_dataset, '--test_dataset'
      ),
      *(froc.warnings if froc else () if reference is None else (_NO_FROC,)),
    ),
  )


def _merged_froc(
  submission: pathlib.Path,
  records: ScoredRecords,
  reference: FrocReference | None,
  resampling: Resampling,
) -> FrocResult | None:
  """Computes the FROC curve of a submission; None if its scans hold no nodule."""
  if reference is None:
    return froc_evaluation.evaluate_froc(records, None, resampling)
  listed = reference.seriesuids
  scans = set(records.seriesuid.tolist() if listed is None else listed)
  if not scans & set(reference.nodules.seriesuids.tolist()):
    return None
  return froc_submission.score_submission(
    # As it was written, so that luna16-froc gives the same result.
    tables.read_table(submission, 'probability'),
    reference,
    resampling,
  )


def _froc_of_fold(
  records: ScoredRecords, reference: FrocReference | None
) -> FrocResult | None:
  """Computes the FROC curve of the scans of a fold, without a band."""
  if reference is not None:
    scans = set(records.seriesuid.tolist())
    listed = scans if reference.seriesuids is None else set(reference.seriesuids)
    if not scans & listed:
      return None
    reference = dataclasses.replace(reference, seriesuids=tuple(sorted(scans & listed)))
  no_band = Resampling(resamples=0)
  return froc_evaluation.evaluate_froc(records, reference, no_band)


def _fold_warnings(
  plans: Sequence[FoldPlan], fold_metrics: Sequence[Mapping[str, Any]]
) -> list[str]:
  return [
    f'fold {plan.number}: {warning}'
    for plan, fold in zip(plans, fold_metrics)
    for warning in fold.get('warnings', ())
  ]
