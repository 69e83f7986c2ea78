"""Metrics as text, for the terminal."""

from __future__ import annotations

from luna_tfds.text_format import count_text
from model.metrics.classification import METRIC_LABELS
from trainer.article_baseline import ARTICLE
from trainer.evaluation.comparison import Comparison
from trainer.evaluation.steps import EvaluationMetrics
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


def metrics_table(evaluated: EvaluationMetrics) -> str:
  """Returns the main metrics with their intervals, beside the article's.

  If there are excluded findings, a column holds the metrics with them.
  """
  measured = evaluated.measurement
  records = count_text(measured.metrics.records, 'record')
  nodules = count_text(measured.metrics.nodules, 'nodule candidate')
  lines = [f'{evaluated.split}: {records}, {nodules}']
  has_excluded = measured.num_excluded > 0
  if has_excluded:
    excluded = count_text(measured.num_excluded, 'excluded finding')
    lines[0] += f'; {excluded} left out, in brackets with them as non-nodules'
  for name in _METRICS:
    value = formatting.number(measured.metrics.value(name))
    interval = formatting.interval(measured.intervals.get(name))
    article = f'   (article {ARTICLE[name]:.3f})' if name in ARTICLE else ''
    with_excluded = ''
    if has_excluded:
      other = formatting.number(measured.all_candidates.metrics.value(name))
      with_excluded = f'   [{other}]'
    line = (
      f'  {METRIC_LABELS[name]:<12}{value:>8}   {interval:<15}{with_excluded}{article}'
    )
    lines.append(line.rstrip())
  return '\n'.join(lines)


def comparison_table(comparison: Comparison) -> str:
  """Returns the metrics of two models and their differences, a line for each metric."""
  records = count_text(comparison.records, 'record')
  lines = [
    f'a: {comparison.workdirs[0]}',
    f'b: {comparison.workdirs[1]}',
    f'{comparison.split}: {records}, {comparison.resampling.resamples} resamples of '
    f'{comparison.resampled_unit}',
    f'  {"":<8}{"a":>9}{"b":>9}{"a - b":>10}   95 % interval',
  ]
  for name, row in comparison.metrics.items():
    values = (formatting.number(row.a), formatting.number(row.b))
    difference, lower, upper = (
      formatting.number(value, signed=True)
      for value in (row.difference.value, *row.difference.interval.to_json())
    )
    left = f'  {METRIC_LABELS[name]:<8}{values[0]:>9}{values[1]:>9}{difference:>10}'
    lines.append(f'{left}   {lower} … {upper}')
  return '\n'.join(lines)
