"""Exports a trained model for use without this project.

    luna16-export --workdir=/tmp/run --output=/tmp/nodule_model

Writes a TensorFlow SavedModel, for TF Serving or any TensorFlow: HU in, probability out.
"""

from __future__ import annotations

from collections.abc import Sequence
import pathlib
import sys

from absl import flags

from luna_tfds import cli
from luna_tfds.errors import UsageError

FLAGS = cli.new_flags()

_WORKDIR = flags.DEFINE_string('workdir', None, 'Folder of the run.', flag_values=FLAGS)
_OUTPUT = flags.DEFINE_string(
  'output', None, 'Folder to write; must not be there.', flag_values=FLAGS
)


def main(unused: list[str]) -> None:
  """Flags -> SavedModel."""
  del unused
  path = cli.required(_WORKDIR)
  output = pathlib.Path(cli.required(_OUTPUT)).expanduser()
  if output.exists():
    raise UsageError(f'{output}: is there already; give another --output')
  cli.load_tensorflow()
  import keras

  from model import layers  # noqa: F401, so that the saved model finds its layers
  from trainer import workdir as workdir_lib

  workdir, _ = workdir_lib.open_workdir(path)
  model = keras.models.load_model(workdir.model, compile=False)
  model.export(output, verbose=False)
  point = workdir_lib.read_json(workdir.operating_point)
  workdir_lib.write_json(output / 'operating_point.json', point)
  print(
    f'{output}: HU {tuple(model.input_shape[1:])} in, probability out; a nodule from '
    f'{point["threshold"]:.4g} on'
  )


def run(argv: Sequence[str] | None = None) -> int:
  """Runs the command; returns its exit code."""
  return cli.run('luna16-export', __doc__, main, FLAGS, argv)


if __name__ == '__main__':
  sys.exit(run())
