"""A trained run, opened for evaluation."""

from __future__ import annotations

from collections.abc import Sequence
import dataclasses
import pathlib

from luna_tfds import patches
from luna_tfds.errors import UsageError
from trainer import config as config_lib
from trainer import workdir as workdir_lib
from trainer.data.dataset import OpenedDataset
from trainer.scoring import inference
from trainer.scoring.calibration_result import CalibrationResult
from trainer.scoring.operating_point import OperatingPoint


@dataclasses.dataclass(frozen=True)
class TrainedRun:
  """A trained model and where it comes from.

  Attributes:
    workdir: the folder of the run.
    config: its settings.
    point: its operating point.
    model: the inference model.
    calibration: calibration of its probabilities; None if an older version trained it.
  """

  workdir: workdir_lib.Workdir
  config: config_lib.TrainConfig
  point: OperatingPoint
  model: inference.InferenceModel
  calibration: CalibrationResult | None = None

  @property
  def patch(self) -> patches.PatchSpec | None:
    """How the patches were cut that it was trained on; None if unknown."""
    return self.workdir.known_patch_spec()

  @property
  def dataset_fingerprint(self) -> str:
    """Fingerprint of the dataset it was trained on."""
    return self.workdir.dataset_fingerprint


def open_runs(
  paths: Sequence[str | pathlib.Path], *, same_splits: bool = True
) -> tuple[TrainedRun, ...]:
  """Opens the workdirs of one model, or of the members of an ensemble.

  Args:
    paths: paths of the workdirs.
    same_splits: whether members on different splits are rejected. The folds of a
      cross-validation have splits of their own, so they share no threshold.

  Raises:
    UsageError: a workdir holds no trained model, or the members were trained on different
      splits, on patches that were cut differently, or are calibrated differently.
  """
  opened = [workdir_lib.open_workdir(path) for path in paths]
  if same_splits:
    _check_same_splits(opened)
  _check_same_patches([workdir for workdir, _ in opened])
  runs = tuple(
    TrainedRun(
      workdir,
      config,
      OperatingPoint.read(workdir.operating_point),
      inference.load_model(workdir.model),
      CalibrationResult.read(workdir.calibration),
    )
    for workdir, config in opened
  )
  for run in runs[1:]:
    if run.model.image_shape != runs[0].model.image_shape:
      raise UsageError(
        f'{run.workdir.path} takes images of shape {run.model.image_shape} and '
        f'{runs[0].workdir.path} of {runs[0].model.image_shape}: an ensemble needs runs '
        'on the same kind of patches'
      )
    _check_same_calibration(runs[0], run)
  return runs


def check_patches(
  run: TrainedRun, dataset: OpenedDataset, flag: str = '--dataset'
) -> None:
  """Checks that a dataset holds patches of the kind that a run was trained on.

  Of published patches only the shape is known.

  Args:
    run: the run.
    dataset: the dataset to check.
    flag: flag of the command that chooses the dataset.

  Raises:
    UsageError: shape, spacing or layout differ.
  """
  if run.model.image_shape != dataset.image_shape:
    raise UsageError(
      f'the model of {run.workdir.path} takes images of shape '
      f'{run.model.image_shape}, those of {dataset.name} have {dataset.image_shape}; '
      f'give the {flag} it was trained on'
    )
  spec = dataset.metadata.patch
  if None not in (run.patch, spec) and run.patch != spec:
    raise UsageError(
      f'the model of {run.workdir.path} was trained on patches {run.patch}, those of '
      f'{dataset.name} are {spec}; give the {flag} it was trained on'
    )


def _check_same_splits(
  opened: Sequence[tuple[workdir_lib.Workdir, config_lib.TrainConfig]],
) -> None:
  """Else the threshold would be chosen on records that a member was trained on."""
  first_workdir, first = opened[0]
  for workdir, config in opened[1:]:
    for name in ('validation_split', 'train_split'):
      if getattr(config, name) != getattr(first, name):
        raise UsageError(
          f'{workdir.path} has {name}={getattr(config, name)!r} and '
          f'{first_workdir.path} has {getattr(first, name)!r}: an ensemble needs runs '
          'on the same splits'
        )


def _check_same_patches(workdirs: Sequence[workdir_lib.Workdir]) -> None:
  """The members of an ensemble get the same images; unknown patches pass."""
  known = [(workdir, workdir.known_patch_spec()) for workdir in workdirs]
  known = [(workdir, spec) for workdir, spec in known if spec is not None]
  for workdir, spec in known[1:]:
    if spec != known[0][1]:
      raise UsageError(
        f'{workdir.path} was trained on patches {spec} and {known[0][0].path} on '
        f'patches {known[0][1]}: an ensemble needs runs on the same kind of patches'
      )


def _check_same_calibration(first: TrainedRun, other: TrainedRun) -> None:
  """A mean of probabilities for different shares of nodules is one for none of them."""
  methods = [run.calibration and run.calibration.method for run in (first, other)]
  if None not in methods and methods[0] != methods[1]:
    raise UsageError(
      f'{other.workdir.path} is calibrated by {methods[1]} and {first.workdir.path} by '
      f'{methods[0]}: an ensemble needs one calibration; run the luna16-train command of '
      'one again with --calibration=...'
    )
  priors = [run.point.deployed_prior for run in (first, other)]
  # Folds of one dataset have slightly different training splits.
  same_default = first.config.deployed_prior == other.config.deployed_prior == 0 and (
    first.dataset_fingerprint == other.dataset_fingerprint
  )
  if priors[0] != priors[1] and not same_default:
    raise UsageError(
      f'{other.workdir.path} was calibrated for a prevalence of nodules of '
      f'{priors[1]:.4g} and {first.workdir.path} for {priors[0]:.4g}: an ensemble needs '
      'one prevalence; run the luna16-train command of one again with '
      '--deployed_prior=...'
    )
