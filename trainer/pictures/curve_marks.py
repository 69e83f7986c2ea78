"""Points that are marked in plots of ROC and precision-recall curves."""

from __future__ import annotations

from collections.abc import Sequence
import dataclasses
import math

from matplotlib.axes import Axes

from trainer.pictures import figures


@dataclasses.dataclass(frozen=True)
class RatesMark:
  """The rates at one threshold, as a point of both plots.

  Attributes:
    label: its entry in the legend.
    specificity: in 0..1; NaN if undefined, as the other two.
    recall: in 0..1.
    precision: in 0..1.
    color: a place in the colour cycle, see `figures`.
    marker: Matplotlib's name of the shape.
  """

  label: str
  specificity: float
  recall: float
  precision: float
  color: str = figures.MODEL_COLOR
  marker: str = 'D'


def mark_roc(axes: Axes, marks: Sequence[RatesMark]) -> None:
  """Marks points over 1 - specificity and recall."""
  for mark in marks:
    _draw(axes, 1 - mark.specificity, mark.recall, mark)


def mark_precision_recall(axes: Axes, marks: Sequence[RatesMark]) -> None:
  """Marks points over recall and precision."""
  for mark in marks:
    _draw(axes, mark.recall, mark.precision, mark)


def _draw(axes: Axes, x: float, y: float, mark: RatesMark) -> None:
  """Draws a point in front of the curves; nothing if it is undefined."""
  if math.isnan(x + y):
    return
  axes.plot(
    x,
    y,
    marker=mark.marker,
    color=mark.color,
    label=mark.label,
    ms=6,
    markeredgecolor=axes.get_facecolor(),
    linestyle='',
    zorder=3,
  )
