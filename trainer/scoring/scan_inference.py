"""Probabilities of points of a scan that is not in the dataset."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from luna_tfds import extractor
from luna_tfds import patches
from luna_tfds.command_line import progress
from luna_tfds.scans.scan import Scan
from trainer.data import memory_budget
from trainer.scoring import inference


def predict_points(
  models: Sequence[inference.InferenceModel],
  scan: Scan,
  centers_xyz_mm: np.ndarray,
  spec: patches.PatchSpec,
  *,
  tta: bool,
) -> np.ndarray:
  """Cuts the patches around some points, as the dataset's were cut, and scores them.

  The progress is displayed.

  Args:
    models: their probabilities are averaged.
    scan: an open scan, see `luna_tfds.scans.scan.opened_scan`.
    centers_xyz_mm: [n, 3] world points in mm.
    spec: how the patches were cut that the models were trained on.
    tta: whether to average over the eight flips and rotations by 90 degrees.

  Returns:
    [n] float64 probabilities.
  """
  extraction = iter(extractor.Extraction(scan, centers_xyz_mm, spec))
  probabilities = np.zeros(len(centers_xyz_mm))
  batch_size = memory_budget.evaluation_batch_size(spec.image_shape)
  total = len(probabilities)
  with progress.displayed('candidates', 'scoring') as report:
    report(0, total)
    for start in range(0, total, batch_size):
      stop = min(start + batch_size, total)
      batch = [next(extraction) for _ in range(start, stop)]
      images = np.stack([patch.image for patch in batch])
      rows = [patch.row for patch in batch]
      probabilities[rows] = inference.mean_probabilities(models, images, tta=tta)
      report(stop, total)
  return probabilities
