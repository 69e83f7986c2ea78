"""Trains a network on an extracted dataset.

    luna16-train --dataset=luna16_patches/axial_50px --workdir=/tmp/run --model=nodule_net

Run again with the same flags, it continues where it stopped. The workdir gets
config.json, history.csv, checkpoints/, TensorBoard logs, and model.keras, which takes raw
HU.
"""

from __future__ import annotations

from collections.abc import Sequence
import sys

from luna_tfds.command_line import cli
from trainer import shared_flags
from trainer import train_flags

FLAGS = cli.new_flags()
_WORKDIR = shared_flags.define_workdir(FLAGS)
train_flags.define(FLAGS)


def main(unused: list[str]) -> None:
  """Flags -> config -> training."""
  del unused
  path = cli.required_path(_WORKDIR)
  config = train_flags.config_from_flags(FLAGS)
  cli.load_tensorflow()
  from trainer.training import run as run_lib

  result = run_lib.train(config, path)
  print(result, file=sys.stderr)


def run(argv: Sequence[str] | None = None) -> int:
  """Runs the command; returns its exit code."""
  return cli.run('luna16-train', __doc__, main, FLAGS, argv)


if __name__ == '__main__':
  sys.exit(run())
