"""Probabilities of a split's records, from one model or the mean of several."""

from __future__ import annotations

from collections.abc import Sequence
import csv
import dataclasses
import pathlib

import keras
import numpy as np

from luna_tfds import sampling
from model import layers  # noqa: F401, so that saved models find their layers
from trainer import augment
from trainer import input_pipeline
from trainer import sources

# All features but the image.
_NAMES = (
  'label',
  'seriesuid',
  'candidate_id',
  'subset',
  'center_xyz_mm',
  'spacing_xyz_mm',
  'nodule_id',
  'diameter_mm',
  'excluded',
)
_COLUMNS = (
  'seriesuid',
  'candidate_id',
  'subset',
  'coordX',
  'coordY',
  'coordZ',
  'label',
  'probability',
  'nodule_id',
  'diameter_mm',
  'excluded',
)


@dataclasses.dataclass(frozen=True)
class Scores:
  """Records of a split and what the model says of them, in stored order.

  Attributes:
    features: the features but the image, [n, ...] each.
    probabilities: [n] float64.
  """

  features: dict[str, np.ndarray]
  probabilities: np.ndarray

  @property
  def labels(self) -> np.ndarray:
    """[n] int64, 1 for nodules."""
    return self.features['label']

  @property
  def groups(self) -> np.ndarray:
    """[n] the scan of each record; where it is unknown, each record by itself."""
    keys = self.keys
    return np.array([s or k for s, k in zip(self.features['seriesuid'], keys)], object)

  @property
  def keys(self) -> list[str]:
    """`seriesuid/candidate_id` of each record."""
    pairs = zip(self.features['seriesuid'], self.features['candidate_id'])
    return [sampling.record_key(str(s), int(c)) for s, c in pairs]

  def __len__(self) -> int:
    return len(self.probabilities)


def score(
  models: Sequence[keras.Model],
  source: sources.Source,
  *,
  tta: bool = False,
  batch_size: int = 256,
) -> Scores:
  """Scores every record of a source once.

  Args:
    models: each from HU to probability; several are averaged.
    source: the records.
    tta: whether to average over the eight quarter turns and mirrors too.
    batch_size: records of a batch.
  """
  columns: dict[str, list[np.ndarray]] = {name: [] for name in _NAMES}
  probabilities = []
  batches = input_pipeline.evaluation_batches(source, batch_size, ('image', *_NAMES))
  for batch in batches:
    for name in _NAMES:
      columns[name].append(batch[name].numpy())
    probabilities.append(predict(models, batch['image'], tta=tta))
  features = {name: np.concatenate(parts) for name, parts in columns.items()}
  features['seriesuid'] = features['seriesuid'].astype(str)
  return Scores(features, np.concatenate(probabilities))


def predict(
  models: Sequence[keras.Model], images: np.ndarray, *, tta: bool = False
) -> np.ndarray:
  """Returns the probability [n] float64 of each image, averaged as asked.

  The sigmoid is computed in float64: in float32 confident records would tie at 1.
  """
  views = augment.eight_turns(images) if tta else [images]
  total = np.zeros(len(images))
  for model in models:
    logits = logit_model(model)
    for view in views:
      logit = np.asarray(logits(view, training=False), np.float64)[:, 0]
      total += 1 / (1 + np.exp(-logit))
  return total / (len(models) * len(views))


def logit_model(model: keras.Model) -> keras.Model:
  """Returns the part of a delivered model that ends before its sigmoid."""
  if not hasattr(model, '_luna16_logits'):
    model._luna16_logits = keras.Model(
      model.input, model.get_layer('probability').input
    )
  return model._luna16_logits


def images_at(source: sources.Source, positions: Sequence[int]) -> np.ndarray:
  """Reads the images at some positions of the stored order, in the order given.

  Args:
    source: the records.
    positions: from 0; few, as their images are all held.

  Returns:
    int16 [len(positions), *image_shape].
  """
  images = np.zeros((len(positions), *source.image_shape), np.int16)
  start = 0
  for batch in input_pipeline.evaluation_batches(source, names=('image',)):
    stop = start + len(batch['image'])
    for slot, position in enumerate(positions):
      if start <= position < stop:
        images[slot] = batch['image'][position - start].numpy()
    start = stop
  return images


def write_predictions(scores: Scores, path: pathlib.Path) -> None:
  """Writes predictions.csv, a row a record."""
  features = scores.features
  with path.open('w', newline='') as file:
    writer = csv.writer(file, lineterminator='\n')
    writer.writerow(_COLUMNS)
    for i, probability in enumerate(scores.probabilities):
      x, y, z = features['center_xyz_mm'][i]
      writer.writerow(
        [
          features['seriesuid'][i],
          features['candidate_id'][i],
          features['subset'][i],
          *(f'{c:.10g}' for c in (x, y, z)),
          features['label'][i],
          format_probability(probability),
          features['nodule_id'][i],
          f'{features["diameter_mm"][i]:.6g}',
          int(features['excluded'][i]),
        ]
      )


def format_probability(probability: float) -> str:
  """At least 9 digits: rounded probabilities tie, and LUNA16's cap drops ties."""
  return f'{probability:.15g}' if probability > 0.5 else f'{probability:.9e}'
