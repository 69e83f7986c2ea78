"""Inspects an extracted dataset: its content, its balance, the speed of the input.

    luna16-inspect --dataset=luna16_patches/axial_50px --split=train
    luna16-inspect --split=train --augment=standard --output_dir=/tmp/look
    luna16-inspect --audit --patients=patients.csv
    luna16-inspect --verify

Prints the counts by class, subset and spacing, the balance that training would use and
its rate. With --output_dir it writes examples.png, each example before and after
augmentation. --audit reads every record of every split and checks that no scan, nodule
or patient is in two splits, that no record is stored twice, and that all counts are those
of the metadata; otherwise it fails. --verify reads every byte and checks the checksums of
files and records, counts, keys, and that they are those that the extraction planned.
"""

from __future__ import annotations

from collections.abc import Sequence
import math
import pathlib
import sys
from typing import TYPE_CHECKING

from absl import flags

from luna_tfds.command_line import cli
from luna_tfds.command_line import cli_flags
from luna_tfds.errors import UsageError
from trainer import config as config_lib
from trainer import shared_flags

if TYPE_CHECKING:
  from trainer.data.split_source import SplitSource

FLAGS = cli.new_flags()

_DATA_DIR = cli_flags.define_data_dir(FLAGS)
_DATASET = shared_flags.define_dataset(FLAGS)
_SPLIT = flags.DEFINE_string(
  'split', 'train', 'TFDS split string to inspect.', flag_values=FLAGS
)
shared_flags.define_input(FLAGS, 'Seed of order, rejection and augmentation.')
_BATCH_SIZE = flags.DEFINE_integer(
  'batch_size',
  config_lib.BATCH_SIZES['article_cnn'],
  'Records of a batch.',
  flag_values=FLAGS,
)
_AUGMENT = shared_flags.define_augment(FLAGS, 'standard', 'How images are varied.')
_OUTPUT_DIR = cli_flags.define_output_dir(
  FLAGS, 'Folder for examples.png (default: none is written).'
)
_SECS = flags.DEFINE_float(
  'secs',
  2.0,
  'Seconds for which the rate is measured; 0 for not at all.',
  flag_values=FLAGS,
)
_AUDIT = flags.DEFINE_boolean(
  'audit', False, 'Check all splits, record by record.', flag_values=FLAGS
)
_VERIFY = flags.DEFINE_boolean(
  'verify',
  False,
  'Check all files: checksums, records, keys and counts, as planned.',
  flag_values=FLAGS,
)
_PATIENTS = flags.DEFINE_string(
  'patients',
  None,
  'CSV with the columns seriesuid and patient, for --audit (default: none).',
  flag_values=FLAGS,
)

_NUM_EXAMPLES = 12
_EXAMPLE_COLUMNS = 6


def main(unused: list[str]) -> None:
  """Flags -> audit, or tables and picture."""
  del unused
  if _PATIENTS.value and not _AUDIT.value:
    raise UsageError('--patients needs --audit; give both')
  # Here and not by absl's lower_bound, which lets NaN pass.
  if not 0 <= _SECS.value < math.inf:
    raise UsageError(f'--secs must be 0 or more. Received: {_SECS.value}')
  if _VERIFY.value:
    _verify()
    return
  augmentation = cli.required_value(_AUGMENT)
  config = cli.as_usage_error(
    config_lib.InputConfig,
    augment=config_lib.AUGMENTATIONS[augmentation],
    batch_size=_BATCH_SIZE.value,
    flag_prefix='--',
    **shared_flags.given_values(FLAGS, shared_flags.INPUT_NAMES),
  )
  output_dir = cli.optional_path(_OUTPUT_DIR)
  if output_dir:
    cli.make_output_folder(output_dir, _OUTPUT_DIR.name)
  cli.load_tensorflow()
  from trainer.data import audit
  from trainer.data import damaged_shards
  from trainer.data import dataset as dataset_lib

  dataset = dataset_lib.open_dataset(
    cli.required_value(_DATA_DIR), cli.required_value(_DATASET)
  )
  if _AUDIT.value:
    print(audit.audit(dataset, _PATIENTS.value))
    return
  source = dataset.open_split(_SPLIT.value)
  with damaged_shards.reported(source):
    _describe(source, config, output_dir)


def _describe(
  source: SplitSource, config: config_lib.InputConfig, output_dir: pathlib.Path | None
) -> None:
  """Prints what a split holds, and writes examples of its records."""
  from trainer.data import balance as balance_lib
  from trainer.data import summary

  balance = cli.as_usage_error(balance_lib.plan_balance, source, config)
  print(summary.describe(source))
  print(balance)
  if _SECS.value:
    rate = summary.measure_rate(config, balance, _SECS.value)
    print(f'input: {rate:,.0f} records/s, balanced and augmented')
  if output_dir:
    from trainer.pictures import colors
    from trainer.pictures import figures
    from trainer.pictures import plots

    count = min(_NUM_EXAMPLES, config.batch_size)
    examples = summary.draw_examples(config, balance, count)
    path = output_dir / 'examples.png'
    with figures.theme(colors.LIGHT):
      figure = plots.before_and_after(
        examples.stored, examples.augmented, examples.labels, _EXAMPLE_COLUMNS
      )
      figures.save(figure, path)
    print(f'examples: {path}')


def _verify() -> None:
  """Verifies the dataset; TensorFlow is loaded only because `trainer.data` needs it."""
  cli.load_tensorflow()
  from luna_tfds import verification
  from luna_tfds.command_line import progress
  from trainer.data import dataset as dataset_lib

  folder = dataset_lib.find_folder(
    cli.required_value(_DATA_DIR), cli.required_value(_DATASET)
  )
  with progress.displayed('shards', 'verification') as report:
    lines = verification.verify(folder, report)
  print('\n'.join(lines))


def run(argv: Sequence[str] | None = None) -> int:
  """Runs the command; returns its exit code."""
  return cli.run('luna16-inspect', __doc__, main, FLAGS, argv)


if __name__ == '__main__':
  sys.exit(run())
