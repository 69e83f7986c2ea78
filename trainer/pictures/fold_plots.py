"""Curves of the folds of a cross-validation, and of all folds together."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
import dataclasses

from matplotlib.axes import Axes
from matplotlib.figure import Figure
import numpy as np
from sklearn import metrics as sklearn_metrics

from model.metrics import classification
from trainer.pictures import curve_marks
from trainer.pictures import figures
from trainer.pictures.curve_marks import RatesMark


@dataclasses.dataclass(frozen=True)
class LabelledScores:
  """Labels and probabilities of the records of a fold.

  Attributes:
    labels: [n], 1 for nodules.
    probabilities: [n].
  """

  labels: np.ndarray
  probabilities: np.ndarray

  @property
  def has_both_classes(self) -> bool:
    """Whether there are nodules and non-nodules, as a curve needs."""
    return classification.has_both_classes(self.labels)


def roc(folds: Mapping[str, LabelledScores], marks: Sequence[RatesMark] = ()) -> Figure:
  """Draws the ROC curve of each fold that has both classes, and of all folds.

  Args:
    folds: the records of each fold, by its name; together they have both classes.
    marks: e.g. the operating point of all folds.
  """
  figure, axes = figures.new_figure(height=5)
  axes.plot([0, 1], [0, 1], color=figures.MUTED_COLOR, lw=0.8, ls=':')
  for number, name, fold in _drawn(folds):
    fpr, tpr, _ = sklearn_metrics.roc_curve(fold.labels, fold.probabilities)
    axes.plot(fpr, tpr, label=name, **figures.fold_style(number))
  pooled = pool(folds)
  fpr, tpr, _ = sklearn_metrics.roc_curve(pooled.labels, pooled.probabilities)
  axes.plot(fpr, tpr, color=figures.MODEL_COLOR, lw=2, label='all folds')
  curve_marks.mark_roc(axes, marks)
  _finish(axes, '1 - specificity', 'recall (sensitivity)')
  return figure


def precision_recall(
  folds: Mapping[str, LabelledScores], marks: Sequence[RatesMark] = ()
) -> Figure:
  """Draws precision-recall curves; arguments as of `roc`."""
  figure, axes = figures.new_figure(height=5)
  pooled = pool(folds)
  axes.axhline(np.mean(pooled.labels), color=figures.MUTED_COLOR, lw=0.8, ls=':')
  for number, name, fold in _drawn(folds):
    precision, recall, _ = sklearn_metrics.precision_recall_curve(
      fold.labels, fold.probabilities
    )
    # A step holds the precision of its own threshold.
    axes.step(recall, precision, where='post', label=name, **figures.fold_style(number))
  precision, recall, _ = sklearn_metrics.precision_recall_curve(
    pooled.labels, pooled.probabilities
  )
  axes.step(
    recall,
    precision,
    where='post',
    color=figures.MODEL_COLOR,
    lw=2,
    label='all folds',
  )
  curve_marks.mark_precision_recall(axes, marks)
  _finish(axes, 'recall', 'precision')
  return figure


def pool(folds: Mapping[str, LabelledScores]) -> LabelledScores:
  """Joins the records of all folds."""
  return LabelledScores(
    np.concatenate([fold.labels for fold in folds.values()]),
    np.concatenate([fold.probabilities for fold in folds.values()]),
  )


def _drawn(
  folds: Mapping[str, LabelledScores],
) -> Iterator[tuple[int, str, LabelledScores]]:
  """Yields number, name and records of each fold that has a curve of its own."""
  for number, (name, fold) in enumerate(folds.items()):
    if fold.has_both_classes:
      yield number, name, fold


def _finish(axes: Axes, x: str, y: str) -> None:
  axes.set_xlabel(x)
  axes.set_ylabel(y)
  axes.set_xlim(-0.02, 1.02)
  axes.set_ylim(-0.02, 1.02)
  axes.grid(True, lw=0.6)
  # Below the axes: the curves of ten folds cover all of them.
  axes.figure.legend(frameon=False, fontsize=9, ncols=3, loc='outside lower center')
