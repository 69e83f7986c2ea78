"""Metrics as text, for the terminal."""

from __future__ import annotations

from luna_tfds.text_format import count_text
from model.metrics.classification import METRIC_LABELS
from trainer.evaluation import froc_evaluation
from trainer.evaluation.comparison import Comparison
from trainer.evaluation.steps import EvaluationResult
from trainer.report import formatting

_METRICS = (
  'accuracy',
  'precision',
  'recall',
  'specificity',
  'f1',
  'roc_auc',
  'pr_auc',
)


def metrics_table(result: EvaluationResult) -> str:
  """Returns the main metrics with their intervals; for its patches, the article's too.

  If there are excluded findings, a column holds the metrics with them.
  """
  split_metrics = result.split_metrics
  records = count_text(split_metrics.classification.records, 'record')
  nodules = count_text(split_metrics.classification.nodules, 'nodule candidate')
  lines = [f'{result.split}: {records}, {nodules}']
  has_excluded = split_metrics.num_excluded > 0
  if has_excluded:
    excluded = count_text(split_metrics.num_excluded, 'excluded finding')
    lines[0] += f'; {excluded} left out, in brackets with them as non-nodules'
  for name in _METRICS:
    value = formatting.number(split_metrics.classification.value(name))
    interval = formatting.interval(split_metrics.intervals.get(name))
    published = result.article.get(name)
    article = f'   (article {published:.3f})' if published else ''
    with_excluded = ''
    if has_excluded:
      other = formatting.number(split_metrics.all_candidates.classification.value(name))
      with_excluded = f'   [{other}]'
    line = (
      f'  {METRIC_LABELS[name]:<12}{value:>8}   {interval:<15}{with_excluded}{article}'
    )
    lines.append(line.rstrip())
  if result.froc is not None:
    curve, band = result.froc.curve, result.froc.band
    interval = formatting.interval(band.cpm.interval if band else None)
    lines.append(
      f'  {"CPM":<12}{formatting.number(curve.cpm):>8}   {interval}'.rstrip()
    )
    lines.append(f'  {froc_evaluation.describe_nodules(result.froc)}')
    lines += [f'  FROC: {warning}' for warning in result.froc.warnings]
  return '\n'.join(lines)


def comparison_table(comparison: Comparison) -> str:
  """Returns the metrics of two models and their differences, a line for each metric."""
  records = count_text(comparison.records, 'record')
  lines = [
    f'a: {comparison.workdirs[0]}',
    f'b: {comparison.workdirs[1]}',
    f'{comparison.split}: {records}, {comparison.resampling.resamples} resamples of '
    f'{comparison.resampled_unit}',
    f'  {"":<8}{"a":>9}{"b":>9}{"a - b":>10}   95 % interval        p value',
  ]
  for name, row in comparison.metrics.items():
    values = (formatting.number(row.a), formatting.number(row.b))
    difference, lower, upper = (
      formatting.number(value, signed=True)
      for value in (row.difference.value, *row.difference.interval.to_json())
    )
    label = METRIC_LABELS.get(name, name.upper())
    left = f'  {label:<8}{values[0]:>9}{values[1]:>9}{difference:>10}'
    interval = f'{lower} … {upper}'
    p_value = formatting.number(row.difference.p_value, 3)
    lines.append(f'{left}   {interval:<19}{p_value:>9}')
  if comparison.froc_nodules:
    lines.append(f'  CPM: {comparison.froc_nodules}')
    lines += [f'  CPM: {warning}' for warning in comparison.froc_warnings]
  return '\n'.join(lines)
