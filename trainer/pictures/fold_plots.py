"""Curves of the folds of a cross-validation, and of all folds together."""

from __future__ import annotations

from collections.abc import Mapping
import dataclasses

from matplotlib.axes import Axes
from matplotlib.figure import Figure
import numpy as np
from sklearn import metrics as sklearn_metrics

from trainer.pictures import figures


@dataclasses.dataclass(frozen=True)
class LabelledScores:
  """Labels and probabilities of the records of a fold.

  Attributes:
    labels: [n], 1 for nodules.
    probabilities: [n].
  """

  labels: np.ndarray
  probabilities: np.ndarray


def roc(folds: Mapping[str, LabelledScores]) -> Figure:
  """Draws the ROC curve of each fold and of all folds; each has both classes."""
  figure, axes = figures.new_figure(height=4.5)
  axes.plot([0, 1], [0, 1], color=figures.MUTED_COLOR, lw=0.8, ls=':')
  for number, (name, fold) in enumerate(folds.items()):
    fpr, tpr, _ = sklearn_metrics.roc_curve(fold.labels, fold.probabilities)
    axes.plot(fpr, tpr, label=name, **figures.fold_style(number))
  pooled = pool(folds)
  fpr, tpr, _ = sklearn_metrics.roc_curve(pooled.labels, pooled.probabilities)
  axes.plot(fpr, tpr, color=figures.MODEL_COLOR, lw=2, label='all folds')
  _finish(axes, '1 - specificity', 'recall (sensitivity)')
  return figure


def precision_recall(folds: Mapping[str, LabelledScores]) -> Figure:
  """Draws the precision-recall curve of each fold and of all folds."""
  figure, axes = figures.new_figure(height=4.5)
  pooled = pool(folds)
  axes.axhline(np.mean(pooled.labels), color=figures.MUTED_COLOR, lw=0.8, ls=':')
  for number, (name, fold) in enumerate(folds.items()):
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
  _finish(axes, 'recall', 'precision')
  return figure


def pool(folds: Mapping[str, LabelledScores]) -> LabelledScores:
  """Joins the records of all folds."""
  return LabelledScores(
    np.concatenate([fold.labels for fold in folds.values()]),
    np.concatenate([fold.probabilities for fold in folds.values()]),
  )


def _finish(axes: Axes, x: str, y: str) -> None:
  axes.set_xlabel(x)
  axes.set_ylabel(y)
  axes.set_xlim(-0.02, 1.02)
  axes.set_ylim(-0.02, 1.02)
  axes.grid(True, lw=0.6)
  # Below the axes: the curves of ten folds cover all of them.
  axes.figure.legend(frameon=False, fontsize=7.5, ncols=4, loc='outside lower center')
