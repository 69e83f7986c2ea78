"""The whole road on synthetic scans: phantom, extract, train, evaluate.

    luna16-demo

Needs no download. Prints each command as it runs it, and at the end the figures and
where the report is. Takes a few minutes at most.
"""

from __future__ import annotations

from collections.abc import Sequence
import pathlib
import shlex
import subprocess
import sys
import tempfile

from absl import flags

from luna_tfds import cli
from luna_tfds.errors import JobError
from luna_tfds.errors import UsageError

FLAGS = cli.new_flags()

_OUT_DIR = flags.DEFINE_string(
  'out_dir', None, 'Folder to write; default: a new temporary one.', flag_values=FLAGS
)
_SCANS = flags.DEFINE_integer(
  'scans', 24, 'Synthetic scans; at least 20.', flag_values=FLAGS
)
_EPOCHS = flags.DEFINE_integer('epochs', 12, 'Epochs of training.', flag_values=FLAGS)
_SEED = flags.DEFINE_integer('seed', 0, 'Seed of everything.', flag_values=FLAGS)

_MODULES = {
  'luna16-phantom': 'luna_tfds.phantom',
  'luna16-extract': 'beam_jobs.extract_patches',
  'luna16-train': 'trainer.train',
  'luna16-evaluate': 'trainer.evaluate',
}


def main(unused: list[str]) -> None:
  """Runs the four commands."""
  del unused
  if _SCANS.value < 20:
    raise UsageError(
      f'--scans must be at least 20, for two scans in every subset. '
      f'Received: {_SCANS.value}'
    )
  if _EPOCHS.value < 1:
    raise UsageError(f'--epochs must be at least 1. Received: {_EPOCHS.value}')
  if _OUT_DIR.value:
    root = pathlib.Path(_OUT_DIR.value).expanduser()
  else:
    root = pathlib.Path(tempfile.mkdtemp(prefix='luna16_demo_'))
  luna_dir, data_dir, workdir = (
    root / 'luna16',
    root / 'tensorflow_datasets',
    root / 'run',
  )
  dataset = 'luna16_patches/axial_50px'
  seed = f'--seed={_SEED.value}'
  _call('luna16-phantom', f'--out_dir={luna_dir}', f'--scans={_SCANS.value}', seed)
  _call('luna16-extract', f'--luna_dir={luna_dir}', f'--data_dir={data_dir}')
  _call(
    'luna16-train',
    f'--data_dir={data_dir}',
    f'--dataset={dataset}',
    f'--workdir={workdir}',
    '--batch_size=48',
    '--steps_per_epoch=32',
    f'--epochs={_EPOCHS.value}',
    seed,
  )
  _call('luna16-evaluate', f'--workdir={workdir}')


def run(argv: Sequence[str] | None = None) -> int:
  """Runs the command; returns its exit code."""
  return cli.run('luna16-demo', __doc__, main, FLAGS, argv)


def _call(command: str, *arguments: str) -> None:
  """Runs a command as the user would, in a process of its own."""
  print(f'\n$ {command} {shlex.join(arguments)}', flush=True)
  code = subprocess.run(
    [sys.executable, '-m', _MODULES[command], *arguments], check=False
  ).returncode
  if code == cli.EXIT_USAGE:
    raise UsageError(f'{command} refused its input (see above)')
  if code:
    raise JobError(f'{command} failed with exit code {code}')


if __name__ == '__main__':
  sys.exit(run())
