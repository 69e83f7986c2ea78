"""Flags that commands of several packages share, each defined once."""

from __future__ import annotations

from absl import flags

DEFAULT_DATA_DIR = '~/tensorflow_datasets'


def define_data_dir(
  flag_values: flags.FlagValues, *, default: str | None = DEFAULT_DATA_DIR
) -> flags.FlagHolder[str | None]:
  """Defines --data_dir.

  Args:
    flag_values: absl flags of the command, to which the flag is added.
    default: None where the command finds the folder in a workdir.
  """
  text = 'TFDS data folder'
  if default is None:
    text += ' (default: where training found the dataset)'
  return flags.DEFINE_string('data_dir', default, f'{text}.', flag_values=flag_values)


def define_luna_dir(
  flag_values: flags.FlagValues, text: str
) -> flags.FlagHolder[str | None]:
  """Defines --luna_dir, the folder of the LUNA16 download.

  Args:
    flag_values: absl flags of the command, to which the flag is added.
    text: what the command takes from it.
  """
  return flags.DEFINE_string(
    'luna_dir',
    None,
    f'Folder of the unpacked LUNA16 download; {text}',
    flag_values=flag_values,
  )


def define_output_dir(
  flag_values: flags.FlagValues, text: str, *, old_name: str | None = None
) -> flags.FlagHolder[str | None]:
  """Defines --output_dir, the folder for results.

  Args:
    flag_values: absl flags of the command, to which the flag is added.
    text: what is written, and the default.
    old_name: what the flag was called in release 1.0.0; still accepted.
  """
  holder = flags.DEFINE_string('output_dir', None, text, flag_values=flag_values)
  if old_name:
    flags.DEFINE_alias(old_name, 'output_dir', flag_values=flag_values)
  return holder


def define_seed(flag_values: flags.FlagValues, text: str) -> flags.FlagHolder[int]:
  """Defines --seed, an integer of 0 or more.

  Args:
    flag_values: absl flags of the command, to which the flag is added.
    text: what follows from it.
  """
  return flags.DEFINE_integer('seed', 0, text, lower_bound=0, flag_values=flag_values)
