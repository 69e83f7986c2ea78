"""Compares two models on the same records, by paired resampling of scans."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from luna_tfds.errors import UsageError
from model.metrics import bootstrap
from model.metrics import froc
from model.metrics.resampling import Difference
from model.metrics.resampling import Resampling
from model.metrics.resampling import ScanIndex
from trainer.evaluation import froc_evaluation
from trainer.evaluation import split_metrics
from trainer.evaluation.steps import Evaluation
from trainer.scoring.scored_records import ScoredRecords

COMPARED_METRICS = ('pr_auc', 'roc_auc', 'f1')


@dataclasses.dataclass(frozen=True)
class ComparedMetric:
  """One metric of two models.

  Attributes:
    a: value of the first model.
    b: value of the second model.
    difference: a - b, with its interval.
  """

  a: float
  b: float
  difference: Difference

  def to_json(self) -> dict[str, float]:
    """Returns the row as in compare.json."""
    return {'a': self.a, 'b': self.b, **self.difference.to_json()}


@dataclasses.dataclass(frozen=True)
class Comparison:
  """What compare.json holds.

  Attributes:
    workdirs: paths of the workdirs of the two models.
    datasets: full names of their datasets.
    split: the scored split.
    records: number of records without excluded findings.
    resampled_unit: 'scans' or 'records'.
    resampling: number of resamples and seed of the intervals.
    records_trained_on: for each model, the number of scored records of scans that it
      was trained on; None if it cannot be told.
    warnings: what a reader of the metrics should know; each is one line.
    metrics: the compared metrics by name; 'cpm' too if scans and nodules are known.
    froc_nodules: which nodules the CPM counts, in a sentence; '' without a CPM.
    froc_warnings: what a reader of the CPM should know; each is one line.
  """

  workdirs: tuple[str, str]
  datasets: tuple[str, str]
  split: str
  records: int
  resampled_unit: str
  resampling: Resampling
  records_trained_on: tuple[int | None, int | None]
  warnings: tuple[str, ...]
  metrics: dict[str, ComparedMetric]
  froc_nodules: str
  froc_warnings: tuple[str, ...]

  def to_json(self) -> dict[str, Any]:
    """Returns the content of compare.json."""
    return {
      'a': self.workdirs[0],
      'b': self.workdirs[1],
      'dataset_a': self.datasets[0],
      'dataset_b': self.datasets[1],
      'split': self.split,
      'records': self.records,
      'records_trained_on_a': self.records_trained_on[0],
      'records_trained_on_b': self.records_trained_on[1],
      'warnings': list(self.warnings),
      'bootstrap': self.resampling.to_json(self.resampled_unit),
      'froc_nodules': self.froc_nodules,
      'froc_warnings': list(self.froc_warnings),
      'metrics': {name: metric.to_json() for name, metric in self.metrics.items()},
    }


def compare(a: Evaluation, b: Evaluation, resampling: Resampling) -> Comparison:
  """Compares two evaluations of the same records.

  Both are resampled together. What makes a scan hard for both cancels out, so the
  interval of the difference is narrower than those of the two metrics suggest.

  Args:
    a: one evaluation.
    b: the other, of the same records; the patches may differ in kind.
    resampling: at least one resample.

  Raises:
    UsageError: the records differ.
  """
  rows_a, rows_b = _matching_rows(a, b)
  # As in the metrics of each model, which excluded findings are no part of.
  counted = ~(a.scored.records.excluded[rows_a] | b.scored.records.excluded[rows_b])
  rows_a, rows_b = rows_a[counted], rows_b[counted]
  scans = ScanIndex.from_ids(a.scored.records.groups[rows_a])
  of_a, of_b = (
    bootstrap.ResampledMetrics(
      one.scored.records.label[rows],
      one.scored.records.probability[rows],
      one.decision.predicted[rows],
      scans,
    )
    for one, rows in ((a, rows_a), (b, rows_b))
  )
  differences = bootstrap.paired_differences(of_a, of_b, COMPARED_METRICS, resampling)
  metrics_a, metrics_b = (one.result.split_metrics.classification for one in (a, b))
  metrics = {
    name: ComparedMetric(metrics_a.value(name), metrics_b.value(name), difference)
    for name, difference in differences.items()
  }
  froc_a = a.result.froc
  return Comparison(
    workdirs=(_workdir(a), _workdir(b)),
    datasets=(a.result.dataset, b.result.dataset),
    split=a.result.split,
    records=len(rows_a),
    resampled_unit=split_metrics.resampled_unit(a.scored.records.num_scans),
    resampling=resampling,
    records_trained_on=(a.result.records_trained_on, b.result.records_trained_on),
    warnings=_warnings(a, b),
    metrics=metrics | _compare_cpm(a, b, resampling),
    froc_nodules=froc_evaluation.describe_nodules(froc_a) if froc_a else '',
    froc_warnings=tuple(
      f'{_workdir(one)}: {warning}'
      for one in (a, b)
      if one.result.froc
      for warning in one.result.froc.warnings
    ),
  )


def _warnings(a: Evaluation, b: Evaluation) -> tuple[str, ...]:
  of_models = [
    f'{_workdir(one)}: {warning}' for one in (a, b) for warning in one.result.warnings
  ]
  of_intervals = [
    f'{warning}, and the p values too small'
    for warning in split_metrics.few_scans_warnings(a.scored.records.num_scans)
  ]
  return (*of_models, *of_intervals)


def _compare_cpm(
  a: Evaluation, b: Evaluation, resampling: Resampling
) -> dict[str, ComparedMetric]:
  """Returns the row of the CPM; none if scans or nodules are unknown."""
  of_a, of_b = a.result.froc, b.result.froc
  if of_a is None or of_b is None:
    return {}
  # The scans of both are those of the same records, numbered in sorted order.
  difference = froc.paired_cpm_difference(of_a.entries, of_b.entries, resampling)
  return {'cpm': ComparedMetric(of_a.curve.cpm, of_b.curve.cpm, difference)}


def _workdir(evaluation: Evaluation) -> str:
  return str(evaluation.scored.runs[0].workdir.path)


def _matching_rows(a: Evaluation, b: Evaluation) -> tuple[np.ndarray, np.ndarray]:
  """Returns the rows of both evaluations in one order of the records."""
  source_a, source_b = a.scored.source, b.scored.source
  records_a, records_b = a.scored.records, b.scored.records
  if source_a.fingerprint and (source_a.fingerprint, source_a.split) == (
    source_b.fingerprint,
    source_b.split,
  ):
    return np.arange(len(records_a)), np.arange(len(records_b))
  keys_a, rows_a = _sorted_keys(records_a)
  keys_b, rows_b = _sorted_keys(records_b)
  same = np.array_equal(keys_a, keys_b) and np.array_equal(
    records_a.label[rows_a], records_b.label[rows_b]
  )
  if not same:
    raise UsageError(
      f'--compare: the {len(records_a)} records of {a.result.dataset} '
      f'({_workdir(a)}) are not the {len(records_b)} of {b.result.dataset} '
      f'({_workdir(b)}); compare models on the same candidates: give --dataset and '
      '--split'
    )
  return rows_a, rows_b


def _sorted_keys(records: ScoredRecords) -> tuple[np.ndarray, np.ndarray]:
  keys = np.array(records.keys)
  rows = np.argsort(keys, kind='stable')
  return keys[rows], rows
