"""The operating point of an exported model: it must belong to what the model computes."""

from __future__ import annotations

from collections.abc import Sequence
import dataclasses
from typing import Any

import numpy as np

from luna_tfds.errors import UsageError
from trainer.data import dataset as dataset_lib
from trainer.evaluation import overlap
from trainer.evaluation.overlap import ScoredSource
from trainer.evaluation.trained_run import TrainedRun
from trainer.scoring import scored_records
from trainer.scoring.operating_point import OperatingPoint

_CALIBRATED_FOLDS = (
  'the calibration of each fold was fitted on scans that other folds were trained on: how '
  'well the probabilities of the exported model are calibrated can be told on other scans '
  'only'
)


@dataclasses.dataclass(frozen=True)
class ExportedPoint:
  """What is known of the threshold of an exported model.

  Attributes:
    point: the operating point; None if there are no records to choose the threshold on.
    warnings: what a user of the probabilities should know; each is one line.
  """

  point: OperatingPoint | None
  warnings: tuple[str, ...] = ()

  def files(self) -> dict[str, Any]:
    """Returns the content of operating_point.json by its name; {} without a point."""
    if self.point is None:
      return {}
    fields = {**dataclasses.asdict(self.point), 'warnings': list(self.warnings)}
    return {'operating_point.json': fields}


def operating_point_of(
  runs: Sequence[TrainedRun], *, tta: bool, are_folds: bool
) -> ExportedPoint:
  """Returns the operating point of the mean over some runs.

  That of one run is the stored one. For an ensemble the threshold is chosen on the
  validation split of the first run, as luna16-evaluate does.

  Args:
    runs: the runs whose mean the exported model computes.
    tta: whether it averages over flips and rotations.
    are_folds: whether the runs are the folds of a cross-validation. Every scan of the
      dataset was in the training of some of them, so no threshold can be chosen there.
  """
  first = runs[0]
  point = dataclasses.replace(
    first.point,
    tta=tta,
    # Of the folds of one dataset it differs slightly.
    deployed_prior=float(np.mean([run.point.deployed_prior for run in runs])),
  )
  warnings = (_CALIBRATED_FOLDS,) if are_folds and _are_calibrated(runs) else ()
  if point.is_fixed:
    return ExportedPoint(point.choose(None, None), warnings)
  if len(runs) == 1:
    return ExportedPoint(point if tta == first.point.tta else None, warnings)
  if are_folds:
    return ExportedPoint(None, warnings)
  return _chosen_on_validation(runs, point)


def _chosen_on_validation(
  runs: Sequence[TrainedRun], point: OperatingPoint
) -> ExportedPoint:
  """Chooses the threshold on the validation split of the first run, if it is there."""
  config = runs[0].config
  try:
    dataset = dataset_lib.open_dataset(config.data_dir, config.dataset)
    source = dataset.open_split(config.validation_split)
  except UsageError:
    return ExportedPoint(None)
  is_same = source.fingerprint == runs[0].dataset_fingerprint
  if not (is_same and min(source.label_counts)):
    return ExportedPoint(None)
  models = [run.model for run in runs]
  records = scored_records.score_split(models, source, tta=point.tta)
  trained_on = overlap.num_trained_on(runs, ScoredSource(dataset, source, records))
  warnings = overlap.selection_warnings(
    len(records), trained_on, calibrated=_are_calibrated(runs)
  )
  return ExportedPoint(point.choose(records, source.split), tuple(warnings))


def _are_calibrated(runs: Sequence[TrainedRun]) -> bool:
  """Whether the calibration of a run was fitted on records."""
  return any(run.calibration is not None and run.calibration.is_fitted for run in runs)
