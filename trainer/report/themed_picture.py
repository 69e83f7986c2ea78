"""A figure as a picture of a report, for light and for dark pages."""

from __future__ import annotations

from collections.abc import Callable
import pathlib

from matplotlib.figure import Figure

from trainer.pictures import figures
from trainer.report.content import Picture


def picture(
  draw: Callable[[], Figure], path: pathlib.Path, caption: str, *, wide: bool = False
) -> Picture:
  """Draws a figure and writes it.

  Args:
    draw: draws it; called once for each theme.
    path: PNG to write, for light pages.
    caption: what it shows.
    wide: whether it takes a whole line.
  """
  light, dark = figures.save_themed(draw, path)
  return Picture(light, caption, wide, dark)
