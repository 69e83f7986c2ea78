"""The report of a cross-validation: one HTML file."""

from __future__ import annotations

from collections.abc import Mapping
import os
import pathlib
from typing import Any

from luna_tfds.text_format import count_text
from model.metrics.classification import METRIC_LABELS
from model.metrics.resampling import Interval
from trainer import workdir as workdir_lib
from trainer.crossvalidation.folds import FoldPlan
from trainer.crossvalidation.merging import MergedFolds
from trainer.pictures import fold_plots
from trainer.pictures import plots
from trainer.pictures.fold_plots import LabelledScores
from trainer.report import formatting
from trainer.report import froc_section
from trainer.report import html_renderer as html
from trainer.report.themed_picture import picture

_HEADLINES = ('pr_auc', 'recall', 'precision', 'f1')
_COUNTS = ('records', 'nodules', 'scans')
_COLUMNS = ('pr_auc', 'roc_auc', 'recall', 'precision', 'f1')
_LABELS = {**METRIC_LABELS, 'cpm': 'CPM'}


def build_page(merged: MergedFolds, folder: pathlib.Path) -> str:
  """Returns report.html; writes its pictures to `plots` in the folder.

  Args:
    merged: the folds.
    folder: folder of the cross-validation, from where the reports of the folds are
      linked.
  """
  pictures = folder / 'plots'
  curves = {
    _name(plan): result.curve
    for plan, result in zip(merged.plans, merged.fold_froc)
    if result is not None
  }
  return html.render(
    'Cross-validation',
    _subtitle(merged),
    [
      _folds(merged, folder),
      *froc_section.froc_sections(merged.froc, pictures, curves),
      *_curves(merged, pictures),
      _configuration(merged),
    ],
    headlines=[
      html.Headline(
        f'mean {_LABELS[name]}',
        formatting.number(merged.mean(name), 3),
        _deviation_over_folds(merged, name),
      )
      for name in _HEADLINES
    ]
    + froc_section.froc_headlines(merged.froc),
    notices=formatting.sentences([*merged.warnings, *merged.pooled.warnings]),
  )


def _name(plan: FoldPlan) -> str:
  return f'fold {plan.number}'


def _subtitle(merged: MergedFolds) -> str:
  plan, pooled = merged.plans[0], merged.pooled
  parts = [
    f'{plan.config.model} on {plan.test_dataset.name}: '
    + count_text(len(merged.plans), 'fold'),
    count_text(pooled.metrics.records, 'record'),
    count_text(pooled.metrics.nodules, 'nodule'),
  ]
  if pooled.scans is not None:
    parts.append(count_text(pooled.scans, 'scan'))
  return ', '.join(parts) + '; each scored by the network that did not see its scan'


def _deviation_over_folds(merged: MergedFolds, name: str) -> str:
  text = _deviation(merged.standard_deviation(name), 3)
  return f'{text} over {count_text(len(merged.plans), "fold")}' if text else ''


def _deviation(value: float, digits: int) -> str:
  text = formatting.number(value, digits)
  return '' if text == formatting.DASH else f'± {text}'


def _folds(merged: MergedFolds, folder: pathlib.Path) -> html.Section:
  """The metrics of each fold, their mean and deviation, and those of all records."""
  names = [*_COLUMNS, *(['cpm'] if merged.froc else [])]
  rows: list[list[html.Cell]] = []
  for plan, fold in zip(merged.plans, merged.fold_metrics):
    cells: list[html.Cell] = [
      (formatting.number(fold.get(name), 3), formatting.interval(_interval(fold, name)))
      for name in names
    ]
    rows.append([_link(plan, folder), *(str(fold.get(n, '')) for n in _COUNTS), *cells])
  rows.append(
    [
      'mean',
      *[''] * len(_COUNTS),
      *(
        (
          formatting.number(merged.mean(name), 3),
          _deviation(merged.standard_deviation(name), 3),
        )
        for name in names
      ),
    ]
  )
  pooled = merged.pooled
  all_folds: list[html.Cell] = [
    (
      formatting.number(pooled.metrics.value(name), 3),
      formatting.interval(pooled.intervals.get(name)),
    )
    for name in _COLUMNS
  ]
  if merged.froc:
    band = merged.froc.band
    bounds = formatting.interval(band.cpm.interval if band else None)
    all_folds.append((formatting.number(merged.froc.curve.cpm, 3), bounds))
  counts = pooled.metrics.records, pooled.metrics.nodules, pooled.scans
  rows.append(
    ['pooled', *(formatting.DASH if n is None else str(n) for n in counts)] + all_folds
  )
  text = (
    'Fold k is tested on subset k. Below a metric is its 95 % interval from resamples of '
    f'{pooled.resampled_unit}; below a mean, the standard deviation over the folds. In '
    'the last row the records of all folds are measured together, each with the threshold '
    'of its fold. A fold leads to its report.'
  )
  header = ('fold', *_COUNTS, *(_LABELS[name] for name in names))
  return html.Section('Folds', text, header, rows, summary_rows=2)


def _interval(fold: Mapping[str, Any], name: str) -> Interval | None:
  bounds = fold.get('intervals', {}).get(name)
  return None if bounds is None or None in bounds else Interval(*bounds)


def _link(plan: FoldPlan, folder: pathlib.Path) -> html.Cell:
  if not plan.report_file.is_file():
    return _name(plan)
  href = pathlib.Path(os.path.relpath(str(plan.report_file), str(folder))).as_posix()
  return html.Link(_name(plan), href)


def _curves(merged: MergedFolds, folder: pathlib.Path) -> list[html.Section]:
  """Curves and the main metric by fold; folds of one class are left out."""
  counted = {
    _name(plan): records.without_excluded
    for plan, records in zip(merged.plans, merged.fold_records)
  }
  scores = {
    name: LabelledScores(records.label, records.probability)
    for name, records in counted.items()
  }
  folds = {
    name: scores[name] for name, records in counted.items() if records.has_both_classes
  }
  if not folds:
    return []
  names = [_name(plan) for plan in merged.plans]
  values = [fold['pr_auc'] for fold in merged.fold_metrics]
  defined = [k for k, value in enumerate(values) if value is not None]
  pictures = [
    picture(
      lambda: fold_plots.precision_recall(folds),
      folder / 'precision_recall.png',
      'Precision-recall curves; dotted: random guessing',
    ),
    picture(
      lambda: fold_plots.roc(folds),
      folder / 'roc.png',
      'ROC curves; dotted: random guessing',
    ),
    picture(
      lambda: plots.shares(
        [names[k] for k in defined],
        [values[k] for k in defined],
        [_interval(merged.fold_metrics[k], 'pr_auc') for k in defined],
        METRIC_LABELS['pr_auc'],
      ),
      folder / 'pr_auc_by_fold.png',
      'PR AUC of each fold, with 95 % intervals',
    ),
  ]
  pooled = fold_plots.pool(scores)
  pictures.append(
    picture(
      lambda: plots.reliability(pooled.labels, pooled.probabilities),
      folder / 'reliability.png',
      'Reliability diagram of all folds, calibration error (ECE) '
      f'{formatting.number(merged.pooled.metrics.ece)}; dotted: perfect calibration',
    )
  )
  return [html.Section('Curves', pictures=pictures)]


def _configuration(merged: MergedFolds) -> html.Section:
  fields = workdir_lib.flatten(merged.plans[0].config.to_json())
  rows = [('test_dataset', merged.plans[0].test_dataset_argument)]
  rows += [
    (name, formatting.DASH if value in (None, '') else str(value))
    for name, value in fields.items()
    if name not in ('train_split', 'validation_split')
  ]
  return html.Section(
    'Configuration', header=('setting', 'value'), rows=rows, names=True
  )
