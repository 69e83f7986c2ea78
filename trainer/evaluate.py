"""Scores a split with a trained model and writes figures, predictions and a report.

    luna16-evaluate --workdir=/tmp/run --split=test

Writes metrics.json, predictions.csv, plots/ and report.html, which opens from disk.
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

_WORKDIR = flags.DEFINE_string('workdir', None, 'Folder of the run.', flag_values=FLAGS)
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
  'output_dir', None, 'Where to write; default: the workdir.', flag_values=FLAGS
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


def main(unused: list[str]) -> None:
  """Flags -> evaluation -> files."""
  del unused
  path = cli.required(_WORKDIR)
  if _BOOTSTRAP.value < 0:
    raise UsageError(f'--bootstrap must be 0 or more. Received: {_BOOTSTRAP.value}')
  if _THRESHOLD.value is not None:
    from model import metrics

    cli.checked(metrics.parse_threshold_rule, _THRESHOLD.value)
  cli.load_tensorflow()
  from trainer import evaluation

  result = evaluation.evaluate(
    [path],
    split=_SPLIT.value,
    data_dir=_DATA_DIR.value,
    dataset=_DATASET.value,
    rule=_THRESHOLD.value,
    tta=_TTA.value,
    bootstrap=_BOOTSTRAP.value,
    seed=_SEED.value,
  )
  output_dir = pathlib.Path(_OUTPUT_DIR.value or path).expanduser()
  print_figures(result.metrics)
  print(f'report: {evaluation.write(result, output_dir)}')


def run(argv: Sequence[str] | None = None) -> int:
  """Runs the command; returns its exit code."""
  return cli.run('luna16-evaluate', __doc__, main, FLAGS, argv)


def print_figures(metrics: dict[str, Any]) -> None:
  """Prints the main figures beside the article's."""
  from trainer import report

  print(
    f'{metrics["split"]}: {metrics["records"]} records, {metrics["nodules"]} nodules'
  )
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
    print(f'  {name:<12}{report.number(metrics[name]):>8}{beside}')


if __name__ == '__main__':
  sys.exit(run())
