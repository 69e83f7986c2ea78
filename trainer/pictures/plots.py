"""Plots of metrics, and mosaics of patches."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator, Mapping, Sequence
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
from matplotlib.ticker import MaxNLocator
import numpy as np
from PIL import Image
from sklearn import metrics as sklearn_metrics

from luna_tfds.hounsfield import WINDOW_HU
from model.metrics import classification
from model.metrics import froc
from model.metrics.resampling import Interval
from trainer.pictures import colors

# In the order of the labels 0 and 1.
CLASS_NAMES = ('non-nodule', 'nodule')

# Places in the colour cycle of a theme.
_MODEL, _ARTICLE, _MUTED = 'C0', 'C1', 'C2'
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
    return light, _uri(_png(draw()))


def confusion_matrix(counts: classification.ConfusionMatrix) -> Figure:
  """Draws the confusion matrix; the shades are shares of each true class."""
  table = np.array(
    [
      [counts.true_negatives, counts.false_positives],
      [counts.false_negatives, counts.true_positives],
    ]
  )
  shares = table / np.maximum(table.sum(axis=1, keepdims=True), 1)
  figure, axes = _figure()
  image = axes.imshow(shares, vmin=0, vmax=1, aspect='auto')
  for (row, column), count in np.ndenumerate(table):
    red, green, blue, _ = image.cmap(image.norm(shares[row, column]))
    is_light = 0.3 * red + 0.59 * green + 0.11 * blue > 0.5
    axes.text(
      column,
      row,
      f'{count}\n{shares[row, column]:.1%}',
      ha='center',
      va='center',
      color='black' if is_light else 'white',
    )
  axes.set_xticks([0, 1], CLASS_NAMES)
  axes.set_yticks([0, 1], CLASS_NAMES, rotation=90, va='center')
  axes.tick_params(length=0)
  axes.spines[:].set_visible(False)
  axes.set_xlabel('predicted class')
  axes.set_ylabel('true class')
  return figure


def roc(
  labels: np.ndarray, probabilities: np.ndarray, article: Mapping[str, float]
) -> Figure:
  """Draws the ROC curve and the article's operating point."""
  fpr, tpr, _ = sklearn_metrics.roc_curve(labels, probabilities)
  figure, axes = _figure()
  axes.plot([0, 1], [0, 1], color=_MUTED, lw=0.8, ls=':')
  axes.plot(fpr, tpr, color=_MODEL, lw=1.8, label='this model')
  axes.plot(
    1 - article['specificity'], article['recall'], 'o', color=_ARTICLE, label='article'
  )
  _set_unit_axes(axes, '1 - specificity', 'recall')
  return figure


def precision_recall(
  labels: np.ndarray, probabilities: np.ndarray, article: Mapping[str, float]
) -> Figure:
  """Draws the precision-recall curve and the article's operating point."""
  precision, recall, _ = sklearn_metrics.precision_recall_curve(labels, probabilities)
  figure, axes = _figure()
  axes.axhline(np.mean(labels), color=_MUTED, lw=0.8, ls=':')
  # Recall falls along the arrays; a step holds the precision of its own threshold.
  axes.step(recall, precision, where='post', color=_MODEL, lw=1.8, label='this model')
  axes.plot(
    article['recall'], article['precision'], 'o', color=_ARTICLE, label='article'
  )
  _set_unit_axes(axes, 'recall', 'precision')
  return figure


def reliability(labels: np.ndarray, probabilities: np.ndarray) -> Figure:
  """Draws the share of nodules against the probability.

  The area of a dot grows with the number of its records.
  """
  bins = classification.calibration_bins(labels, probabilities)
  figure, axes = _figure()
  axes.plot([0, 1], [0, 1], color=_MUTED, lw=0.8, ls=':')
  axes.plot(bins.mean_probability, bins.nodule_fraction, color=_MODEL, lw=1)
  area = 8 + 200 * bins.records / bins.records.sum()
  axes.scatter(bins.mean_probability, bins.nodule_fraction, s=area, color=_MODEL)
  _set_unit_axes(axes, 'probability', 'share of nodules', legend=False)
  return figure


def training_curve(history: Sequence[Mapping[str, float]], name: str) -> Figure:
  """Draws a metric over epochs, on training batches and on validation.

  Args:
    history: one row for each epoch.
    name: column of the metric; on validation `val_<name>`.
  """
  figure, axes = _figure(height=3.2)
  epochs = [row['epoch'] + 1 for row in history]
  # A single epoch is a dot, not a line.
  marker = 'o' if len(epochs) < 3 else None
  for column, color, label in (
    (name, _MUTED, 'training'),
    (f'val_{name}', _MODEL, 'validation'),
  ):
    if column in history[0]:
      values = [row[column] for row in history]
      axes.plot(epochs, values, color=color, lw=1.6, marker=marker, label=label)
  axes.xaxis.set_major_locator(MaxNLocator(integer=True))
  axes.set_xlabel('epoch')
  axes.legend(frameon=False)
  axes.grid(True, lw=0.6)
  return figure


def shares(
  names: Sequence[str],
  values: Sequence[float],
  intervals: Sequence[Interval | None],
  label: str,
) -> Figure:
  """Draws a share for each of some bins, with its interval.

  Args:
    names: of the bins.
    values: in 0..1.
    intervals: of each, or None.
    label: what the shares are.
  """
  figure, axes = _figure(height=0.9 + 0.42 * len(names))
  rows = np.arange(len(names))
  axes.barh(rows, values, height=0.62, color=_MODEL, alpha=0.35)
  axes.plot(values, rows, 'o', color=_MODEL, ms=5)
  for row, bounds in zip(rows, intervals):
    if bounds is not None and np.isfinite(bounds.lower):
      axes.plot(
        bounds.to_json(), [row, row], color=_MODEL, lw=1.8, solid_capstyle='butt'
      )
  axes.set_yticks(rows, names)
  axes.set_ylim(len(names) - 0.5, -0.5)
  axes.set_xlim(0, 1.02)
  axes.set_xlabel(label)
  axes.tick_params(axis='y', length=0)
  axes.grid(True, axis='x', lw=0.6)
  return figure


def froc_curve(
  curve: froc.FrocCurve, band: froc.ConfidenceBand | None, resamples: int, result: str
) -> Figure:
  """Draws a FROC curve from 1/8 to 8 false positives per scan, as LUNA16 shows it.

  Args:
    curve: to draw.
    band: its confidence band; None for none.
    resamples: from which the band was computed.
    result: for the title, e.g. the CPM.
  """
  points = froc.FPS_PER_SCAN
  with theme(colors.LIGHT):
    figure, axes = _figure(width=7, height=5)
    if band:
      axes.fill_between(
        band.curve.fps_per_scan,
        band.curve.lower,
        band.curve.upper,
        color=_MODEL,
        alpha=0.2,
        lw=0,
        label=f'95% of {resamples} resamples',
      )
    fps_per_scan, sensitivity = _points_on_log_axis(curve)
    axes.plot(fps_per_scan, sensitivity, color=_MODEL, label='FROC')
    axes.plot(points, curve.sensitivity_at(points), 'o', c=_MODEL, ms=4, clip_on=False)
    axes.set_xscale('log', base=2)
    axes.set_xticks(points, [f'{point:g}' for point in points])
    axes.set_xlim(points[0], points[-1])
    axes.set_yticks(np.linspace(0, 1, 11))
    axes.set_ylim(0, 1.02)
    axes.grid(lw=0.5, alpha=0.6)
    axes.set_xlabel('Average number of false positives per scan')
    axes.set_ylabel('Sensitivity')
    axes.set_title(f'FROC performance: {result}')
    axes.legend(loc='lower right')
    return figure


def _points_on_log_axis(curve: froc.FrocCurve) -> tuple[np.ndarray, np.ndarray]:
  """Adds points between those of the curve: straight lines bend on a log axis."""
  points = froc.FPS_PER_SCAN
  between = np.geomspace(points[0], points[-1], 500)
  fps_per_scan = np.append(curve.fps_per_scan, between)
  sensitivity = np.append(curve.sensitivity, curve.sensitivity_at(between))
  # The sort is stable: where the curve rises vertically its own points stay in order.
  order = np.argsort(fps_per_scan, kind='stable')
  order = order[fps_per_scan[order] >= points[0]]
  return fps_per_scan[order], sensitivity[order]


def mosaic(images: np.ndarray, captions: Sequence[str], columns: int = 6) -> Figure:
  """Draws patches side by side in the HU window.

  Args:
    images: [n, height, width, channels] or [n, depth, height, width, 1]; of stacks and
      cubes the middle slice is shown.
    captions: [n], a line below each.
    columns: patches in a row.
  """
  rows = max(-(-len(images) // columns), 1)
  figure = Figure(figsize=(1.5 * columns, 1.75 * rows), layout='constrained')
  for k, axes in enumerate(np.ravel(figure.subplots(rows, columns, squeeze=False))):
    axes.set_xticks([])
    axes.set_yticks([])
    axes.set_frame_on(False)
    if k < len(images):
      show_patch(axes, images[k], interpolation='nearest')
      axes.set_xlabel(captions[k], fontsize=7, labelpad=2)
  return figure


def before_and_after(
  stored: np.ndarray, augmented: np.ndarray, labels: np.ndarray, columns: int = 6
) -> Figure:
  """Draws rows of patches as stored, each above a row of the same ones augmented.

  Args:
    stored: [n, *image_shape] HU.
    augmented: the same after augmentation.
    labels: [n], 1 for nodules.
    columns: patches in a row.
  """
  columns = min(columns, len(labels))
  images: list[np.ndarray] = []
  captions: list[str] = []
  for first in range(0, len(labels), columns):
    row = slice(first, first + columns)
    for name, patches in (('as stored', stored), ('augmented', augmented)):
      images += list(patches[row].astype(np.float32))
      captions += [f'{CLASS_NAMES[int(label)]}, {name}' for label in labels[row]]
  return mosaic(np.stack(images), captions, columns)


def show_patch(axes: Axes, image: np.ndarray, **settings: Any) -> None:
  """Shows the middle slice of an image in the HU window."""
  low, high = WINDOW_HU
  axes.imshow(middle_slice(image), cmap='gray', vmin=low, vmax=high, **settings)


def patch_uri(image: np.ndarray) -> str:
  """Returns the middle slice of an image, in the HU window, as a data URI."""
  low, high = WINDOW_HU
  clipped = np.clip(middle_slice(image).astype(np.float64), low, high)
  grey = np.round(255 * (clipped - low) / (high - low)).astype(np.uint8)
  buffer = io.BytesIO()
  Image.fromarray(grey).save(buffer, 'PNG')
  return _uri(buffer.getvalue())


def middle_slice(image: np.ndarray) -> np.ndarray:
  """Returns the middle slice [height, width] of an image in the record's layout."""
  if image.ndim == 4:
    return image[image.shape[0] // 2, :, :, 0]
  return image[:, :, image.shape[2] // 2]


def save(figure: Figure, path: pathlib.Path) -> str:
  """Writes a PNG and returns it as a data URI."""
  png = _png(figure)
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_bytes(png)
  return _uri(png)


def _png(figure: Figure) -> bytes:
  buffer = io.BytesIO()
  figure.savefig(buffer, format='png', dpi=_DPI, metadata={'Software': None})
  return buffer.getvalue()


def _uri(png: bytes) -> str:
  return 'data:image/png;base64,' + base64.b64encode(png).decode()


def _figure(width: float = 4.2, height: float = 3.8) -> tuple[Figure, Axes]:
  figure = Figure(figsize=(width, height), layout='constrained')
  return figure, figure.subplots()


def _set_unit_axes(axes: Axes, x: str, y: str, legend: bool = True) -> None:
  """Sets labels, and limits a little wider than 0..1."""
  axes.set_xlabel(x)
  axes.set_ylabel(y)
  axes.set_xlim(-0.02, 1.02)
  axes.set_ylim(-0.02, 1.02)
  axes.grid(True, lw=0.6)
  if legend:
    axes.legend(frameon=False, loc='lower center')
