"""Files of probabilities: predictions.csv and LUNA16's submission format."""

from __future__ import annotations

import csv
import pathlib

import numpy as np

from luna_tfds.files import atomic_files
from trainer.scoring.scored_records import ScoredRecords

SUBMISSION_COLUMNS = ('seriesuid', 'coordX', 'coordY', 'coordZ', 'probability')
_PREDICTION_COLUMNS = (
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


def write_predictions(records: ScoredRecords, path: pathlib.Path) -> None:
  """Writes predictions.csv, one row for each record."""
  with atomic_files.atomic_text(path) as file:
    writer = csv.writer(file, lineterminator='\n')
    writer.writerow(_PREDICTION_COLUMNS)
    for i, probability in enumerate(records.probability):
      writer.writerow(
        [
          records.seriesuid[i],
          records.candidate_id[i],
          records.subset[i],
          *(_format_mm(c) for c in records.center_xyz_mm[i]),
          records.label[i],
          format_probability(probability),
          records.nodule_id[i],
          f'{records.diameter_mm[i]:.6g}',
          int(records.excluded[i]),
        ]
      )


def write_submission(
  path: pathlib.Path,
  seriesuids: np.ndarray,
  xyz_mm: np.ndarray,
  probabilities: np.ndarray,
) -> None:
  """Writes LUNA16's submission format: seriesuid,coordX,coordY,coordZ,probability.

  Args:
    path: the CSV.
    seriesuids: [n] str.
    xyz_mm: [n, 3] float64 world points.
    probabilities: [n] float64.
  """
  with atomic_files.atomic_text(path) as file:
    writer = csv.writer(file, lineterminator='\n')
    writer.writerow(SUBMISSION_COLUMNS)
    for seriesuid, point, probability in zip(seriesuids, xyz_mm, probabilities):
      coordinates = (_format_mm(c) for c in point)
      writer.writerow([seriesuid, *coordinates, format_probability(probability)])


def format_probability(probability: float) -> str:
  """Writes at least 9 digits: rounded probabilities tie, and LUNA16's cap drops ties."""
  return f'{probability:.15g}' if probability > 0.5 else f'{probability:.9e}'


def _format_mm(coordinate: float) -> str:
  return f'{coordinate:.10g}'
