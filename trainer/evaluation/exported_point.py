"""The operating point of an exported model: it must belong to what the model computes."""

from __future__ import annotations

from collections.abc import Sequence
import dataclasses

import numpy as np

from luna_tfds.errors import UsageError
from trainer.data import dataset as dataset_lib
from trainer.data.split_source import SplitSource
from trainer.evaluation.trained_run import TrainedRun
from trainer.scoring import scored_records
from trainer.scoring.operating_point import OperatingPoint


def operating_point_of(
  runs: Sequence[TrainedRun], *, tta: bool, are_folds: bool
) -> OperatingPoint | None:
  """Returns the operating point of the mean over some runs.

  That of one run is the stored one. For an ensemble the threshold is chosen on the
  validation split of the first run, as luna16-evaluate does.

  Args:
    runs: of the exported model.
    tta: whether it averages over flips and rotations.
    are_folds: whether the runs are the folds of a cross-validation. Every scan of the
      dataset was in the training of some of them, so no threshold can be chosen there.

  Returns:
    The operating point; None if there are no records to choose the threshold on.
  """
  first = runs[0]
  point = dataclasses.replace(
    first.point,
    tta=tta,
    # Of the folds of one dataset it differs slightly.
    deployed_prior=float(np.mean([run.point.deployed_prior for run in runs])),
  )
  if point.is_fixed:
    return point.choose(None, None)
  if len(runs) == 1:
    return point if tta == first.point.tta else None
  validation = None if are_folds else _open_validation(first)
  if validation is None:
    return None
  models = [run.model for run in runs]
  records = scored_records.score_split(models, validation, tta=tta)
  return point.choose(records, validation.split)


def _open_validation(run: TrainedRun) -> SplitSource | None:
  """Returns the validation split; None if it is not there or holds one class only."""
  config = run.config
  try:
    dataset = dataset_lib.open_dataset(config.data_dir, config.dataset)
    source = dataset.open_split(config.validation_split)
  except UsageError:
    return None
  is_same = source.fingerprint == run.dataset_fingerprint
  return source if is_same and min(source.label_counts) else None
