"""The pictures of the report."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator, Sequence
import contextlib
import io
import pathlib
from typing import Any

import cycler
import matplotlib

matplotlib.use('Agg')
from matplotlib import figure
import numpy as np
from PIL import Image
from sklearn import metrics as sklearn_metrics

from model import metrics

# Colours by what they stand for; a theme says which they are.
_MODEL, _ARTICLE, _SOFT = 'C0', 'C1', 'C2'
_WINDOW_HU = (-1000, 400)
_DPI = 130

_THEMES = {
  'light': {'paper': '#ffffff', 'ink': '#1c2026', 'soft': '#8a93a0', 'grid': '#dfe3e9'},
  'dark': {'paper': '#1a1f26', 'ink': '#d5dbe4', 'soft': '#7e8998', 'grid': '#2e3640'},
}
_CYCLES = {
  'light': ('#1f5fa8', '#d9722b', '#8a93a0'),
  'dark': ('#7db3ee', '#f0a35e', '#7e8998'),
}
_SHADES = {'light': 'Blues', 'dark': 'Blues_r'}


@contextlib.contextmanager
def theme(name: str) -> Iterator[None]:
  """Gives what is drawn and saved within it the colours of a 'light' or 'dark' page."""
  colors = _THEMES[name]
  settings: Any = {
    'axes.prop_cycle': cycler.cycler(color=_CYCLES[name]),
    'axes.grid.axis': 'both',
    'axes.axisbelow': True,
    'axes.spines.top': False,
    'axes.spines.right': False,
    'grid.color': colors['grid'],
    'image.cmap': _SHADES[name],
    'figure.facecolor': colors['paper'],
    'savefig.facecolor': colors['paper'],
    'axes.facecolor': colors['paper'],
    'axes.edgecolor': colors['soft'],
    'xtick.color': colors['soft'],
    'ytick.color': colors['soft'],
    'xtick.labelcolor': colors['ink'],
    'ytick.labelcolor': colors['ink'],
    'axes.labelcolor': colors['ink'],
    'axes.titlecolor': colors['ink'],
    'text.color': colors['ink'],
  }
  with matplotlib.rc_context(settings):
    yield


def save_themed(
  draw: Callable[[], figure.Figure], path: pathlib.Path
) -> tuple[str, str]:
  """Draws a picture for light and for dark pages.

  Args:
    draw: draws it; called once a theme.
    path: PNG to write, for light pages.

  Returns:
    The two as data URIs.
  """
  with theme('light'):
    light = save(draw(), path)
  with theme('dark'):
    return light, _uri(_png(draw()))


def confusion_matrix(counts: dict[str, int]) -> figure.Figure:
  """Draws the confusion matrix, shares of each true class as shades."""
  table = np.array(
    [
      [counts['true_negatives'], counts['false_positives']],
      [counts['false_negatives'], counts['true_positives']],
    ]
  )
  shares = table / np.maximum(table.sum(axis=1, keepdims=True), 1)
  fig, axes = _figure()
  image = axes.imshow(shares, vmin=0, vmax=1, aspect='auto')
  for (row, column), count in np.ndenumerate(table):
    red, green, blue, _ = image.cmap(image.norm(shares[row, column]))
    axes.text(
      column,
      row,
      f'{count}\n{shares[row, column]:.1%}',
      ha='center',
      va='center',
      color='black' if 0.3 * red + 0.59 * green + 0.11 * blue > 0.5 else 'white',
    )
  names = ['non-nodule', 'nodule']
  axes.set_xticks([0, 1], names)
  axes.set_yticks([0, 1], names, rotation=90, va='center')
  axes.tick_params(length=0)
  axes.spines[:].set_visible(False)
  axes.set_xlabel('called')
  axes.set_ylabel('is')
  return fig


def roc(
  labels: np.ndarray, probabilities: np.ndarray, article: dict[str, float]
) -> figure.Figure:
  """Draws the ROC curve with the article's operating point."""
  fpr, tpr, _ = sklearn_metrics.roc_curve(labels, probabilities)
  fig, axes = _figure()
  axes.plot([0, 1], [0, 1], color=_SOFT, lw=0.8, ls=':')
  axes.plot(fpr, tpr, color=_MODEL, lw=1.8, label='this model')
  axes.plot(
    1 - article['specificity'], article['recall'], 'o', color=_ARTICLE, label='article'
  )
  _finish(axes, '1 - specificity', 'recall')
  return fig


def precision_recall(
  labels: np.ndarray, probabilities: np.ndarray, article: dict[str, float]
) -> figure.Figure:
  """Draws the precision-recall curve with the article's operating point."""
  precision, recall, _ = sklearn_metrics.precision_recall_curve(labels, probabilities)
  fig, axes = _figure()
  axes.axhline(np.mean(labels), color=_SOFT, lw=0.8, ls=':')
  # Recall falls along the arrays; a step holds the precision of its own threshold.
  axes.step(recall, precision, where='post', color=_MODEL, lw=1.8, label='this model')
  axes.plot(
    article['recall'], article['precision'], 'o', color=_ARTICLE, label='article'
  )
  _finish(axes, 'recall', 'precision')
  return fig


def reliability(labels: np.ndarray, probabilities: np.ndarray) -> figure.Figure:
  """Draws frequency against probability; the area of a dot tells its records."""
  mean, share, counts = metrics.calibration_bins(labels, probabilities)
  fig, axes = _figure()
  axes.plot([0, 1], [0, 1], color=_SOFT, lw=0.8, ls=':')
  axes.plot(mean, share, color=_MODEL, lw=1)
  axes.scatter(mean, share, s=8 + 200 * counts / counts.sum(), color=_MODEL)
  _finish(axes, 'probability', 'share of nodules', legend=False)
  return fig


def training_curve(history: Sequence[dict[str, float]], name: str) -> figure.Figure:
  """Draws a figure over epochs, on training batches and on validation.

  Args:
    history: a row an epoch.
    name: column of the figure; on validation `val_<name>`.
  """
  fig, axes = _figure(height=3.2)
  epochs = [row['epoch'] + 1 for row in history]
  # A single epoch is a dot, not a line.
  marker = 'o' if len(epochs) < 3 else None
  for column, color, label in (
    (name, _SOFT, 'training'),
    (f'val_{name}', _MODEL, 'validation'),
  ):
    if column in history[0]:
      values = [row[column] for row in history]
      axes.plot(epochs, values, color=color, lw=1.6, marker=marker, label=label)
  axes.xaxis.get_major_locator().set_params(integer=True)
  axes.set_xlabel('epoch')
  axes.legend(frameon=False)
  axes.grid(True, lw=0.6)
  return fig


def shares(
  names: Sequence[str],
  values: Sequence[float],
  intervals: Sequence[Sequence[float | None] | None],
  label: str,
) -> figure.Figure:
  """Draws shares by bin with their intervals.

  Args:
    names: of the bins.
    values: in 0..1.
    intervals: [lower, upper] of each, or None.
    label: what the shares are.
  """
  fig, axes = _figure(height=0.9 + 0.42 * len(names))
  rows = np.arange(len(names))
  axes.barh(rows, values, height=0.62, color=_MODEL, alpha=0.35)
  axes.plot(values, rows, 'o', color=_MODEL, ms=5)
  for row, bounds in zip(rows, intervals):
    if bounds and bounds[0] is not None:
      axes.plot(bounds, [row, row], color=_MODEL, lw=1.8, solid_capstyle='butt')
  axes.set_yticks(rows, names)
  axes.set_ylim(len(names) - 0.5, -0.5)
  axes.set_xlim(0, 1.02)
  axes.set_xlabel(label)
  axes.tick_params(axis='y', length=0)
  axes.grid(True, axis='x', lw=0.6)
  return fig


def mosaic(
  images: np.ndarray, captions: Sequence[str], columns: int = 6
) -> figure.Figure:
  """Draws patches side by side, window -1000..400 HU.

  Args:
    images: [n, height, width, channels] or [n, depth, height, width, 1]; of stacks and
      cubes the middle slice is shown.
    captions: [n], a line below each.
    columns: patches in a row.
  """
  rows = max(-(-len(images) // columns), 1)
  fig = figure.Figure(figsize=(1.5 * columns, 1.75 * rows), layout='constrained')
  for k, axes in enumerate(np.ravel(fig.subplots(rows, columns, squeeze=False))):
    axes.set_xticks([])
    axes.set_yticks([])
    axes.set_frame_on(False)
    if k < len(images):
      axes.imshow(
        middle_slice(images[k]),
        cmap='gray',
        vmin=_WINDOW_HU[0],
        vmax=_WINDOW_HU[1],
        interpolation='nearest',
      )
      axes.set_xlabel(captions[k], fontsize=7, labelpad=2)
  return fig


def patch_uri(image: np.ndarray) -> str:
  """Returns the middle slice of an image in HU, window -1000..400, as a data URI."""
  low, high = _WINDOW_HU
  grey = (np.clip(middle_slice(image).astype(np.float64), low, high) - low) / (
    high - low
  )
  buffer = io.BytesIO()
  Image.fromarray(np.round(255 * grey).astype(np.uint8)).save(buffer, 'PNG')
  return _uri(buffer.getvalue())


def middle_slice(image: np.ndarray) -> np.ndarray:
  """Returns the middle slice [height, width] of an image in the record's layout."""
  if image.ndim == 4:
    return image[image.shape[0] // 2, :, :, 0]
  return image[:, :, image.shape[2] // 2]


def save(fig: figure.Figure, path: pathlib.Path) -> str:
  """Writes a PNG and returns it as a data URI."""
  png = _png(fig)
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_bytes(png)
  return _uri(png)


def _png(fig: figure.Figure) -> bytes:
  buffer = io.BytesIO()
  fig.savefig(buffer, format='png', dpi=_DPI, metadata={'Software': None})
  return buffer.getvalue()


def _uri(png: bytes) -> str:
  return 'data:image/png;base64,' + base64.b64encode(png).decode()


def _figure(width: float = 4.2, height: float = 3.8) -> tuple[figure.Figure, Any]:
  fig = figure.Figure(figsize=(width, height), layout='constrained')
  return fig, fig.subplots()


def _finish(axes: Any, x: str, y: str, legend: bool = True) -> None:
  axes.set_xlabel(x)
  axes.set_ylabel(y)
  axes.set_xlim(-0.02, 1.02)
  axes.set_ylim(-0.02, 1.02)
  axes.grid(True, lw=0.6)
  if legend:
    axes.legend(frameon=False, loc='lower center')
