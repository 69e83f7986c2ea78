"""The confusion matrix and the curves of an evaluation."""

from __future__ import annotations

from collections.abc import Callable
import pathlib

from matplotlib.figure import Figure

from trainer.evaluation.steps import Evaluation
from trainer.pictures import figures
from trainer.pictures import plots
from trainer.pictures.curve_marks import RatesMark
from trainer.report.content import Section
from trainer.report.themed_picture import picture


def curve_section(evaluation: Evaluation, folder: pathlib.Path) -> Section:
  """Returns the pictures; of a split of one class the confusion matrix only."""
  records = evaluation.scored.records.without_excluded
  labels, probabilities = records.label, records.probability
  marks = _marks(evaluation)
  counts = evaluation.result.split_metrics.classification.confusion_matrix
  drawings: dict[str, tuple[Callable[[], Figure], str]] = {
    'confusion_matrix': (
      lambda: plots.confusion_matrix(counts),
      'Confusion matrix: the number of records, and their share of the true class',
    )
  }
  if records.has_both_classes:
    drawings |= {
      'roc': (
        lambda: plots.roc(labels, probabilities, marks),
        'ROC curve; dotted: random guessing',
      ),
      'precision_recall': (
        lambda: plots.precision_recall(labels, probabilities, marks),
        'Precision-recall curve; dotted: random guessing',
      ),
      'reliability': (
        lambda: plots.reliability(labels, probabilities),
        'Reliability diagram; dotted: perfect calibration. The area of a dot grows with '
        'the number of its records',
      ),
    }
  pictures = [
    picture(draw, folder / f'{name}.png', caption)
    for name, (draw, caption) in drawings.items()
  ]
  return Section('Confusion matrix and curves', pictures=pictures)


def _marks(evaluation: Evaluation) -> list[RatesMark]:
  """The operating point and, for its patches, that of the article."""
  decision = evaluation.decision
  rates = evaluation.result.split_metrics.classification
  mean = 'mean ' if decision.is_cross_fitted else ''
  marks = [
    RatesMark(
      f'operating point, {mean}threshold {decision.point.threshold:.3g}',
      rates.specificity,
      rates.recall,
      rates.precision,
    )
  ]
  if article := evaluation.result.article:
    marks.append(
      RatesMark(
        "the article's operating point",
        article['specificity'],
        article['recall'],
        article['precision'],
        figures.ARTICLE_COLOR,
        'o',
      )
    )
  return marks
