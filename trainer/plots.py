"""The pictures of the report."""

from __future__ import annotations

import base64
from collections.abc import Sequence
import io
import pathlib

import matplotlib

matplotlib.use('Agg')
from matplotlib import figure
import numpy as np
from sklearn import metrics as sklearn_metrics

from model import metrics

_BLUE, _ORANGE, _GREY = '#1f5fa8', '#d9822b', '#8a8f98'
_WINDOW_HU = (-1000, 400)


def confusion_matrix(counts: dict[str, int]) -> figure.Figure:
  """Draws the confusion matrix, shares of each true class as shades."""
  table = np.array(
    [
      [counts['true_negatives'], counts['false_positives']],
      [counts['false_negatives'], counts['true_positives']],
    ]
  )
  shares = table / np.maximum(table.sum(axis=1, keepdims=True), 1)
  fig, axes = _figure(4.2, 3.8)
  axes.imshow(shares, cmap='Blues', vmin=0, vmax=1)
  for (row, column), count in np.ndenumerate(table):
    axes.text(
      column,
      row,
      f'{count}\n{shares[row, column]:.1%}',
      ha='center',
      va='center',
      color='white' if shares[row, column] > 0.5 else 'black',
    )
  names = ['non-nodule', 'nodule']
  axes.set_xticks([0, 1], names)
  axes.set_yticks([0, 1], names, rotation=90, va='center')
  axes.set_xlabel('called')
  axes.set_ylabel('is')
  return fig


def roc(
  labels: np.ndarray, probabilities: np.ndarray, article: dict[str, float]
) -> figure.Figure:
  """Draws the ROC curve with the article's operating point."""
  fpr, tpr, _ = sklearn_metrics.roc_curve(labels, probabilities)
  fig, axes = _figure()
  axes.plot(fpr, tpr, color=_BLUE, label='this model')
  axes.plot([0, 1], [0, 1], color=_GREY, lw=0.8, ls=':')
  axes.plot(
    1 - article['specificity'], article['recall'], 'o', color=_ORANGE, label='article'
  )
  _finish(axes, '1 - specificity', 'recall')
  return fig


def precision_recall(
  labels: np.ndarray, probabilities: np.ndarray, article: dict[str, float]
) -> figure.Figure:
  """Draws the precision-recall curve with the article's operating point."""
  precision, recall, _ = sklearn_metrics.precision_recall_curve(labels, probabilities)
  fig, axes = _figure()
  axes.step(recall, precision, where='post', color=_BLUE, label='this model')
  axes.plot(
    article['recall'], article['precision'], 'o', color=_ORANGE, label='article'
  )
  axes.axhline(np.mean(labels), color=_GREY, lw=0.8, ls=':')
  _finish(axes, 'recall', 'precision')
  return fig


def reliability(labels: np.ndarray, probabilities: np.ndarray) -> figure.Figure:
  """Draws frequency against probability; the area of a dot tells its records."""
  mean, share, counts = metrics.calibration_bins(labels, probabilities)
  fig, axes = _figure()
  axes.plot([0, 1], [0, 1], color=_GREY, lw=0.8, ls=':')
  axes.plot(mean, share, color=_BLUE, lw=1)
  axes.scatter(mean, share, s=8 + 200 * counts / counts.sum(), color=_BLUE)
  _finish(axes, 'probability', 'share of nodules', legend=False)
  return fig


def training_curves(history: Sequence[dict[str, float]]) -> figure.Figure:
  """Draws loss and PR AUC over epochs."""
  fig = figure.Figure(figsize=(8.4, 3.2), layout='constrained')
  epochs = [row['epoch'] + 1 for row in history]
  for axes, name in zip(fig.subplots(1, 2), ('loss', 'pr_auc')):
    for column, color in ((name, _GREY), (f'val_{name}', _BLUE)):
      if column in history[0]:
        axes.plot(epochs, [row[column] for row in history], color=color, label=column)
    axes.set_xlabel('epoch')
    axes.legend(frameon=False)
    axes.grid(alpha=0.25)
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


def middle_slice(image: np.ndarray) -> np.ndarray:
  """Returns the middle slice [height, width] of an image in the record's layout."""
  if image.ndim == 4:
    return image[image.shape[0] // 2, :, :, 0]
  return image[:, :, image.shape[2] // 2]


def save(fig: figure.Figure, path: pathlib.Path) -> str:
  """Writes a PNG and returns it as a data URI."""
  buffer = io.BytesIO()
  fig.savefig(buffer, format='png', dpi=110, metadata={'Software': None})
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_bytes(buffer.getvalue())
  return 'data:image/png;base64,' + base64.b64encode(buffer.getvalue()).decode()


def _figure(width: float = 4.2, height: float = 3.8) -> tuple:
  fig = figure.Figure(figsize=(width, height), layout='constrained')
  return fig, fig.subplots()


def _finish(axes: object, x: str, y: str, legend: bool = True) -> None:
  axes.set_xlabel(x)
  axes.set_ylabel(y)
  axes.set_xlim(-0.02, 1.02)
  axes.set_ylim(-0.02, 1.02)
  axes.grid(alpha=0.25)
  if legend:
    axes.legend(frameon=False, loc='lower center')
