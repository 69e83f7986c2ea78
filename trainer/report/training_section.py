"""The curves of a training."""

from __future__ import annotations

import functools
import pathlib

from model.metrics.classification import METRIC_LABELS
from trainer.evaluation.steps import Evaluation
from trainer.pictures import plots
from trainer.report.content import Section
from trainer.report.themed_picture import picture


def training_sections(evaluation: Evaluation, folder: pathlib.Path) -> list[Section]:
  """Returns loss and PR AUC over epochs, of an ensemble those of the first run."""
  history = evaluation.scored.runs[0].workdir.history.read()
  if not history:
    return []
  pictures = [
    picture(
      functools.partial(plots.training_curve, history, name, label),
      folder / f'training_{name}.png',
      f'{label[0].upper()}{label[1:]} of each epoch; training: of the balanced, '
      'augmented batches',
    )
    for name, label in (('loss', 'loss'), ('pr_auc', METRIC_LABELS['pr_auc']))
  ]
  return [Section('Training', pictures=pictures)]
