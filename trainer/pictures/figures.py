"""Matplotlib figures in the colours of a page, and their PNG files."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator
import contextlib
import io
import pathlib
from typing import Any

import cycler
import matplotlib

# Before anything draws: no window system is needed.
matplotlib.use('Agg')
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from luna_tfds.files import atomic_files
from trainer.pictures import colors

# Places in the colour cycle of a theme: the model, the article, curves for comparison.
# Matplotlib looks the colour up when the figure is saved: save it in the theme too.
MODEL_COLOR, ARTICLE_COLOR, MUTED_COLOR = 'C0', 'C1', 'C2'

_DPI = 130


@contextlib.contextmanager
def theme(palette: colors.Palette) -> Iterator[None]:
  """Gives what is drawn and saved in a `with` block the colours of a page."""
  settings: dict[str, Any] = {
    'axes.prop_cycle': cycler.cycler(
      color=(palette.model, palette.article, palette.muted)
    ),
    'axes.grid.axis': 'both',
    'axes.axisbelow': True,
    'axes.spines.top': False,
    'axes.spines.right': False,
    'grid.color': palette.line,
    'image.cmap': palette.shares,
    'figure.facecolor': palette.card,
    'savefig.facecolor': palette.card,
    'axes.facecolor': palette.card,
    'axes.edgecolor': palette.muted,
    'xtick.color': palette.muted,
    'ytick.color': palette.muted,
    'xtick.labelcolor': palette.text,
    'ytick.labelcolor': palette.text,
    'axes.labelcolor': palette.text,
    'axes.titlecolor': palette.text,
    'text.color': palette.text,
  }
  with matplotlib.rc_context(settings):  # type: ignore[arg-type]  # a dict of str
    yield


def fold_style(number: int) -> dict[str, Any]:
  """Returns how the curve of a fold is drawn, behind that of all folds."""
  colors_of_folds = matplotlib.color_sequences['tab10']
  color = colors_of_folds[number % len(colors_of_folds)]
  return {'color': color, 'lw': 0.9, 'alpha': 0.8, 'zorder': 1.5}


def save_themed(draw: Callable[[], Figure], path: pathlib.Path) -> tuple[str, str]:
  """Draws a figure for light and for dark pages.

  Args:
    draw: draws it; called once for each.
    path: PNG to write, for light pages.

  Returns:
    The two as data URIs.
  """
  with theme(colors.LIGHT):
    light = save(draw(), path)
  with theme(colors.DARK):
    return light, png_uri(_png(draw()))


def save(figure: Figure, path: pathlib.Path) -> str:
  """Writes a PNG and returns it as a data URI."""
  png = _png(figure)
  path.parent.mkdir(parents=True, exist_ok=True)
  with atomic_files.atomic_write(path) as temporary:
    temporary.write_bytes(png)
  return png_uri(png)


def _png(figure: Figure) -> bytes:
  buffer = io.BytesIO()
  figure.savefig(buffer, format='png', dpi=_DPI, metadata={'Software': None})
  return buffer.getvalue()


def png_uri(png: bytes) -> str:
  """Returns a PNG as a data URI."""
  return 'data:image/png;base64,' + base64.b64encode(png).decode()


def new_figure(width: float = 4.2, height: float = 3.8) -> tuple[Figure, Axes]:
  """Returns a figure with one axes; width and height in inches."""
  figure = Figure(figsize=(width, height), layout='constrained')
  return figure, figure.subplots()
