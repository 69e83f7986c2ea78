"""A figure as a picture of a report, for light and for dark pages."""

from __future__ import annotations

from collections.abc import Callable
import pathlib

from matplotlib.figure import Figure

from trainer.pictures import figures
from trainer.report import html_renderer as html


def picture(
  draw: Callable[[], Figure], path: pathlib.Path, caption: str
) -> html.Picture:
  """Draws a figure and writes it.

  Args:
    draw: draws it; called once for each theme.
    path: PNG to write, for light pages.
    caption: what it shows.
  """
  light, dark = figures.save_themed(draw, path)
  return html.Picture(light, caption, dark_uri=dark)
