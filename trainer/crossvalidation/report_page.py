"""The page of a cross-validation: which sections it has, and their order."""

from __future__ import annotations

import pathlib

from luna_tfds.text_format import count_text
from model.metrics.classification import METRIC_LABELS
from trainer import workdir as workdir_lib
from trainer.crossvalidation import fold_table
from trainer.crossvalidation.merging import MergedFolds
from trainer.pictures import fold_plots
from trainer.pictures import plots
from trainer.pictures.curve_marks import RatesMark
from trainer.pictures.fold_plots import LabelledScores
from trainer.report import configuration_section
from trainer.report import formatting
from trainer.report import froc_section
from trainer.report import html_renderer
from trainer.report.content import Headline
from trainer.report.content import Page
from trainer.report.content import Picture
from trainer.report.content import Section
from trainer.report.themed_picture import picture

_HEADLINES = ('pr_auc', 'recall', 'precision', 'f1')


def build_page(merged: MergedFolds, folder: pathlib.Path) -> str:
  """Returns report.html; writes its pictures to `plots` in the folder.

  Args:
    merged: the folds.
    folder: folder of the cross-validation, from where the reports of the folds are
      linked.
  """
  pictures = folder / 'plots'
  froc_curves = {
    fold_table.fold_name(plan): result.curve
    for plan, result in zip(merged.plans, merged.fold_froc)
    if result is not None
  }
  page = Page(
    'Cross-validation',
    _subtitle(merged),
    [
      fold_table.fold_section(merged, folder),
      *froc_section.froc_sections(merged.froc, pictures, froc_curves),
      *_curves(merged, pictures),
      _configuration(merged),
    ],
    [*_headlines(merged), *froc_section.froc_headlines(merged.froc, len(merged.plans))],
    formatting.sentences([*merged.warnings, *merged.pooled.warnings]),
  )
  return html_renderer.render(page)


def _subtitle(merged: MergedFolds) -> str:
  plan, pooled = merged.plans[0], merged.pooled
  parts = [
    f'{plan.config.model} on {plan.test_dataset.name}: '
    + count_text(len(merged.plans), 'fold'),
    count_text(pooled.classification.records, 'record'),
    count_text(pooled.classification.nodules, 'nodule candidate'),
  ]
  if pooled.scans is not None:
    parts.append(count_text(pooled.scans, 'scan'))
  return ', '.join(parts) + '; each scored by the network that did not see its scan'


def _headlines(merged: MergedFolds) -> list[Headline]:
  headlines = []
  for name in _HEADLINES:
    small = fold_table.deviation(merged, name)
    if small:
      small += f' over {count_text(len(merged.plans), "fold")}'
    value = formatting.number(merged.mean(name), 3)
    headlines.append(Headline(f'mean {fold_table.LABELS[name]}', value, small))
  return headlines


def _curves(merged: MergedFolds, folder: pathlib.Path) -> list[Section]:
  """Curves and the main metric by fold; nothing if the records have one class only."""
  counted = [records.without_excluded for records in merged.fold_records]
  folds = {
    fold_table.fold_name(plan): LabelledScores(records.label, records.probability)
    for plan, records in zip(merged.plans, counted)
  }
  pooled = fold_plots.pool(folds)
  if not pooled.has_both_classes:
    return []
  rates = merged.pooled.classification
  marks = [
    RatesMark('operating point', rates.specificity, rates.recall, rates.precision)
  ]
  marked = 'diamond: all folds, each with its threshold'
  pictures = [
    picture(
      lambda: fold_plots.precision_recall(folds, marks),
      folder / 'precision_recall.png',
      f'Precision-recall curves; dotted: random guessing; {marked}',
    ),
    picture(
      lambda: fold_plots.roc(folds, marks),
      folder / 'roc.png',
      f'ROC curves; dotted: random guessing; {marked}',
    ),
    *_pr_auc_by_fold(merged, folder),
    picture(
      lambda: plots.reliability(pooled.labels, pooled.probabilities),
      folder / 'reliability.png',
      'Reliability diagram of all folds, calibration error (ECE) '
      f'{formatting.number(merged.pooled.classification.ece)}; dotted: perfect calibration',
    ),
  ]
  return [Section('Curves', pictures=pictures)]


def _pr_auc_by_fold(merged: MergedFolds, folder: pathlib.Path) -> list[Picture]:
  """The main metric of the folds where it is defined; nothing if there are none."""
  rows = [
    (fold_table.fold_name(plan), metrics)
    for plan, metrics in zip(merged.plans, merged.fold_metrics)
    if metrics['pr_auc'] is not None
  ]
  if not rows:
    return []
  return [
    picture(
      lambda: plots.shares(
        [name for name, _ in rows],
        [metrics['pr_auc'] for _, metrics in rows],
        [fold_table.fold_interval(metrics, 'pr_auc') for _, metrics in rows],
        METRIC_LABELS['pr_auc'],
      ),
      folder / 'pr_auc_by_fold.png',
      'PR AUC of each fold, with 95 % intervals',
    )
  ]


def _configuration(merged: MergedFolds) -> Section:
  fields = workdir_lib.flatten(merged.plans[0].config.to_json())
  return configuration_section.configuration_section(
    [
      ('test_dataset', merged.plans[0].test_dataset_argument),
      *(
        (name, value)
        for name, value in fields.items()
        if name not in ('train_split', 'validation_split')
      ),
    ]
  )
