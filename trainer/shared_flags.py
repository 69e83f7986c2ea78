"""Flags that several commands of the trainer share, each defined once."""

from __future__ import annotations

import dataclasses

from absl import flags

from luna_tfds import records
from luna_tfds.command_line import cli
from luna_tfds.errors import UsageError
from model.metrics.resampling import Resampling
from trainer import config as config_lib

DEFAULT_DATASET = f'{records.DATASET_NAME}/axial_50px'

# The flags of `define_input`; each has the name of a field of `config.InputConfig`.
INPUT_NAMES = ('balance', 'positive_fraction', 'memory_budget_mb', 'seed')


def define_dataset(
  flag_values: flags.FlagValues, *, default: str | None = DEFAULT_DATASET
) -> flags.FlagHolder[str | None]:
  """Defines --dataset.

  Args:
    flag_values: absl flags of the command, to which the flag is added.
    default: None where the command finds the dataset in a workdir.
  """
  text = 'luna16_patches/<config>, or the folder of an extracted version'
  if default is None:
    text += ' (default: the dataset trained on)'
  return flags.DEFINE_string('dataset', default, f'{text}.', flag_values=flag_values)


def define_workdir(flag_values: flags.FlagValues) -> flags.FlagHolder[str | None]:
  """Defines --workdir, the folder of one run."""
  return flags.DEFINE_string(
    'workdir', None, 'Folder of the run (required).', flag_values=flag_values
  )


@dataclasses.dataclass(frozen=True)
class RunFlags:
  """The flags that name one run, or several whose probabilities are averaged."""

  workdir: flags.FlagHolder[list[str] | None]
  ensemble: flags.FlagHolder[list[str] | None]

  def paths(self) -> list[str]:
    """Returns the folders of the runs; [] if no flag is given.

    Raises:
      UsageError: a name is empty.
    """
    for flag in (self.workdir, self.ensemble):
      if '' in (flag.value or ()):
        raise UsageError(
          f'--{flag.name}: the name of a folder is empty; give folders of runs'
        )
    return [*(self.workdir.value or ()), *(self.ensemble.value or ())]


def define_runs(flag_values: flags.FlagValues, required: str) -> RunFlags:
  """Defines --workdir, which may be given several times, and --ensemble.

  Args:
    flag_values: absl flags of the command, to which the flags are added.
    required: when one of them is required.
  """
  return RunFlags(
    flags.DEFINE_multi_string(
      'workdir',
      None,
      f'Folder of the run ({required}); given several times, as --ensemble.',
      flag_values=flag_values,
    ),
    flags.DEFINE_list(
      'ensemble',
      None,
      'Folders of runs, separated by commas, whose probabilities are averaged (default: '
      'none).',
      flag_values=flag_values,
    ),
  )


def define_tta(flag_values: flags.FlagValues) -> flags.FlagHolder[bool | None]:
  """Defines --tta for commands that score with a trained model."""
  return flags.DEFINE_boolean(
    'tta',
    None,
    'Average over the eight flips and rotations by 90 degrees (default: as trained).',
    flag_values=flag_values,
  )


def define_bootstrap(flag_values: flags.FlagValues) -> flags.FlagHolder[int]:
  """Defines --bootstrap, the number of resamples."""
  return flags.DEFINE_integer(
    'bootstrap',
    Resampling.resamples,
    'Resamples of scans for the 95 % confidence intervals; 0 for none.',
    flag_values=flag_values,
  )


def define_input(flag_values: flags.FlagValues, seed_text: str) -> None:
  """Defines the flags of `INPUT_NAMES`, which say how batches are made.

  Args:
    flag_values: absl flags of the command, to which the flags are added.
    seed_text: help of --seed.
  """
  default = config_lib.InputConfig
  flags.DEFINE_enum(
    'balance',
    default.balance,
    config_lib.BALANCES,
    'How classes are balanced: by rejection, from two streams, not at all, or auto: '
    'rejection unless it would read too much.',
    flag_values=flag_values,
  )
  flags.DEFINE_float(
    'positive_fraction',
    default.positive_fraction,
    'Fraction of nodules in a training batch.',
    flag_values=flag_values,
  )
  flags.DEFINE_integer(
    'memory_budget_mb',
    default.memory_budget_mb,
    'Memory for records held by the input, in MB.',
    flag_values=flag_values,
  )
  flags.DEFINE_integer(
    'seed',
    default.seed,
    seed_text,
    flag_values=flag_values,
  )


def given_values(
  flag_values: flags.FlagValues, names: tuple[str, ...]
) -> dict[str, object]:
  """Returns the values of the flags that are not None, by name."""
  values = {name: flag_values[name].value for name in names}
  return {name: value for name, value in values.items() if value is not None}


class _AugmentationParser(flags.EnumParser):
  """Accepts the names of augmentations, and those of release 1.0.0."""

  def __init__(self) -> None:
    super().__init__(tuple(config_lib.AUGMENTATIONS))

  def parse(self, argument: str) -> str:
    """Returns the present name."""
    name = config_lib.RENAMED_AUGMENTATIONS.get(argument, argument)
    return str(super().parse(name))


def define_augment(
  flag_values: flags.FlagValues, default: str | None, text: str
) -> flags.FlagHolder[str]:
  """Defines --augment, the name of an augmentation; old names are accepted.

  Args:
    flag_values: absl flags of the command, to which the flag is added.
    default: default of the flag; None for none.
    text: its help.
  """
  return flags.DEFINE(
    _AugmentationParser(),
    'augment',
    default,
    f'<{"|".join(config_lib.AUGMENTATIONS)}>: {text}',
    flag_values,
  )


def resampling(bootstrap: int, seed: int) -> Resampling:
  """Checks the values of --bootstrap and --seed.

  Raises:
    UsageError: one is out of range.
  """
  if bootstrap < 0:
    raise UsageError(f'--bootstrap must be 0 or more. Received: {bootstrap}')
  return cli.as_usage_error(Resampling, bootstrap, seed, flag_prefix='--')


@dataclasses.dataclass(frozen=True)
class FrocReferenceFlags:
  """The flags that name what a submission is compared with."""

  annotations: flags.FlagHolder[str | None]
  annotations_excluded: flags.FlagHolder[str | None]
  seriesuids: flags.FlagHolder[str | None]


def define_froc_reference(
  flag_values: flags.FlagValues, annotations: str, seriesuids: str
) -> FrocReferenceFlags:
  """Defines --annotations, --annotations_excluded and --seriesuids.

  Args:
    flag_values: absl flags of the command, to which the flags are added.
    annotations: when the first is needed, or its default.
    seriesuids: the same for the last.
  """
  return FrocReferenceFlags(
    flags.DEFINE_string(
      'annotations',
      None,
      f'annotations.csv: the nodules to find ({annotations}).',
      flag_values=flag_values,
    ),
    flags.DEFINE_string(
      'annotations_excluded',
      None,
      'annotations_excluded.csv: findings on which a mark is ignored (default: none; '
      'then such marks are false positives).',
      flag_values=flag_values,
    ),
    flags.DEFINE_string(
      'seriesuids',
      None,
      f'List of the scans to score, one on each line ({seriesuids}).',
      flag_values=flag_values,
    ),
  )
