"""Scores a split with a trained model and writes metrics, predictions and a report.

    luna16-evaluate --workdir=/tmp/run --split=test
    luna16-evaluate --ensemble=/tmp/run_a,/tmp/run_b
    luna16-evaluate --compare=/tmp/run_a,/tmp/run_b

Writes metrics.json, predictions.csv, plots/ and report.html, which opens from disk. The
probabilities of an ensemble are averaged, and its threshold is chosen anew. --compare
measures how much better the first model is than the second on the same records, with a
confidence interval and a p value; it writes compare.json. The FROC curve counts the nodules
that a candidate reaches or, with --luna_dir or --annotations, all annotated ones.
"""

from __future__ import annotations

from collections.abc import Sequence
import pathlib
import sys
from typing import TYPE_CHECKING

from absl import flags

from luna_tfds.command_line import cli
from luna_tfds.command_line import cli_flags
from luna_tfds.errors import UsageError
from luna_tfds.files import store_path
from model.metrics.resampling import Resampling
from model.metrics.threshold_rule import THRESHOLD_RULES
from model.metrics.threshold_rule import ThresholdRule
from trainer import bootstrap_progress
from trainer import shared_flags

if TYPE_CHECKING:
  from trainer.evaluation.steps import Evaluation
  from trainer.scoring.froc_submission import FrocReference

FLAGS = cli.new_flags()

_RUNS = shared_flags.define_runs(FLAGS, 'required without --ensemble and --compare')
_COMPARE = flags.DEFINE_list(
  'compare', None, 'Two folders of runs: a,b or a b (default: none).', flag_values=FLAGS
)
_SPLIT = flags.DEFINE_string(
  'split',
  None,
  'TFDS split string to score (default: test, or validation without a test split).',
  flag_values=FLAGS,
)
_DATA_DIR = cli_flags.define_data_dir(FLAGS, default=None)
_DATASET = shared_flags.define_dataset(FLAGS, default=None)
_OUTPUT_DIR = cli_flags.define_output_dir(
  FLAGS,
  'Folder for the results (default: the first workdir, its folder ensemble for an '
  'ensemble).',
)
_THRESHOLD = flags.DEFINE_string(
  'threshold',
  None,
  f'How the threshold is chosen: {THRESHOLD_RULES} (default: as trained).',
  flag_values=FLAGS,
)
_TTA = shared_flags.define_tta(FLAGS)
_LUNA_DIR = cli_flags.define_luna_dir(
  FLAGS, 'for annotations that are not given (default: none).'
)
_REFERENCE = shared_flags.define_froc_reference(
  FLAGS,
  'default: of --luna_dir; without either the nodules that a candidate reaches',
  'default: those with a record; needs annotations',
)
_BOOTSTRAP = shared_flags.define_bootstrap(FLAGS)
_SEED = cli_flags.define_seed(FLAGS, 'Seed of the resampling.')


def main(rest: list[str]) -> None:
  """Flags -> score -> decide -> compute the metrics -> files."""
  compared = _compared(rest)
  paths = compared or _RUNS.paths()
  if not paths:
    raise UsageError('--workdir is required, or --ensemble or --compare')
  _check_flags(compared)
  resampling = shared_flags.resampling(_BOOTSTRAP.value, _SEED.value)
  from trainer import workdir as workdir_lib
  from trainer.scoring import froc_submission

  for path in paths:  # before TensorFlow is loaded
    workdir, _ = workdir_lib.open_workdir(path)
    if not compared:
      workdir.history.read()  # the report needs it after the scoring
  reference = froc_submission.read_reference(
    cli.optional_path(_REFERENCE.annotations),
    cli.optional_path(_REFERENCE.annotations_excluded),
    cli.optional_path(_REFERENCE.seriesuids),
    cli.optional_path(_LUNA_DIR),
  )
  is_ensemble = len(paths) > 1 and not compared
  default = store_path.as_path(paths[0]) / ('ensemble' if is_ensemble else '')
  folder = cli.optional_path(_OUTPUT_DIR) or default.expanduser()
  cli.make_output_folder(folder, _OUTPUT_DIR.name)
  cli.load_tensorflow()
  if compared:
    with bootstrap_progress.displayed():
      _compare(compared[0], compared[1], resampling, reference, folder)
    return
  from trainer.report import evaluation_files
  from trainer.report import text_table

  with bootstrap_progress.displayed():
    evaluation = _evaluate(paths, resampling, reference)
  _print_warnings(evaluation.result.warnings)
  print(text_table.metrics_table(evaluation.result))
  print(f'report: {evaluation_files.write(evaluation, folder)}')


def run(argv: Sequence[str] | None = None) -> int:
  """Runs the command; returns its exit code."""
  # The second folder of `--compare a b` is an argument without a flag.
  return cli.run('luna16-evaluate', __doc__, main, FLAGS, argv, pass_unknown=True)


def _compared(rest: list[str]) -> list[str]:
  """Returns the two folders of --compare, [] without it; refuses other arguments."""
  compared = list(_COMPARE.value or ())
  if len(compared) == 1 and rest and not rest[0].startswith('-'):
    compared.append(rest[0])
    rest = rest[1:]
  if rest:
    raise cli.unknown_flag(rest[0], list(FLAGS))
  if compared and len(compared) != 2:
    raise UsageError(
      f'--compare takes two workdirs, a,b or a b. Received: {",".join(compared)}'
    )
  return compared


def _check_flags(compared: list[str]) -> None:
  if compared and _RUNS.paths():
    raise UsageError('--compare names its workdirs; leave out --workdir and --ensemble')
  if compared and not _BOOTSTRAP.value:
    raise UsageError('--compare needs resamples: --bootstrap must be 1 or more')
  if _THRESHOLD.value is not None:
    cli.as_usage_error(ThresholdRule.parse, _THRESHOLD.value, flag_prefix='--')
  if not (_REFERENCE.annotations.value or _LUNA_DIR.value):
    for flag in (_REFERENCE.annotations_excluded, _REFERENCE.seriesuids):
      if flag.value:
        raise UsageError(f'--{flag.name} needs --annotations or --luna_dir')


def _evaluate(
  paths: Sequence[str], resampling: Resampling, reference: FrocReference | None
) -> Evaluation:
  """Opens the runs and the dataset; runs the three steps of an evaluation."""
  from trainer.data import dataset as dataset_lib
  from trainer.evaluation import steps
  from trainer.evaluation import trained_run

  runs = trained_run.open_runs(paths)
  config = runs[0].config
  dataset = dataset_lib.open_dataset(
    _DATA_DIR.value or config.data_dir, _DATASET.value or config.dataset
  )
  split = _SPLIT.value or steps.default_split(dataset)
  return steps.evaluate(
    runs,
    dataset,
    split,
    resampling,
    rule=_THRESHOLD.value,
    tta=_TTA.value,
    reference=reference,
  )


def _compare(
  a: str,
  b: str,
  resampling: Resampling,
  reference: FrocReference | None,
  folder: pathlib.Path,
) -> None:
  """Two workdirs -> compare.json, and a table on stdout."""
  from luna_tfds.files import atomic_files
  from trainer.evaluation import comparison
  from trainer.report import text_table

  # Intervals are computed for the differences only.
  no_intervals = Resampling(resamples=0)
  evaluations = [_evaluate([path], no_intervals, reference) for path in (a, b)]
  result = comparison.compare(evaluations[0], evaluations[1], resampling)
  atomic_files.write_json(folder / 'compare.json', result.to_json())
  _print_warnings(result.warnings)
  print(text_table.comparison_table(result))
  print(f'comparison: {folder / "compare.json"}')


def _print_warnings(warnings: Sequence[str]) -> None:
  for warning in warnings:
    print(f'luna16-evaluate: warning: {warning}', file=sys.stderr)


if __name__ == '__main__':
  sys.exit(run())
