"""Plots of metrics, and mosaics of patches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import io
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
import numpy as np
from PIL import Image
from sklearn import metrics as sklearn_metrics

from luna_tfds.example_figure import middle_slice
from luna_tfds.hounsfield import WINDOW_HU
from model.metrics import classification
from model.metrics.resampling import Interval
from trainer.pictures import curve_marks
from trainer.pictures import figures
from trainer.pictures.curve_marks import RatesMark
from trainer.pictures.figures import MODEL_COLOR
from trainer.pictures.figures import MUTED_COLOR

# In the order of the labels 0 and 1.
CLASS_NAMES = ('non-nodule', 'nodule')


def confusion_matrix(counts: classification.ConfusionMatrix) -> Figure:
  """Draws the confusion matrix; the shades are shares of each true class."""
  table = np.array(
    [
      [counts.true_negatives, counts.false_positives],
      [counts.false_negatives, counts.true_positives],
    ]
  )
  shares = table / np.maximum(table.sum(axis=1, keepdims=True), 1)
  figure, axes = figures.new_figure()
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
  labels: np.ndarray,
  probabilities: np.ndarray,
  marks: Sequence[RatesMark] = (),
) -> Figure:
  """Draws the ROC curve and marks points.

  Args:
    labels: [n], 1 for nodules; with both classes.
    probabilities: [n].
    marks: e.g. the operating point.
  """
  fpr, tpr, _ = sklearn_metrics.roc_curve(labels, probabilities)
  figure, axes = figures.new_figure()
  axes.plot([0, 1], [0, 1], color=MUTED_COLOR, lw=0.8, ls=':')
  axes.plot(fpr, tpr, color=MODEL_COLOR, lw=1.8, label='this model')
  curve_marks.mark_roc(axes, marks)
  _set_unit_axes(axes, '1 - specificity', 'recall (sensitivity)')
  return figure


def precision_recall(
  labels: np.ndarray,
  probabilities: np.ndarray,
  marks: Sequence[RatesMark] = (),
) -> Figure:
  """Draws the precision-recall curve and marks points; arguments as of `roc`."""
  precision, recall, _ = sklearn_metrics.precision_recall_curve(labels, probabilities)
  figure, axes = figures.new_figure()
  axes.axhline(np.mean(labels), color=MUTED_COLOR, lw=0.8, ls=':')
  # Recall falls along the arrays; a step holds the precision of its own threshold.
  axes.step(
    recall, precision, where='post', color=MODEL_COLOR, lw=1.8, label='this model'
  )
  curve_marks.mark_precision_recall(axes, marks)
  _set_unit_axes(axes, 'recall', 'precision')
  return figure


def reliability(labels: np.ndarray, probabilities: np.ndarray) -> Figure:
  """Draws the reliability diagram: the fraction of nodules against the probability.

  The area of a dot grows with the number of its records.
  """
  bins = classification.calibration_bins(labels, probabilities)
  figure, axes = figures.new_figure()
  axes.plot([0, 1], [0, 1], color=MUTED_COLOR, lw=0.8, ls=':')
  axes.plot(bins.mean_probability, bins.nodule_fraction, color=MODEL_COLOR, lw=1)
  area = 8 + 200 * bins.records / bins.records.sum()
  axes.scatter(bins.mean_probability, bins.nodule_fraction, s=area, color=MODEL_COLOR)
  _set_unit_axes(
    axes, 'mean predicted probability', 'fraction of nodules', legend=False
  )
  return figure


def training_curve(
  history: Sequence[Mapping[str, float]], name: str, label: str
) -> Figure:
  """Draws a metric over epochs, on training batches and on validation.

  Args:
    history: one row for each epoch.
    name: column of the metric; on validation `val_<name>`.
    label: label of the axis: the metric in words.
  """
  figure, axes = figures.new_figure(height=3.2)
  epochs = [row['epoch'] + 1 for row in history]
  # A single epoch is a dot, not a line.
  marker = 'o' if len(epochs) < 3 else None
  for column, color, records in (
    (name, MUTED_COLOR, 'training'),
    (f'val_{name}', MODEL_COLOR, 'validation'),
  ):
    if column in history[0]:
      values = [row[column] for row in history]
      axes.plot(epochs, values, color=color, lw=1.6, marker=marker, label=records)
  axes.xaxis.set_major_locator(MaxNLocator(integer=True))
  axes.set_xlabel('epoch')
  axes.set_ylabel(label)
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
    names: names of the bins.
    values: numbers from 0 to 1.
    intervals: confidence interval of each value; None where there is none.
    label: what the shares are.
  """
  figure, axes = figures.new_figure(height=0.9 + 0.42 * len(names))
  rows = np.arange(len(names))
  axes.barh(rows, values, height=0.62, color=MODEL_COLOR, alpha=0.35)
  axes.plot(values, rows, 'o', color=MODEL_COLOR, ms=5)
  for row, bounds in zip(rows, intervals):
    if bounds is not None and np.isfinite(bounds.lower):
      axes.plot(
        bounds.to_json(), [row, row], color=MODEL_COLOR, lw=1.8, solid_capstyle='butt'
      )
  axes.set_yticks(rows, names)
  axes.set_ylim(len(names) - 0.5, -0.5)
  axes.set_xlim(0, 1.02)
  axes.set_xlabel(label)
  axes.tick_params(axis='y', length=0)
  axes.grid(True, axis='x', lw=0.6)
  return figure


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
  return figures.png_uri(buffer.getvalue())


def _set_unit_axes(axes: Axes, x: str, y: str, legend: bool = True) -> None:
  """Sets labels, and limits a little wider than 0..1."""
  axes.set_xlabel(x)
  axes.set_ylabel(y)
  axes.set_xlim(-0.02, 1.02)
  axes.set_ylim(-0.02, 1.02)
  axes.grid(True, lw=0.6)
  if legend:
    axes.legend(frameon=False, loc='lower center')
