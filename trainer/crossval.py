"""Runs LUNA16's ten-fold protocol: ten trainings, one submission, one FROC curve.

    luna16-crossval --dataset=luna16_patches/axial_50px_all --workdir=/tmp/crossval
      --luna_dir=/data/luna16 --parallel_folds=2

Fold k is tested on subset k, validated on subset k - 1 (9 for fold 0) and trained on the
others, from new weights, in the workdir fold<k>. Takes every flag of luna16-train but
--train_split and --validation_split. Run again, it continues where it stopped: finished
folds are kept. Then submission.csv gets the marks of all folds, each scored by the network
that was not trained on its scan, froc.json the FROC curve, crossval.json all metrics, and
report.html shows them. With --luna_dir or --annotations the FROC curve counts all annotated
nodules, else those that a candidate reaches.
"""

from __future__ import annotations

from collections.abc import Sequence
import sys

from absl import flags

from luna_tfds import splits
from luna_tfds.command_line import cli
from luna_tfds.command_line import cli_flags
from luna_tfds.errors import UsageError
from luna_tfds.files import file_lock
from trainer import bootstrap_progress
from trainer import shared_flags
from trainer import train_flags

FLAGS = cli.new_flags()
train_flags.define(FLAGS)

_WORKDIR = shared_flags.define_workdir(FLAGS)
_FOLDS = flags.DEFINE_string(
  'folds',
  ','.join(map(str, range(splits.NUM_SUBSETS))),
  'Folds to run and to merge.',
  flag_values=FLAGS,
)
_PARALLEL_FOLDS = flags.DEFINE_integer(
  'parallel_folds',
  1,
  'Folds trained in parallel, each in a process with its part of the cores.',
  lower_bound=1,
  flag_values=FLAGS,
)
_TEST_DATASET = flags.DEFINE_string(
  'test_dataset',
  None,
  'Dataset to test on, e.g. luna16_patches/axial_50px_all for a network trained on '
  'axial_50px (default: the dataset trained on).',
  flag_values=FLAGS,
)
_LUNA_DIR = cli_flags.define_luna_dir(
  FLAGS, 'for annotations and scans that are not given (default: none).'
)
_REFERENCE = shared_flags.define_froc_reference(
  FLAGS,
  'default: of --luna_dir; without either the nodules that a candidate reaches',
  'default: those of --luna_dir in the tested subsets, else those with a record',
)
_BOOTSTRAP = shared_flags.define_bootstrap(FLAGS)

# Each fold has splits of its own.
_SET_BY_FOLD = ('train_split', 'validation_split')


def main(unused: list[str]) -> None:
  """Flags -> folds -> merged files."""
  del unused
  workdir = cli.required_path(_WORKDIR)
  numbers = _fold_numbers()
  _check_flags()
  config = train_flags.config_from_flags(FLAGS)
  resampling = shared_flags.resampling(_BOOTSTRAP.value, config.input.seed)
  from trainer.scoring import froc_submission

  # Read first: an error in these files must not come after hours of training.
  reference = froc_submission.read_reference(
    cli.optional_path(_REFERENCE.annotations),
    cli.optional_path(_REFERENCE.annotations_excluded),
    cli.optional_path(_REFERENCE.seriesuids),
    cli.optional_path(_LUNA_DIR),
    numbers,
  )
  cli.load_tensorflow()
  from trainer.crossvalidation import fold_text_table
  from trainer.crossvalidation import folds
  from trainer.crossvalidation import merged_files
  from trainer.crossvalidation import merging

  plans = folds.plan_folds(config, workdir, numbers, _TEST_DATASET.value)
  with file_lock.hold(workdir / 'crossval.lock', 'cross-validation', workdir):
    folds.train_folds(plans, _PARALLEL_FOLDS.value, _given_train_flags())
    with bootstrap_progress.displayed():
      for plan in plans:
        folds.score_fold(plan, resampling)
      merged = merging.merge(plans, workdir, reference, resampling)
    report = merged_files.write(merged, workdir)
  for warning in merged.warnings:
    print(f'luna16-crossval: warning: {warning}', file=sys.stderr)
  print(fold_text_table.folds_table(merged))
  print(f'merged: {workdir / "crossval.json"}')
  print(f'report: {report}')


def run(argv: Sequence[str] | None = None) -> int:
  """Runs the command; returns its exit code."""
  return cli.run('luna16-crossval', __doc__, main, FLAGS, argv)


def _fold_numbers() -> list[int]:
  numbers = cli.parse_ints(_FOLDS.value, 'folds')
  wrong = [k for k in numbers if not 0 <= k < splits.NUM_SUBSETS]
  if wrong or len(set(numbers)) < len(numbers):
    raise UsageError(
      f'--folds lists folds 0..{splits.NUM_SUBSETS - 1}, each once. '
      f'Received: {_FOLDS.value!r}'
    )
  return sorted(numbers)


def _check_flags() -> None:
  for name in _SET_BY_FOLD:
    if FLAGS[name].present:
      raise UsageError(
        f'--{name} is not for luna16-crossval, as each fold has its own; leave it out'
      )
  if _REFERENCE.annotations_excluded.value and not (
    _REFERENCE.annotations.value or _LUNA_DIR.value
  ):
    raise UsageError('--annotations_excluded needs --annotations or --luna_dir')


def _given_train_flags() -> list[str]:
  """Returns the given flags of luna16-train, but for those that a fold sets itself."""
  return [
    FLAGS[name].serialize()
    for name in sorted(train_flags.names())
    if FLAGS[name].present
  ]


if __name__ == '__main__':
  sys.exit(run())
