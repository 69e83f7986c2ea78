"""Runs LUNA16's ten-fold protocol: ten trainings, one submission, one FROC curve.

    luna16-crossval --dataset=luna16_patches/axial_50px_all --workdir=/tmp/crossval
      --luna_dir=/data/luna16 --parallel_folds=2

Fold k is tested on subset k, validated on subset k - 1 (9 for fold 0) and trained on the
rest, from new weights, in the workdir fold<k>. Takes every flag of luna16-train. Run
again it goes on where it stopped: folds that are done are left as they are. Then
submission.csv gets the marks of all folds, each scored by the network that never saw its
scan, crossval.json all figures, and with --luna_dir or --annotations there is froc.json.
"""

from __future__ import annotations

from collections.abc import Sequence
import dataclasses
import pathlib
import sys

from absl import flags

from luna_tfds import candidates
from luna_tfds import cli
from luna_tfds.errors import UsageError
from trainer import froc
from trainer import train


@dataclasses.dataclass(frozen=True)
class Findings:
  """What a FROC curve needs beside the marks.

  Attributes:
    nodules: annotations.csv.
    excluded: annotations_excluded.csv, or None.
    seriesuids: scans to score; None for those with a mark.
  """

  nodules: candidates.Table
  excluded: candidates.Table | None
  seriesuids: list[str] | None


# All flags of luna16-train, which builds the config of each fold, and our own.
FLAGS = flags.FlagValues()
FLAGS.append_flag_values(train.FLAGS)

_WORKDIR = flags.FlagHolder(FLAGS, FLAGS['workdir'])
_FOLDS = flags.DEFINE_string(
  'folds',
  ','.join(map(str, range(candidates.NUM_SUBSETS))),
  'Folds to run and to merge.',
  flag_values=FLAGS,
)
_PARALLEL_FOLDS = flags.DEFINE_integer(
  'parallel_folds',
  1,
  'Folds trained side by side, each in a process with its share of the cores.',
  flag_values=FLAGS,
)
_TEST_DATASET = flags.DEFINE_string(
  'test_dataset',
  None,
  'Dataset to test on, e.g. luna16_patches/axial_50px_all for a network trained on '
  'axial_50px; default: the one trained on.',
  flag_values=FLAGS,
)
_LUNA_DIR = flags.DEFINE_string(
  'luna_dir',
  None,
  "LUNA16's download: gives the annotations and the scans to score, if not given below.",
  flag_values=FLAGS,
)
_ANNOTATIONS = flags.DEFINE_string(
  'annotations', None, 'annotations.csv, for the FROC curve.', flag_values=FLAGS
)
_ANNOTATIONS_EXCLUDED = flags.DEFINE_string(
  'annotations_excluded',
  None,
  'annotations_excluded.csv: findings on which a mark is ignored.',
  flag_values=FLAGS,
)
_SERIESUIDS = flags.DEFINE_string(
  'seriesuids',
  None,
  'List of the scans to score, one a line; default: those of --luna_dir in the tested '
  'subsets, else those with a record.',
  flag_values=FLAGS,
)
_BOOTSTRAP = flags.DEFINE_integer(
  'bootstrap',
  1000,
  'Resamples of scans for the intervals; 0 for none.',
  flag_values=FLAGS,
)

# Each fold has splits of its own.
_SET_BY_FOLD = ('train_split', 'validation_split')


def main(unused: list[str]) -> None:
  """Flags -> folds -> merged files."""
  del unused
  workdir = pathlib.Path(cli.required(_WORKDIR)).expanduser()
  numbers = _fold_numbers()
  _check_flags()
  # Read before the work, so that nothing is trained in vain.
  findings = _findings(numbers)
  cli.load_tensorflow()
  from trainer import folds

  train.FLAGS.mark_as_parsed()  # as a part of ours
  config = train.config_from_flags()
  plans = folds.plan_folds(config, workdir, numbers, _TEST_DATASET.value)
  folds.train_folds(plans, _PARALLEL_FOLDS.value, _train_arguments())
  resampling = _BOOTSTRAP.value, config.input.seed
  for plan in plans:
    folds.score_fold(plan, *resampling)
  result = folds.merge(plans, workdir, findings, *resampling)
  for warning in result['warnings']:
    print(f'luna16-crossval: warning: {warning}', file=sys.stderr)
  print(folds.table(result))
  print(f'merged: {workdir / "crossval.json"}')


def run(argv: Sequence[str] | None = None) -> int:
  """Runs the command; returns its exit code."""
  return cli.run('luna16-crossval', __doc__, main, FLAGS, argv)


def _fold_numbers() -> list[int]:
  numbers = cli.integers(_FOLDS.value, 'folds')
  wrong = [k for k in numbers if not 0 <= k < candidates.NUM_SUBSETS]
  if wrong or len(set(numbers)) < len(numbers):
    raise UsageError(
      f'--folds lists folds 0..{candidates.NUM_SUBSETS - 1}, each once. '
      f'Received: {_FOLDS.value!r}'
    )
  return sorted(numbers)


def _check_flags() -> None:
  for name in _SET_BY_FOLD:
    if FLAGS[name].present:
      raise UsageError(f'--{name} is not for luna16-crossval: each fold has its own')
  if _PARALLEL_FOLDS.value < 1:
    raise UsageError(
      f'--parallel_folds must be 1 or more. Received: {_PARALLEL_FOLDS.value}'
    )
  if _BOOTSTRAP.value < 0:
    raise UsageError(f'--bootstrap must be 0 or more. Received: {_BOOTSTRAP.value}')
  if _ANNOTATIONS_EXCLUDED.value and not (_ANNOTATIONS.value or _LUNA_DIR.value):
    raise UsageError('--annotations_excluded needs --annotations (or --luna_dir)')


def _findings(numbers: Sequence[int]) -> Findings | None:
  """Reads what the FROC curve needs; None if no annotations are given.

  Args:
    numbers: of the folds, hence of the subsets that are tested.
  """
  luna_dir = _path(_LUNA_DIR)
  annotations, excluded = _path(_ANNOTATIONS), _path(_ANNOTATIONS_EXCLUDED)
  listed = _path(_SERIESUIDS)
  seriesuids = froc.read_seriesuids(listed) if listed else None
  if luna_dir:
    scans = candidates.find_scans(luna_dir).values()
    seriesuids = seriesuids or [s.seriesuid for s in scans if s.subset in numbers]
    annotations = annotations or candidates.require_file(
      luna_dir, candidates.ANNOTATIONS
    )
    excluded = excluded or candidates.find_file(
      luna_dir, candidates.ANNOTATIONS_EXCLUDED
    )
  if annotations is None:
    return None
  return Findings(
    nodules=candidates.read_findings(annotations),
    excluded=candidates.read_findings(excluded) if excluded else None,
    seriesuids=seriesuids,
  )


def _path(holder: flags.FlagHolder) -> pathlib.Path | None:
  return pathlib.Path(holder.value).expanduser() if holder.value else None


def _train_arguments() -> list[str]:
  """The flags of luna16-train that were given, but for those a fold sets itself."""
  return [
    train.FLAGS[name].serialize()
    for name in train.FLAGS
    if train.FLAGS[name].present and name != 'workdir'
  ]


if __name__ == '__main__':
  sys.exit(run())
