"""The files of a run, and whether a run may continue in a folder.

config.json               settings, dataset fingerprint, the versions and the precision
                          that the run was started with, and what changed since
history.csv               one row for each epoch
checkpoints/last.keras    all that is needed to continue
checkpoints/best.keras    the network of the best epoch on validation
model.keras               the inference model: raw HU in, probability out
operating_point.json      the threshold, how it was chosen, and the priors
calibration.json          how logits become probabilities, and the calibration errors
tensorboard/              logs
hard_negatives.csv        the file of --hard_negatives, as it was at the start
not_finite                the loss became NaN or infinite; other settings may help
train.lock                held while a training writes here
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
import contextlib
import dataclasses
import pathlib
from typing import Any

from luna_tfds import patches
from luna_tfds.errors import UsageError
from luna_tfds.files import atomic_files
from luna_tfds.files import file_lock
from luna_tfds.files import store_path
from luna_tfds.text_format import error_text
from trainer import config as config_lib
from trainer import run_versions
from trainer.history import History

# May differ between the runs of one workdir: the first makes a run longer, the others
# say where the data are, or what is done after training.
_MAY_DIFFER = (
  'recipe.epochs',
  'data_dir',
  'dataset',
  'threshold',
  'tta',
  'deployed_prior',
  'calibration',
)

# May differ, too, once the loss was NaN or infinite with the former values.
_MAY_DIFFER_IF_NOT_FINITE = ('recipe.learning_rate', 'precision')


@dataclasses.dataclass(frozen=True)
class Workdir:
  """The folder of a run.

  Attributes:
    path: path of the folder.
  """

  path: pathlib.Path

  @property
  def config(self) -> pathlib.Path:
    """Settings and versions."""
    return self.path / 'config.json'

  @property
  def history(self) -> History:
    """Metrics of each epoch."""
    return History(self.path / 'history.csv')

  @property
  def last(self) -> pathlib.Path:
    """The checkpoint that training continues from."""
    return self.path / 'checkpoints' / 'last.keras'

  @property
  def best(self) -> pathlib.Path:
    """The network of the best epoch."""
    return self.path / 'checkpoints' / 'best.keras'

  @property
  def model(self) -> pathlib.Path:
    """The inference model."""
    return self.path / 'model.keras'

  @property
  def operating_point(self) -> pathlib.Path:
    """Threshold and priors."""
    return self.path / 'operating_point.json'

  @property
  def calibration(self) -> pathlib.Path:
    """The calibration and what it was compared with."""
    return self.path / 'calibration.json'

  @property
  def hard_negatives(self) -> pathlib.Path:
    """A copy of the file of --hard_negatives, which may change while the run lasts."""
    return self.path / 'hard_negatives.csv'

  @property
  def not_finite(self) -> pathlib.Path:
    """Exists if training stopped because the loss became NaN or infinite."""
    return self.path / 'not_finite'

  @property
  def stored_hard_negatives(self) -> pathlib.Path | None:
    """That copy; None before the run has begun, as its settings may still change."""
    has_begun = self.config.is_file() and self.hard_negatives.is_file()
    return self.hard_negatives if has_begun else None

  def locked(self) -> contextlib.AbstractContextManager[None]:
    """Excludes other trainings in this folder for the duration of a `with` block.

    Commands that only read the folder need no lock: each file is complete at any time.

    Raises:
      JobError: another training writes there.
      UsageError: the folder cannot be written.
    """
    return _locked(self.path)

  @property
  def tensorboard(self) -> pathlib.Path:
    """TensorBoard logs."""
    return self.path / 'tensorboard'

  def prepare(
    self,
    config: config_lib.TrainConfig,
    fingerprint: str,
    patch: patches.PatchSpec | None,
    precision_used: str = '',
  ) -> list[str]:
    """Makes the folder, or checks that the run in it has the same settings.

    Args:
      config: the run.
      fingerprint: fingerprint of the dataset.
      patch: how the patches of the dataset were cut, for prediction; None if unknown.
      precision_used: the Keras dtype policy of the network, where `config.precision` may
        be 'auto'.

    Returns:
      The versions, and the precision, that have changed since the run was here last, e.g.
      'keras 3.10.0 -> 3.11.0'.

    Raises:
      UsageError: the folder holds another run, or cannot be written.
    """
    try:
      atomic_files.make_folders(self.last.parent)
    except OSError as error:
      raise UsageError(f'{self.path}: cannot be written: {error.strerror}') from error
    changed: list[dict[str, Any]] = []
    new: list[dict[str, Any]] = []
    started_with = now = run_versions.current(precision_used)
    if self.config.is_file():
      changed = self._check_same_run(config, fingerprint)
      started_with = run_versions.at_start(self._read_config(), now)
      epoch = len(self.history.read())
      new = run_versions.changes(started_with, changed, now, epoch)
    for folder in (self.path, self.last.parent):
      atomic_files.remove_temporaries(folder)
    fields = {
      'config': config.to_json(),
      'dataset_fingerprint': fingerprint,
      'patch': None if patch is None else dataclasses.asdict(patch),
      **started_with,
      'changed': [*changed, *new],
    }
    if config.input.hard_negatives and self.stored_hard_negatives is None:
      given = store_path.as_path(config.input.hard_negatives).expanduser()
      atomic_files.copy_file(given, self.hard_negatives)
    atomic_files.write_json(self.config, fields)
    self.not_finite.unlink(missing_ok=True)
    return [run_versions.change_text(change) for change in new]

  def mark_not_finite(self) -> None:
    """Records that the settings of the run made the loss NaN or infinite."""
    atomic_files.write_text(self.not_finite, '')

  def _check_same_run(
    self, config: config_lib.TrainConfig, fingerprint: str
  ) -> list[dict[str, Any]]:
    """Returns which settings of training were changed, now and before, and when."""
    before = flatten(config_lib.load(self.config).to_json())
    changed = self._read_changes()
    for name, value in flatten(config.to_json()).items():
      if before[name] == value or name in _MAY_DIFFER:
        continue
      if name in _MAY_DIFFER_IF_NOT_FINITE and self.not_finite.is_file():
        epoch = len(self.history.read())
        changed.append(
          {'epoch': epoch, 'name': name, 'before': before[name], 'after': value}
        )
        continue
      raise UsageError(
        f'{self.path} holds a run with {name}={before[name]}, not {value}; give '
        'another --workdir, or the same settings to continue it'
      )
    stored = self.dataset_fingerprint
    if stored != fingerprint:
      raise UsageError(
        f'{self.path} holds a run on another dataset (fingerprint {stored}, now '
        f'{fingerprint}); give another --workdir'
      )
    return changed

  def _read_changes(self) -> list[dict[str, Any]]:
    """Returns the list `changed` of config.json; release 1.0.0 did not write it."""
    changed: list[dict[str, Any]] = self._read_config().get('changed', [])
    is_list = isinstance(changed, list)
    if not (is_list and all(run_versions.is_change(change) for change in changed)):
      raise UsageError(
        f'{self.config}: changed must list objects with a name; restore the file, or '
        'remove the list to continue without it'
      )
    return changed

  @property
  def dataset_fingerprint(self) -> str:
    """Fingerprint of the dataset that the run was trained on.

    Raises:
      UsageError: config.json is damaged.
    """
    fingerprint = self._read_config().get('dataset_fingerprint')
    if not isinstance(fingerprint, str):
      raise UsageError(
        f'{self.config}: has no dataset_fingerprint; train again in another --workdir'
      )
    return fingerprint

  def _read_config(self) -> dict[str, Any]:
    """Returns the fields of config.json."""
    try:
      fields = atomic_files.read_json(self.config)
    except ValueError as error:
      raise UsageError(
        f'{self.config}: {error_text(error)}; train again in another --workdir'
      ) from error
    if not isinstance(fields, dict):
      raise UsageError(
        f'{self.config}: must hold a JSON object; train again in another --workdir'
      )
    return fields

  def patch_spec(self) -> patches.PatchSpec:
    """Returns how the patches that the run was trained on were cut.

    Raises:
      UsageError: this project did not cut them, or config.json is damaged.
    """
    spec = self.known_patch_spec()
    if spec is None:
      raise UsageError(
        f'{self.path} was trained on published patches, and how those were cut from '
        'scans is not known; train on a dataset that luna16-extract cut from scans'
      )
    return spec

  def known_patch_spec(self) -> patches.PatchSpec | None:
    """As `patch_spec`; None if this project did not cut the patches."""
    fields = self._read_config().get('patch')
    if not fields:
      return None
    try:
      return patches.PatchSpec.from_json(fields)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
      raise UsageError(
        f'{self.config}: patch: {error_text(error)}; train again in another --workdir'
      ) from error


@contextlib.contextmanager
def _locked(path: pathlib.Path) -> Iterator[None]:
  is_new = not path.exists()
  with contextlib.ExitStack() as stack:
    try:
      stack.enter_context(file_lock.hold(path / 'train.lock', 'training', path))
    except OSError as error:
      raise UsageError(f'{path}: cannot be written: {error.strerror}') from error
    try:
      yield
    finally:
      stack.close()
      if is_new:  # a run that was rejected leaves nothing
        with contextlib.suppress(OSError):
          path.rmdir()


def open_workdir(path: str | pathlib.Path) -> tuple[Workdir, config_lib.TrainConfig]:
  """Opens the workdir of a trained model; loads no TensorFlow.

  Raises:
    UsageError: there is none, or training has not finished.
  """
  workdir = Workdir(store_path.as_path(path).expanduser())
  if not workdir.config.is_file():
    raise UsageError(
      f'{workdir.path}: no run in it (config.json is missing); train one with '
      f'luna16-train --workdir={workdir.path}'
    )
  for required in (workdir.model, workdir.operating_point):
    if not required.is_file():
      raise UsageError(
        f'{workdir.path}: training has not finished ({required.name} is missing); run '
        'the same luna16-train command again to continue it'
      )
  return workdir, config_lib.load(workdir.config)


def flatten(fields: Mapping[str, Any], prefix: str = '') -> dict[str, Any]:
  """Joins the names of nested fields by dots."""
  flat = {}
  for name, value in fields.items():
    if isinstance(value, Mapping):
      flat.update(flatten(value, f'{prefix}{name}.'))
    else:
      flat[prefix + name] = value
  return flat
