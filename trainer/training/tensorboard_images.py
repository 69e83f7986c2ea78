"""Images for TensorBoard, epoch by epoch: curve, examples, filters."""

from __future__ import annotations

from collections.abc import Mapping
import io
import pathlib

import keras
from matplotlib.figure import Figure
import numpy as np
import tensorflow as tf

from luna_tfds import records
from luna_tfds.files import local_files
from model.metrics import classification
from trainer.data import input_pipeline
from trainer.data import memory_budget
from trainer.data.split_source import SplitSource
from trainer.pictures import network_pictures
from trainer.pictures import plots
from trainer.scoring import inference

# Enough for a curve, few enough not to slow an epoch; fewer if images are large.
_MAX_RECORDS = 512
_MAX_BYTES = 2**26
_NUM_EXAMPLES = 12
_DPI = 90


class UploadLogs(keras.callbacks.Callback):
  """Copies the logs to a store at the end of each epoch."""

  def __init__(self, source: pathlib.Path, target: pathlib.Path):
    """Takes the folders.

    Args:
      source: local folder of the logs.
      target: their folder in the store; if it is the same, nothing is copied.
    """
    super().__init__()
    self._source, self._target = source, target

  def on_epoch_end(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
    """Copies the logs."""
    if self._source != self._target:
      local_files.upload_folder(self._source, self._target)


class TensorBoardImages(keras.callbacks.Callback):
  """Logs the precision-recall curve, a mosaic of examples and the first filters."""

  def __init__(self, folder: pathlib.Path, validation: SplitSource | None):
    """Reads some validation records.

    Args:
      folder: folder of the logs.
      validation: validation records; without them only the filters are logged.
    """
    super().__init__()
    self._writer = tf.summary.create_file_writer(str(folder / 'pictures'))
    self._images, self._labels = _first_records(validation)

  def on_epoch_end(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
    """Logs the images of an epoch."""
    figures = {}
    if network_pictures.convolutions(self.model):
      filters = network_pictures.first_filters(self.model)
      figures['filters'] = network_pictures.draw_filters(filters)
    if len(self._images):
      logits = self._logits()
      probabilities = inference.sigmoid(np.asarray(logits, np.float64))
      figures['examples'] = self._mosaic(probabilities)
      # A network may give NaN in validation alone, e.g. if float16 overflows.
      both = classification.has_both_classes(self._labels)
      if both and np.isfinite(probabilities).all():
        figures['precision_recall'] = plots.precision_recall(
          self._labels, probabilities
        )
    with self._writer.as_default(step=epoch):
      for name, figure in figures.items():
        tf.summary.image(name, _as_image(figure))
      self._writer.flush()

  def _logits(self) -> np.ndarray:
    """Returns the outputs of the network, [n]."""
    size = memory_budget.evaluation_batch_size(self._images.shape[1:])
    batches = [
      self.model(self._images[start : start + size], training=False)[:, 0]
      for start in range(0, len(self._images), size)
    ]
    return np.concatenate(batches)

  def _mosaic(self, probabilities: np.ndarray) -> Figure:
    """The same records in every epoch, so that they can be followed."""
    nodules = np.flatnonzero(self._labels == 1)[: _NUM_EXAMPLES // 2]
    others = np.flatnonzero(self._labels == 0)[: _NUM_EXAMPLES - len(nodules)]
    picks = np.concatenate([nodules, others])
    captions = [
      f'{plots.CLASS_NAMES[self._labels[i]]} {probabilities[i]:.2f}' for i in picks
    ]
    return plots.mosaic(self._images[picks], captions)


def _first_records(validation: SplitSource | None) -> tuple[np.ndarray, np.ndarray]:
  """Returns images and labels of the first records, without excluded findings."""
  if validation is None:
    return np.zeros(0), np.zeros(0, np.int64)
  record_bytes = records.record_bytes(validation.image_shape)
  count = min(_MAX_RECORDS, max(_MAX_BYTES // record_bytes, 1))
  names = ('image', 'label', 'excluded')
  batch = next(iter(input_pipeline.evaluation_batches(validation, count, names)))
  counted = ~batch['excluded'].numpy()
  return batch['image'].numpy()[counted], batch['label'].numpy()[counted]


def _as_image(figure: Figure) -> tf.Tensor:
  """Draws a figure as [1, height, width, 3] uint8."""
  buffer = io.BytesIO()
  figure.savefig(buffer, format='png', dpi=_DPI)
  return tf.io.decode_png(buffer.getvalue(), channels=3)[tf.newaxis]
