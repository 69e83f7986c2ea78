"""Shows what a trained network computes: filters, feature maps, Grad-CAM.

    luna16-visualize --workdir=/tmp/run --split=test --record=0 --output_dir=/tmp/pictures

Writes the article's pictures for any patch: the filters of the first layer, the feature
maps of each convolution, and the Grad-CAM evidence for the nodule class.
"""

from __future__ import annotations

from collections.abc import Sequence
import sys

from absl import flags

from luna_tfds.command_line import cli
from luna_tfds.command_line import cli_flags
from luna_tfds.errors import UsageError
from trainer import shared_flags

FLAGS = cli.new_flags()

_WORKDIR = shared_flags.define_workdir(FLAGS)
_SPLIT = flags.DEFINE_string(
  'split',
  'validation',
  'TFDS split string that holds the record.',
  flag_values=FLAGS,
)
_RECORD = flags.DEFINE_string(
  'record',
  '0',
  'Position in the split, from 0, or key: seriesuid/candidate_id.',
  flag_values=FLAGS,
)
_DATA_DIR = cli_flags.define_data_dir(FLAGS, default=None)
_OUTPUT_DIR = cli_flags.define_output_dir(
  FLAGS, 'Folder for the pictures (default: visualize in the workdir).'
)


def main(unused: list[str]) -> None:
  """Flags -> one record -> pictures."""
  del unused
  from trainer import workdir as workdir_lib

  workdir, config = workdir_lib.open_workdir(cli.required_value(_WORKDIR))
  folder = cli.optional_path(_OUTPUT_DIR) or workdir.path / 'visualize'
  cli.make_output_folder(folder, _OUTPUT_DIR.name)
  cli.load_tensorflow()
  from trainer.data import dataset as dataset_lib
  from trainer.data import single_records
  from trainer.evaluation import trained_run
  from trainer.pictures import colors
  from trainer.pictures import figures
  from trainer.pictures import network_pictures

  dataset = dataset_lib.open_dataset(_DATA_DIR.value or config.data_dir, config.dataset)
  (run_of_model,) = trained_run.open_runs([str(workdir.path)])
  trained_run.check_patches(run_of_model, dataset, '--data_dir')
  source = dataset.open_split(_SPLIT.value)
  position = single_records.position_of(source, _RECORD.value)
  image = single_records.read_images(source, [position])[0]
  model = run_of_model.model.keras_model
  pictures = network_pictures.all_pictures(model, image)
  if not pictures:
    raise UsageError(f'{workdir.path}: the network has no convolution to show')
  with figures.theme(colors.LIGHT):
    for name, draw in pictures.items():
      figures.save(draw(), folder / f'{name}.png')
      print(folder / f'{name}.png')


def run(argv: Sequence[str] | None = None) -> int:
  """Runs the command; returns its exit code."""
  return cli.run('luna16-visualize', __doc__, main, FLAGS, argv)


if __name__ == '__main__':
  sys.exit(run())
