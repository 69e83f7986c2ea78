"""The metrics of all records, and the rates at other thresholds."""

from __future__ import annotations

from luna_tfds.text_format import count_text
from model.metrics.classification import LONG_METRIC_LABELS
from model.metrics.classification import METRIC_LABELS
from trainer.evaluation.split_metrics import SplitMetrics
from trainer.evaluation.steps import EvaluationResult
from trainer.report import formatting
from trainer.report.content import Headline
from trainer.report.content import Row
from trainer.report.content import Section

_HEADLINES = ('pr_auc', 'recall', 'precision', 'f1')
_TARGET_METRICS = ('precision', 'recall', 'specificity', 'f1')


def headlines(split_metrics: SplitMetrics) -> list[Headline]:
  """Returns the main metrics with their intervals."""
  return [
    Headline(
      LONG_METRIC_LABELS[name],
      formatting.number(split_metrics.classification.value(name), 3),
      formatting.interval_in_words(split_metrics.intervals.get(name)),
    )
    for name in _HEADLINES
  ]


def metrics_section(result: EvaluationResult) -> Section:
  """Returns all metrics; with excluded findings, and the article's, in other columns."""
  split_metrics = result.split_metrics
  columns = [('this model', split_metrics.classification, split_metrics.intervals)]
  if split_metrics.num_excluded:
    everything = split_metrics.all_candidates
    columns.append(
      ('with excluded findings', everything.classification, everything.intervals)
    )
  rows: list[Row] = [
    (
      label,
      *(
        formatting.metric_cell(of.value(name), bounds.get(name), 4)
        for _, of, bounds in columns
      ),
      *([formatting.number(result.article.get(name), 3)] if result.article else []),
    )
    for name, label in LONG_METRIC_LABELS.items()
  ]
  titles = [title for title, _, _ in columns]
  header = ('metric', *titles, *(['the article'] if result.article else []))
  return Section('Metrics', _explain(result), header, rows)


def _explain(result: EvaluationResult) -> str:
  """Returns the threshold, how intervals were computed, and what was left out."""
  split_metrics, decision = result.split_metrics, result.decision
  mean = ' (the mean of two)' if decision.is_cross_fitted else ''
  chosen = 'chosen on ' if decision.point.chosen_on else ''
  text = (
    'A record is predicted to be a nodule at a probability of '
    f'{decision.point.threshold:.4g}{mean} and above (rule {decision.point.rule}, '
    f'{chosen}{decision.chosen_on_text}).'
  )
  if split_metrics.intervals:
    text += (
      f' The 95 % intervals come from {split_metrics.resampling.resamples} resamples of '
      f'{split_metrics.resampled_unit}.'
    )
  if split_metrics.num_excluded:
    hit = count_text(split_metrics.num_excluded, 'record hits', 'records hit')
    text += (
      f' {hit} an excluded finding, which is neither a nodule nor a true negative: the '
      "metrics leave them out, as LUNA16's official script does. The second column "
      'counts them as non-nodules.'
    )
  return text


def operating_point_sections(split_metrics: SplitMetrics) -> list[Section]:
  """Returns the rates at thresholds that reach targets; nothing without targets."""
  if not split_metrics.targets:
    return []
  rows: list[Row] = [
    (
      row.target.replace('>= ', '≥\N{NO-BREAK SPACE}'),
      f'{row.result.threshold:.3g}',
      *(
        formatting.metric_cell(row.result.rates.value(name), row.intervals.get(name))
        for name in _TARGET_METRICS
      ),
    )
    for row in split_metrics.targets
  ]
  labels = [METRIC_LABELS[name] for name in _TARGET_METRICS]
  return [
    Section(
      'Operating points',
      'The threshold that just reaches each target. It is chosen on the records that are '
      'measured, so these rates are optimistic; the intervals keep it fixed.',
      ('target', 'threshold', *labels),
      rows,
    )
  ]
