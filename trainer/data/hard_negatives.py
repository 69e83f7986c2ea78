"""Which non-nodules an earlier evaluation gave the highest probabilities."""

from __future__ import annotations

import csv

import numpy as np

from luna_tfds import record_keys
from luna_tfds.errors import UsageError
from luna_tfds.files import store_path
from luna_tfds.text_format import error_text

# A non-nodule is hard at or above this quantile of the probabilities of all non-nodules
# in the file, and above this probability.
_HARD_QUANTILE = 0.9
_HARD_PROBABILITY = 0.5

_COLUMNS = ('seriesuid', 'candidate_id', 'label', 'probability')


def read_hard_negatives(path: str) -> tuple[str, ...]:
  """Reads the hard non-nodules of an earlier evaluation.

  A non-nodule is hard if its probability is at least the 90th percentile over all
  non-nodules of the file, or above 0.5.

  Args:
    path: a predictions.csv as luna16-evaluate writes it; the columns seriesuid,
      candidate_id, label and probability are needed.

  Returns:
    Their record keys, in the order of the file.

  Raises:
    UsageError: the file cannot be read, a column is missing, or a row is wrong.
  """
  keys: list[str] = []
  probabilities: list[float] = []
  try:
    with store_path.as_path(path).expanduser().open(newline='') as file:
      rows = csv.DictReader(file)
      missing = [name for name in _COLUMNS if name not in (rows.fieldnames or ())]
      if missing:
        raise UsageError(
          f'{path}: the column {missing[0]} is missing; give a predictions.csv that '
          'luna16-evaluate wrote'
        )
      for row in rows:
        try:
          key, label, probability = _parse_row(row)
        except (TypeError, ValueError) as error:
          raise UsageError(
            f'{path}, line {rows.line_num}: {error_text(error)}'
          ) from error
        if label == 0:
          keys.append(key)
          probabilities.append(probability)
  except (OSError, UnicodeDecodeError, csv.Error) as error:
    raise UsageError(f'{path}: cannot be read: {error}') from error
  if not keys:
    raise UsageError(f'{path}: holds no non-nodule')
  values = np.array(probabilities)
  hard = (values >= np.quantile(values, _HARD_QUANTILE)) | (values > _HARD_PROBABILITY)
  return tuple(key for key, is_hard in zip(keys, hard) if is_hard)


def _parse_row(row: dict[str, str]) -> tuple[str, int, float]:
  """Returns (record key, label, probability)."""
  key = record_keys.record_key(row['seriesuid'], int(row['candidate_id']))
  label, probability = int(row['label']), float(row['probability'])
  if label not in (0, 1) or not 0 <= probability <= 1:
    raise ValueError('label must be 0 or 1, and probability must lie in 0..1')
  return key, label, probability
