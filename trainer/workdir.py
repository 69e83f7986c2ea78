"""The files of a run, and whether a run may go on in a folder.

config.json           settings, dataset fingerprint, versions
history.csv           one row an epoch
checkpoints/last.keras    all that is needed to go on
checkpoints/best.keras    the network of the best epoch on validation
model.keras           what is delivered: raw HU in, probability out
operating_point.json  the threshold, how it was chosen, and the priors
tensorboard/          logs
"""

from __future__ import annotations

import csv
import dataclasses
import importlib.metadata
import json
import os
import pathlib
import platform
import subprocess
from typing import Any

from luna_tfds import patches
from luna_tfds.errors import UsageError
from trainer import config as config_lib

# May differ between the runs of one workdir: the first makes a run longer, the others
# say where things are, or what is done after training.
_MAY_DIFFER = (
  'recipe.epochs',
  'data_dir',
  'dataset',
  'threshold',
  'tta',
  'deployed_prior',
)


@dataclasses.dataclass(frozen=True)
class Workdir:
  """A run's folder."""

  path: pathlib.Path

  @property
  def config(self) -> pathlib.Path:
    """Settings and versions."""
    return self.path / 'config.json'

  @property
  def history(self) -> pathlib.Path:
    """One row an epoch."""
    return self.path / 'history.csv'

  @property
  def last(self) -> pathlib.Path:
    """The checkpoint to go on from."""
    return self.path / 'checkpoints' / 'last.keras'

  @property
  def best(self) -> pathlib.Path:
    """The network of the best epoch."""
    return self.path / 'checkpoints' / 'best.keras'

  @property
  def model(self) -> pathlib.Path:
    """The model that is delivered."""
    return self.path / 'model.keras'

  @property
  def operating_point(self) -> pathlib.Path:
    """Threshold and priors."""
    return self.path / 'operating_point.json'

  @property
  def tensorboard(self) -> pathlib.Path:
    """TensorBoard logs."""
    return self.path / 'tensorboard'

  def prepare(
    self, config: config_lib.TrainConfig, fingerprint: str, patch: dict[str, Any] | None
  ) -> None:
    """Makes the folder, or checks that the run in it has the same settings.

    Args:
      config: the run.
      fingerprint: of the dataset.
      patch: what a patch of the dataset is, kept for prediction.

    Raises:
      UsageError: the folder holds another run, or cannot be written.
    """
    try:
      self.last.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
      raise UsageError(f'{self.path}: cannot be written: {error.strerror}') from error
    fields = json.loads(json.dumps(config.to_json()))
    if self.config.is_file():
      before = json.loads(self.config.read_text())
      for name, value in flatten(fields).items():
        was = flatten(before['config']).get(name)
        if was != value and name not in _MAY_DIFFER:
          raise UsageError(
            f'{self.path} holds a run with {name}={was}, not {value}; give another '
            '--workdir, or the same settings to go on with it'
          )
      if before['dataset_fingerprint'] != fingerprint:
        raise UsageError(
          f'{self.path} holds a run on another dataset (fingerprint '
          f'{before["dataset_fingerprint"]}, now {fingerprint}); give another --workdir'
        )
    write_json(
      self.config,
      {
        'config': fields,
        'dataset_fingerprint': fingerprint,
        'patch': patch,
        'code_version': _code_version(),
        'versions': _versions(),
      },
    )

  def read_history(self) -> list[dict[str, float]]:
    """Returns the rows of history.csv; empty before the first epoch."""
    if not self.history.is_file():
      return []
    with self.history.open(newline='') as file:
      return [{k: float(v) for k, v in row.items()} for row in csv.DictReader(file)]

  def truncate_history(self, epochs: int) -> None:
    """Drops rows of epochs that the last checkpoint does not hold."""
    rows = [row for row in self.read_history() if row['epoch'] < epochs]
    if not rows:
      self.history.unlink(missing_ok=True)
      return
    temporary = self.history.with_suffix('.tmp')
    with temporary.open('w', newline='') as file:
      writer = csv.DictWriter(file, rows[0].keys())
      writer.writeheader()
      for row in rows:
        writer.writerow({**row, 'epoch': int(row['epoch'])})
    os.replace(temporary, self.history)


def open_workdir(path: str) -> tuple[Workdir, config_lib.TrainConfig]:
  """Opens the workdir of a trained model.

  Raises:
    UsageError: there is none.
  """
  workdir = Workdir(pathlib.Path(path).expanduser())
  if not workdir.config.is_file():
    raise UsageError(
      f'{workdir.path}: no run in it (config.json is missing); train one with '
      f'luna16-train --workdir={workdir.path}'
    )
  if not workdir.model.is_file():
    raise UsageError(
      f'{workdir.path}: training has not finished (model.keras is missing); run the '
      'same luna16-train command again to go on'
    )
  return workdir, config_lib.load(workdir.config)


def patch_spec(workdir: Workdir) -> patches.PatchSpec:
  """Returns what patches the run was trained on.

  Raises:
    UsageError: they were not cut from scans by this project.
  """
  fields = read_json(workdir.config).get('patch')
  if not fields:
    raise UsageError(
      f'{workdir.path} was trained on published patches, whose scans are cut in a way '
      'that is not known; train on a dataset that luna16-extract cut from scans'
    )
  return patches.PatchSpec(**{**fields, 'shape_zyx': tuple(fields['shape_zyx'])})


def write_json(path: pathlib.Path, fields: dict[str, Any]) -> None:
  """Writes a JSON file whole or not at all."""
  temporary = path.with_suffix('.tmp')
  temporary.write_text(json.dumps(fields, indent=2) + '\n')
  os.replace(temporary, path)


def read_json(path: pathlib.Path) -> dict[str, Any]:
  """Reads a JSON file."""
  return json.loads(path.read_text())


def flatten(fields: dict[str, Any], prefix: str = '') -> dict[str, Any]:
  """Joins the names of nested fields by dots."""
  flat = {}
  for name, value in fields.items():
    if isinstance(value, dict):
      flat.update(flatten(value, f'{prefix}{name}.'))
    else:
      flat[prefix + name] = value
  return flat


def _code_version() -> str:
  """The package's version and, in a checkout, the commit."""
  version = importlib.metadata.version('luna16-patches')
  root = pathlib.Path(__file__).parent.parent
  try:
    commit = subprocess.run(
      ['git', '-C', str(root), 'describe', '--always', '--dirty'],
      capture_output=True,
      text=True,
      check=True,
      timeout=10,
    ).stdout.strip()
  except (OSError, subprocess.SubprocessError):
    return version
  return f'{version} ({commit})'


def _versions() -> dict[str, str]:
  names = ('tensorflow', 'keras', 'tensorflow-datasets', 'numpy', 'scikit-learn')
  return {
    'python': platform.python_version(),
    **{name: importlib.metadata.version(name) for name in names},
  }
