"""Runs the whole pipeline on synthetic scans: phantom, extract, train, evaluate.

    luna16-demo

Needs no download. Prints each command before it runs it, and at the end the metrics, the
path of the report and the time taken: about 3 minutes on 2 cores.
"""

from __future__ import annotations

from collections.abc import Sequence
import pathlib
import shlex
import subprocess
import sys
import tempfile
import time

from absl import flags

from luna_tfds.command_line import cli
from luna_tfds.command_line import cli_flags
from luna_tfds.errors import JobError
from luna_tfds.errors import UsageError
from trainer import shared_flags

FLAGS = cli.new_flags()

_OUTPUT_DIR = cli_flags.define_output_dir(
  FLAGS, 'Folder to write (default: a new temporary one).', old_name='out_dir'
)
_SCANS = flags.DEFINE_integer(
  'scans',
  24,
  'Synthetic scans; 20 make two in every subset.',
  lower_bound=20,
  flag_values=FLAGS,
)
_EPOCHS = flags.DEFINE_integer(
  'epochs', 12, 'Epochs of training.', lower_bound=1, flag_values=FLAGS
)
_SEED = cli_flags.define_seed(FLAGS, 'Seed of the scans and of training.')

_MODULES = {
  'luna16-phantom': 'luna_tfds.phantom',
  'luna16-extract': 'beam_jobs.extract_patches',
  'luna16-train': 'trainer.train',
  'luna16-evaluate': 'trainer.evaluate',
}


def main(unused: list[str]) -> None:
  """Runs the four commands."""
  del unused
  start_secs = time.monotonic()
  root = cli.optional_path(_OUTPUT_DIR)
  if root is None:
    root = pathlib.Path(tempfile.mkdtemp(prefix='luna16_demo_'))
  luna_dir, data_dir = root / 'luna16', root / 'tensorflow_datasets'
  workdir = root / 'run'
  seed = f'--seed={_SEED.value}'
  _call('luna16-phantom', f'--output_dir={luna_dir}', f'--scans={_SCANS.value}', seed)
  _call('luna16-extract', f'--luna_dir={luna_dir}', f'--data_dir={data_dir}')
  _call(
    'luna16-train',
    f'--data_dir={data_dir}',
    f'--dataset={shared_flags.DEFAULT_DATASET}',
    f'--workdir={workdir}',
    '--batch_size=48',
    '--steps_per_epoch=32',
    f'--epochs={_EPOCHS.value}',
    seed,
  )
  _call('luna16-evaluate', f'--workdir={workdir}')
  minutes, secs = divmod(round(time.monotonic() - start_secs), 60)
  print(f'luna16-demo: finished in {minutes} min {secs} s')


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
    raise UsageError(f'{command} rejected its input (see above)')
  if code:
    raise JobError(f'{command} failed with exit code {code}')


if __name__ == '__main__':
  sys.exit(run())
