"""Scored records made by hand or at random, without a dataset or a network."""

import numpy as np

from trainer.scoring.scored_records import ScoredRecords


def make_records(rows):
  """Makes scored records; features that are not given take the value for unknown.

  Args:
    rows: a dict for each record, with some of scan, label, probability, nodule_id,
      diameter_mm, thickness_mm, subset, center_xyz_mm and excluded.
  """

  def column(name, default, dtype):
    return np.array([row.get(name, default) for row in rows], dtype)

  thickness_mm = column('thickness_mm', np.nan, np.float32)
  in_plane = np.full((len(rows), 2), 0.7, np.float32)
  return ScoredRecords(
    label=column('label', 0, np.int64),
    seriesuid=column('scan', '', str),
    candidate_id=np.arange(len(rows)),
    subset=column('subset', -1, np.int64),
    center_xyz_mm=column('center_xyz_mm', (np.nan,) * 3, np.float64).reshape(-1, 3),
    spacing_xyz_mm=np.column_stack([in_plane, thickness_mm]),
    nodule_id=column('nodule_id', -1, np.int64),
    diameter_mm=column('diameter_mm', 0.0, np.float32),
    excluded=column('excluded', False, bool),
    probability=column('probability', 0.5, np.float64),
  )


def random_records(seed, count=400, scans=40, **fields):
  """Makes records with random scans, labels and probabilities.

  Args:
    seed: of the random numbers.
    count: how many.
    scans: from how many scans they are drawn.
    **fields: of all records.
  """
  rng = np.random.default_rng(seed)
  return make_records(
    [
      {
        'scan': f's{rng.integers(scans)}',
        'label': int(rng.random() < 0.4),
        'probability': rng.random(),
        **fields,
      }
      for _ in range(count)
    ]
  )
