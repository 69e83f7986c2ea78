"""The calibration methods as a part of a report."""

from __future__ import annotations

from trainer.evaluation.steps import Evaluation
from trainer.report import formatting
from trainer.report.content import Row
from trainer.report.content import Section


def calibration_sections(evaluation: Evaluation) -> list[Section]:
  """Returns the calibration errors on validation; nothing if there was no fit."""
  runs = evaluation.scored.runs
  rows: list[Row] = []
  for run in runs:
    result = run.calibration
    if result is None:
      continue
    name = f'{run.workdir.path.name}: ' if len(runs) > 1 else ''
    rows += [
      (
        f'{name}{fit.method}' + (' (used)' if fit.method == result.method else ''),
        formatting.number(1 / fit.scale, 3),
        formatting.number(fit.offset, 3, signed=True),
        formatting.number(fit.ece),
      )
      for fit in result.methods
    ]
  if not rows:
    return []
  return [
    Section(
      'Calibration',
      'What can be done with the logits of the network (luna16-train --calibration), and '
      'the calibration error (ECE) on the validation split: by two-fold cross-fitting, '
      'without test-time augmentation. The error on the scored records is above.',
      ('method', 'temperature', 'offset of the logit', 'ECE on validation'),
      rows,
    )
  ]
