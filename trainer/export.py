"""Exports one trained model or an ensemble for use without this project.

    luna16-export --workdir=/tmp/run --output_dir=/tmp/nodule_model
    luna16-export --ensemble=/tmp/run_a,/tmp/run_b --tta --output_dir=/tmp/nodule_model
    luna16-export --crossval=/tmp/crossval --output_dir=/tmp/nodule_model

Writes a TensorFlow SavedModel, for TF Serving or any TensorFlow: HU in, probability out;
and the same as model.keras, which needs this project. An ensemble, or the folds of a
cross-validation, become one model that averages their probabilities.

The model of a run with --tta averages over flips and rotations too, as its threshold was
chosen for that average; it takes eight times as long. The threshold that is printed and
written belongs to what the model computes; where none is known, none is written.
"""

from __future__ import annotations

from collections.abc import Sequence
import pathlib
import sys

from absl import flags

from luna_tfds.command_line import cli
from luna_tfds.command_line import cli_flags
from luna_tfds.errors import UsageError
from luna_tfds.files import atomic_files
from luna_tfds.files import local_files
from luna_tfds.files import store_path
from luna_tfds.text_format import error_text
from trainer import shared_flags

FLAGS = cli.new_flags()

_RUNS = shared_flags.define_runs(FLAGS, 'required without --ensemble and --crossval')
_CROSSVAL = flags.DEFINE_string(
  'crossval',
  None,
  'Folder of a cross-validation, the probabilities of whose folds are averaged (default: '
  'none).',
  flag_values=FLAGS,
)
_OUTPUT_DIR = cli_flags.define_output_dir(
  FLAGS, 'Folder to write (required); must not exist.', old_name='output'
)
_TTA = shared_flags.define_tta(FLAGS)


def main(unused: list[str]) -> None:
  """Flags -> runs -> one model -> files."""
  del unused
  from trainer import workdir as workdir_lib

  paths = _paths()
  output_dir = cli.required_path(_OUTPUT_DIR)
  for path in paths:
    workdir_lib.open_workdir(path)  # before TensorFlow is loaded
  if output_dir.exists():
    raise UsageError(f'{output_dir}: exists already; give another --output_dir')
  cli.make_output_folder(output_dir.parent, _OUTPUT_DIR.name)
  cli.load_tensorflow()
  from trainer.evaluation import exported_point
  from trainer.evaluation import trained_run
  from trainer.scoring import ensemble_model

  are_folds = bool(_CROSSVAL.value)
  runs = trained_run.open_runs(paths, same_splits=not are_folds)
  tta = runs[0].point.tta if _TTA.value is None else _TTA.value
  exported = exported_point.operating_point_of(runs, tta=tta, are_folds=are_folds)
  model = ensemble_model.build_ensemble([run.model for run in runs], tta=tta)
  with local_files.local_folder(output_dir) as local:
    ensemble_model.write_export(model, local, exported.files())
  for warning in exported.warnings:
    print(f'luna16-export: warning: {warning}', file=sys.stderr)
  mean = f', mean of {len(runs)} runs' if len(runs) > 1 else ''
  views = ', mean of flips and rotations' if tta else ''
  end = (
    f'a nodule at {exported.point.threshold:.4g} and above'
    if exported.point
    else _why_no_threshold(paths, tta, are_folds)
  )
  shape = runs[0].model.image_shape
  print(f'{output_dir}: HU {shape} in, probability out{mean}{views}; {end}')


def run(argv: Sequence[str] | None = None) -> int:
  """Runs the command; returns its exit code."""
  return cli.run('luna16-export', __doc__, main, FLAGS, argv)


def _paths() -> list[str]:
  """Returns the workdirs of the runs."""
  given = _RUNS.paths()
  if _CROSSVAL.value:
    if given:
      raise UsageError('--crossval names its runs; leave out --workdir and --ensemble')
    return _fold_paths(store_path.as_path(_CROSSVAL.value).expanduser())
  if not given:
    raise UsageError('--workdir is required, or --ensemble or --crossval')
  return given


def _fold_paths(workdir: pathlib.Path) -> list[str]:
  """Returns the workdirs of the folds that a finished cross-validation merged."""
  path = workdir / 'crossval.json'
  if not path.is_file():
    raise UsageError(
      f'{workdir}: no finished cross-validation in it (crossval.json is missing); run '
      'luna16-crossval, or the same command again to continue it'
    )
  try:
    numbers = [int(fold['fold']) for fold in atomic_files.read_json(path)['folds']]
  except (KeyError, TypeError, ValueError) as error:
    raise UsageError(
      f'{path}: cannot be read: {error_text(error)}; run the same luna16-crossval '
      'command again to write it'
    ) from error
  if not numbers:
    raise UsageError(f'{path}: lists no fold; run luna16-crossval again')
  return [str(workdir / f'fold{number}') for number in numbers]


def _why_no_threshold(paths: Sequence[str], tta: bool, are_folds: bool) -> str:
  if are_folds:
    return (
      'no threshold is written: each scan was in the training of some folds; choose one '
      'on other scans'
    )
  flag = f'--{"" if tta else "no"}tta'
  if len(paths) > 1:
    return (
      'no threshold is written, as the validation split of the first run is not there; '
      f'luna16-evaluate --ensemble={",".join(paths)} {flag} --dataset=... gives one'
    )
  return (
    f'the threshold of the run was chosen {"without" if tta else "with"} --tta and is not '
    f'written; luna16-evaluate --workdir={paths[0]} {flag} gives one'
  )


if __name__ == '__main__':
  sys.exit(run())
