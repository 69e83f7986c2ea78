"""The metrics of each fold and of all folds, as a table of the report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import os
import pathlib
from typing import Any

from model.metrics.classification import METRIC_LABELS
from model.metrics.resampling import Interval
from trainer.crossvalidation.folds import FoldPlan
from trainer.crossvalidation.merging import MergedFolds
from trainer.report import formatting
from trainer.report.content import Cell
from trainer.report.content import Row
from trainer.report.content import Section

LABELS = {**METRIC_LABELS, 'cpm': 'CPM'}

# Columns of counts: the name in fold_metrics.json, and the heading.
_COUNTS = {'records': 'records', 'nodules': 'nodule candidates', 'scans': 'scans'}
# The metrics in columns, here and in the terminal.
METRICS = ('pr_auc', 'roc_auc', 'recall', 'precision', 'f1')


def fold_section(merged: MergedFolds, folder: pathlib.Path) -> Section:
  """Returns a row for each fold, their mean and deviation, and the pooled metrics.

  Args:
    merged: the folds.
    folder: the folder of this report, from which the reports of the folds are linked.
  """
  names = [*METRICS, *(['cpm'] if merged.froc else [])]
  rows = [
    _fold(plan, metrics, names, folder)
    for plan, metrics in zip(merged.plans, merged.fold_metrics)
  ]
  text = (
    'Fold k is tested on subset k. Below a metric is its 95 % interval from resamples of '
    f'{merged.pooled.resampled_unit}; below a mean, the standard deviation over the '
    'folds. In the last row the records of all folds are measured together, each with '
    'the threshold of its fold. The name of a fold links to its report.'
  )
  header = ('fold', *_COUNTS.values(), *(LABELS[name] for name in names))
  summary = [_mean(merged, names), _pooled(merged)]
  return Section('Folds', text, header, [*rows, *summary], len(summary))


def fold_name(plan: FoldPlan) -> str:
  """Returns e.g. 'fold 3'."""
  return f'fold {plan.number}'


def fold_interval(metrics: Mapping[str, Any], name: str) -> Interval | None:
  """Returns the interval of a metric in a fold's metrics.json; None if undefined."""
  bounds = metrics.get('intervals', {}).get(name)
  return None if bounds is None or None in bounds else Interval(*bounds)


def deviation(merged: MergedFolds, name: str) -> str:
  """Returns the standard deviation of a metric over the folds; '' if undefined."""
  text = formatting.number(merged.standard_deviation(name), 3)
  return '' if text == formatting.DASH else f'± {text}'


def _fold(
  plan: FoldPlan, metrics: Mapping[str, Any], names: Sequence[str], folder: pathlib.Path
) -> Row:
  href = ''
  if plan.report_file.is_file():
    relative = os.path.relpath(str(plan.report_file), str(folder))
    href = pathlib.Path(relative).as_posix()
  return [
    Cell(fold_name(plan), href=href),
    *(str(metrics.get(name, '')) for name in _COUNTS),
    *(
      formatting.metric_cell(metrics.get(name), fold_interval(metrics, name))
      for name in names
    ),
  ]


def _mean(merged: MergedFolds, names: Sequence[str]) -> Row:
  return [
    'mean',
    *[''] * len(_COUNTS),
    *(
      Cell(formatting.number(merged.mean(name), 3), deviation(merged, name))
      for name in names
    ),
  ]


def _pooled(merged: MergedFolds) -> Row:
  pooled = merged.pooled
  counts = pooled.classification.records, pooled.classification.nodules, pooled.scans
  cells = [
    formatting.metric_cell(
      pooled.classification.value(name), pooled.intervals.get(name)
    )
    for name in METRICS
  ]
  if merged.froc:
    band = merged.froc.band
    interval = band.cpm.interval if band else None
    cells.append(formatting.metric_cell(merged.froc.curve.cpm, interval))
  return [
    'pooled',
    *(formatting.DASH if n is None else str(n) for n in counts),
    *cells,
  ]
