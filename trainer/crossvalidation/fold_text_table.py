"""The metrics of each fold and of all folds as text, for the terminal."""

from __future__ import annotations

from collections.abc import Mapping

from luna_tfds.text_format import count_text
from model.metrics.classification import METRIC_LABELS
from trainer.crossvalidation.fold_table import METRICS
from trainer.crossvalidation.merging import MergedFolds
from trainer.evaluation import froc_evaluation
from trainer.report import formatting


def folds_table(merged: MergedFolds) -> str:
  """Returns the metrics of the folds as text."""
  head = ''.join(f'{METRIC_LABELS[name]:>11}' for name in METRICS)
  lines = [f'{"fold":<8}{"records":>9}{"positive":>9}{head}']

  def line(name: str, values: Mapping[str, float | None], *counts: int) -> str:
    left = ''.join(f'{count:>9}' for count in counts)
    texts = (formatting.number(values[metric]) for metric in METRICS)
    return f'{name:<8}{left:<18}' + ''.join(f'{text:>11}' for text in texts)

  for plan, fold in zip(merged.plans, merged.fold_metrics):
    lines.append(line(str(plan.number), fold, fold['records'], fold['nodules']))
  lines.append(line('mean', {name: merged.mean(name) for name in METRICS}))
  spread = {name: merged.standard_deviation(name) for name in METRICS}
  lines.append(line('std', spread))
  pooled = merged.pooled.classification
  lines.append(line('pooled', pooled.to_json(), pooled.records, pooled.nodules))
  if merged.pooled.num_excluded:
    everything = merged.pooled.all_candidates.classification
    counts = everything.records, everything.nodules
    lines.append(line('  all', everything.to_json(), *counts))
    excluded = count_text(merged.pooled.num_excluded, 'excluded finding')
    lines.append(f'  all: with {excluded} as non-nodules; the others leave them out')
  for name in METRICS:
    if text := formatting.interval(merged.pooled.intervals.get(name)):
      lines.append(
        f'  {METRIC_LABELS[name]} of all folds, 95 % interval over scans: {text}'
      )
  if merged.froc is not None:
    lines.append(f'  FROC of all folds: {merged.froc}')
    lines.append(f'  {froc_evaluation.describe_nodules(merged.froc)}')
  return '\n'.join(lines)
