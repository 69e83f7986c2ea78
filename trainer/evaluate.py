"""Scores a split with a trained model and writes figures, predictions and a report.

    luna16-evaluate --workdir=/tmp/run --split=test
    luna16-evaluate --ensemble=/tmp/run_a,/tmp/run_b
    luna16-evaluate --compare=/tmp/run_a,/tmp/run_b

Writes metrics.json, predictions.csv, plots/ and report.html, which opens from disk. Of
an ensemble the probabilities are averaged, and its threshold is chosen anew. --compare
tells how much better the first model is than the second on the same records, and how
sure that is; it writes compare.json.
"""

from __future__ import annotations

from collections.abc import Sequence
import pathlib
import sys
from typing import Any

from absl import flags

from luna_tfds import cli
from luna_tfds.errors import UsageError

FLAGS = cli.new_flags()

_WORKDIR = flags.DEFINE_multi_string(
  'workdir',
  None,
  'Folder of the run; given several times, as --ensemble.',
  flag_values=FLAGS,
)
_ENSEMBLE = flags.DEFINE_list(
  'ensemble',
  None,
  'Folders of runs, separated by commas, whose probabilities are averaged.',
  flag_values=FLAGS,
)
_COMPARE = flags.DEFINE_list(
  'compare', None, 'Two folders of runs: a,b or a b.', flag_values=FLAGS
)
_SPLIT = flags.DEFINE_string(
  'split',
  '',
  'TFDS split string to score; default: test, or validation if there is no test.',
  flag_values=FLAGS,
)
_DATA_DIR = flags.DEFINE_string(
  'data_dir',
  None,
  'TFDS data folder, if it is not where training found it.',
  flag_values=FLAGS,
)
_DATASET = flags.DEFINE_string(
  'dataset', None, 'Dataset, if not the one trained on.', flag_values=FLAGS
)
_OUTPUT_DIR = flags.DEFINE_string(
  'output_dir',
  None,
  'Where to write; default: the (first) workdir, its folder ensemble for an ensemble.',
  flag_values=FLAGS,
)
_THRESHOLD = flags.DEFINE_string(
  'threshold',
  None,
  'max_f1, precision:P, recall:R, specificity:S or a number; default: as trained.',
  flag_values=FLAGS,
)
_TTA = flags.DEFINE_boolean(
  'tta',
  None,
  'Average over the eight turns and mirrors; default: as trained.',
  flag_values=FLAGS,
)
_BOOTSTRAP = flags.DEFINE_integer(
  'bootstrap',
  1000,
  'Resamples of scans for the intervals; 0 for none.',
  flag_values=FLAGS,
)
_SEED = flags.DEFINE_integer('seed', 0, 'Seed of the resampling.', flag_values=FLAGS)


def main(rest: list[str]) -> None:
  """Flags -> evaluation -> files."""
  compared = _compared(rest)
  paths = compared or [*(_WORKDIR.value or ()), *(_ENSEMBLE.value or ())]
  if not paths:
    cli.required(_WORKDIR)
  _check_flags(compared)
  cli.load_tensorflow()
  if compared:
    _compare(*compared)
    return
  from trainer import evaluation

  result = evaluation.evaluate(paths, bootstrap=_BOOTSTRAP.value, **_settings())
  default = pathlib.Path(paths[0]) / ('ensemble' if len(paths) > 1 else '')
  print_figures(result.metrics)
  print(f'report: {evaluation.write(result, _output_dir(default))}')


def run(argv: Sequence[str] | None = None) -> int:
  """Runs the command; returns its exit code."""
  # The second folder of `--compare a b` is an argument without a flag.
  return cli.run('luna16-evaluate', __doc__, main, FLAGS, argv, pass_unknown=True)


def _compared(rest: list[str]) -> list[str]:
  """The two folders of --compare, [] without it; other arguments are refused."""
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
  if compared and (_WORKDIR.value or _ENSEMBLE.value):
    raise UsageError('--compare names its workdirs; leave out --workdir and --ensemble')
  least = 1 if compared else 0
  if _BOOTSTRAP.value < least:
    raise UsageError(
      f'--bootstrap must be {least} or more. Received: {_BOOTSTRAP.value}'
    )
  if _SEED.value < 0:
    raise UsageError(f'--seed must be 0 or more. Received: {_SEED.value}')
  if _THRESHOLD.value is not None:
    from model import metrics

    cli.checked(metrics.parse_threshold_rule, _THRESHOLD.value)


def _settings() -> dict[str, Any]:
  return {
    'split': _SPLIT.value,
    'data_dir': _DATA_DIR.value,
    'dataset': _DATASET.value,
    'rule': _THRESHOLD.value,
    'tta': _TTA.value,
    'seed': _SEED.value,
  }


def _output_dir(default: pathlib.Path) -> pathlib.Path:
  return pathlib.Path(_OUTPUT_DIR.value or default).expanduser()


def _compare(first: str, second: str) -> None:
  """Two workdirs -> compare.json, and a table on stdout."""
  from trainer import breakdown
  from trainer import comparison
  from trainer import evaluation
  from trainer import workdir as workdir_lib

  a, b = (
    evaluation.evaluate([path], bootstrap=0, **_settings()) for path in (first, second)
  )
  resampling = breakdown.Resampling(_BOOTSTRAP.value, _SEED.value)
  result = comparison.compare(a, b, resampling)
  folder = _output_dir(pathlib.Path(first))
  evaluation.make_folder(folder)
  workdir_lib.write_json(folder / 'compare.json', result)
  print(comparison.table(result))
  print(f'comparison: {folder / "compare.json"}')


def print_figures(metrics: dict[str, Any]) -> None:
  """Prints the main figures with their intervals beside the article's."""
  from trainer import report

  print(
    f'{metrics["split"]}: {metrics["records"]} records, {metrics["nodules"]} nodules'
  )
  intervals = metrics.get('intervals', {})
  for name in (
    'accuracy',
    'precision',
    'recall',
    'specificity',
    'f1',
    'roc_auc',
    'pr_auc',
  ):
    article = report.ARTICLE.get(name)
    beside = f'   (article {article:.3f})' if article is not None else ''
    interval = report.interval(intervals.get(name))
    line = f'  {name:<12}{report.number(metrics[name]):>8}   {interval:<15}{beside}'
    print(line.rstrip())


if __name__ == '__main__':
  sys.exit(run())
