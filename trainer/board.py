"""Pictures for TensorBoard, epoch by epoch: curve, examples, filters."""

from __future__ import annotations

import io
import pathlib
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from trainer import input_pipeline
from trainer import plots
from trainer import report
from trainer import sources
from trainer import visualize

# Enough for a curve, little enough not to slow an epoch.
_RECORDS = 512
_EXAMPLES = 12


class Pictures(keras.callbacks.Callback):
  """Logs the precision-recall curve, a mosaic of examples and the first filters."""

  def __init__(self, folder: pathlib.Path, validation: sources.Source | None):
    """Reads some validation records.

    Args:
      folder: of the logs.
      validation: validation records; without them only the filters are logged.
    """
    super().__init__()
    self._writer = tf.summary.create_file_writer(str(folder / 'pictures'))
    self._images, self._labels = _some_records(validation)

  def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
    """Logs the pictures of an epoch."""
    filters = visualize.first_filters(self.model)
    pictures = {'filters': visualize.draw_filters(filters)}
    if len(self._images):
      logits = self.model(self._images, training=False)[:, 0]
      probabilities = 1 / (1 + np.exp(-np.asarray(logits, np.float64)))
      pictures['examples'] = self._mosaic(probabilities)
      if len(np.unique(self._labels)) == 2:
        pictures['precision_recall'] = plots.precision_recall(
          self._labels, probabilities, report.ARTICLE
        )
    with self._writer.as_default(step=epoch):
      for name, fig in pictures.items():
        tf.summary.image(name, _as_image(fig))
      self._writer.flush()

  def _mosaic(self, probabilities: np.ndarray) -> Any:
    """The same nodules and others in every epoch, so that they can be followed."""
    nodules = np.flatnonzero(self._labels == 1)[: _EXAMPLES // 2]
    others = np.flatnonzero(self._labels == 0)[: _EXAMPLES - len(nodules)]
    picks = np.concatenate([nodules, others])
    names = ('other', 'nodule')
    captions = [f'{names[self._labels[i]]} {probabilities[i]:.2f}' for i in picks]
    return plots.mosaic(self._images[picks], captions)


def _some_records(validation: sources.Source | None) -> tuple[np.ndarray, np.ndarray]:
  if validation is None:
    return np.zeros(0), np.zeros(0, np.int64)
  batches = input_pipeline.evaluation_batches(validation, _RECORDS, ('image', 'label'))
  batch = next(iter(batches))
  return batch['image'].numpy(), batch['label'].numpy()


def _as_image(fig: Any) -> tf.Tensor:
  """A figure as [1, height, width, 3] uint8."""
  buffer = io.BytesIO()
  fig.savefig(buffer, format='png', dpi=90)
  return tf.io.decode_png(buffer.getvalue(), channels=3)[tf.newaxis]
