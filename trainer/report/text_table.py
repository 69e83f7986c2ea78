"""The main metrics as text, for the terminal."""

from __future__ import annotations

from luna_tfds.text_format import count_text
from model.metrics.classification import METRIC_LABELS
from trainer.article_baseline import ARTICLE
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
  """Returns the main metrics with their intervals, beside the article's."""
  measured = evaluated.measurement
  records = count_text(measured.metrics.records, 'record')
  nodules = count_text(measured.metrics.nodules, 'nodule')
  lines = [f'{evaluated.split}: {records}, {nodules}']
  for name in _METRICS:
    value = formatting.number(measured.metrics.value(name))
    interval = formatting.interval(measured.intervals.get(name))
    article = f'   (article {ARTICLE[name]:.3f})' if name in ARTICLE else ''
    line = f'  {METRIC_LABELS[name]:<12}{value:>8}   {interval:<15}{article}'
    lines.append(line.rstrip())
  return '\n'.join(lines)
