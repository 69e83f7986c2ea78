"""Exports a trained model for use without this project.

    luna16-export --workdir=/tmp/run --output_dir=/tmp/nodule_model

Writes a TensorFlow SavedModel, for TF Serving or any TensorFlow: HU in, probability out.
The model of a run with --tta averages over flips and rotations too, as its threshold was
chosen for that average; it takes eight times as long. With --notta the plain model is
written, without the threshold.
"""

from __future__ import annotations

from collections.abc import Sequence
import dataclasses
import sys

from luna_tfds import cli
from luna_tfds import cli_flags
from luna_tfds.errors import UsageError
from trainer import shared_flags

FLAGS = cli.new_flags()

_WORKDIR = shared_flags.define_workdir(FLAGS)
_OUTPUT_DIR = cli_flags.define_output_dir(
  FLAGS, 'Folder to write (required); must not exist.', old_name='output'
)
_TTA = shared_flags.define_tta(FLAGS)


def main(unused: list[str]) -> None:
  """Flags -> SavedModel."""
  del unused
  from trainer import workdir as workdir_lib

  workdir_path = cli.required_value(_WORKDIR)
  output_dir = cli.required_path(_OUTPUT_DIR)
  workdir, _ = workdir_lib.open_workdir(workdir_path)
  if output_dir.exists():
    raise UsageError(f'{output_dir}: exists already; give another --output_dir')
  cli.make_output_folder(output_dir.parent, _OUTPUT_DIR.name)
  cli.load_tensorflow()
  from trainer.scoring import inference
  from trainer.scoring.operating_point import OperatingPoint

  model = inference.load_model(workdir.model)
  point = OperatingPoint.read(workdir.operating_point)
  tta = point.tta if _TTA.value is None else _TTA.value
  model.export(output_dir, tta=tta)
  views = ', mean of flips and rotations' if tta else ''
  output = f'{output_dir}: HU {model.image_shape} in, probability out{views}'
  if tta == point.tta or point.is_fixed:
    dataclasses.replace(point, tta=tta).write(output_dir / 'operating_point.json')
    print(f'{output}; a nodule at {point.threshold:.4g} and above')
    return
  flag = f'--{"" if tta else "no"}tta'
  print(
    f'{output}; the threshold of the run was chosen {"without" if tta else "with"} --tta '
    f'and is not written; luna16-evaluate --workdir={workdir.path} {flag} gives one'
  )


def run(argv: Sequence[str] | None = None) -> int:
  """Runs the command; returns its exit code."""
  return cli.run('luna16-export', __doc__, main, FLAGS, argv)


if __name__ == '__main__':
  sys.exit(run())
