"""The metrics of all records, and the rates at other thresholds."""

from __future__ import annotations

from luna_tfds.text_format import count_text
from model.metrics.classification import LONG_METRIC_LABELS
from model.metrics.classification import METRIC_LABELS
from trainer.evaluation.measurement import Measurement
from trainer.evaluation.steps import EvaluationMetrics
from trainer.report import formatting
from trainer.report.content import Headline
from trainer.report.content import Row
from trainer.report.content import Section

_HEADLINES = ('pr_auc', 'recall', 'precision', 'f1')
_TARGET_METRICS = ('precision', 'recall', 'specificity', 'f1')


def headlines(measured: Measurement) -> list[Headline]:
  """Returns the main metrics with their intervals."""
  return [
    Headline(
      LONG_METRIC_LABELS[name],
      formatting.number(measured.metrics.value(name), 3),
      formatting.interval_in_words(measured.intervals.get(name)),
    )
    for name in _HEADLINES
  ]


def metrics_section(metrics: EvaluationMetrics) -> Section:
  """Returns all metrics; with excluded findings, and the article's, in other columns."""
  measured = metrics.measurement
  columns = [('this model', measured.metrics, measured.intervals)]
  if measured.num_excluded:
    everything = measured.all_candidates
    columns.append(('with excluded', everything.metrics, everything.intervals))
  rows: list[Row] = [
    (
      label,
      *(
        formatting.metric_cell(of.value(name), bounds.get(name), 4)
        for _, of, bounds in columns
      ),
      *([formatting.number(metrics.article.get(name), 3)] if metrics.article else []),
    )
    for name, label in LONG_METRIC_LABELS.items()
  ]
  titles = [title for title, _, _ in columns]
  header = ('', *titles, *(['the article'] if metrics.article else []))
  return Section('Metrics', _explain(metrics), header, rows)


def _explain(metrics: EvaluationMetrics) -> str:
  """Returns the threshold, how intervals were computed, and what was left out."""
  measured, decision = metrics.measurement, metrics.decision
  text = (
    'A record is predicted to be a nodule at a probability of '
    f'{decision.threshold:.4g} and above (rule {decision.rule}, chosen on '
    f'{decision.chosen_on}).'
  )
  if measured.intervals:
    text += (
      f' The 95 % intervals come from {measured.resampling.resamples} resamples of '
      f'{measured.resampled_unit}.'
    )
  if measured.num_excluded:
    hit = count_text(measured.num_excluded, 'record hits', 'records hit')
    text += (
      f' {hit} an excluded finding, which is neither a nodule nor a true negative: the '
      "metrics leave them out, as LUNA16's official script does. The second column "
      'counts them as non-nodules.'
    )
  return text


def operating_point_sections(measured: Measurement) -> list[Section]:
  """Returns the rates at thresholds that reach targets; nothing without targets."""
  if not measured.targets:
    return []
  rows: list[Row] = [
    (
      row.target.replace('>=', '≥'),
      f'{row.result.threshold:.3g}',
      *(
        formatting.metric_cell(row.result.rates.value(name), row.intervals.get(name))
        for name in _TARGET_METRICS
      ),
    )
    for row in measured.targets
  ]
  labels = [METRIC_LABELS[name] for name in _TARGET_METRICS]
  return [
    Section(
      'Operating points',
      'The threshold that just reaches a target, chosen on the same records as the '
      'metrics; the intervals keep it fixed.',
      ('target', 'threshold', *labels),
      rows,
    )
  ]
