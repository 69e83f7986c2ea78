"""Measures which share of a training step is spent waiting for input.

    python benchmarks/train_step.py --model=article_cnn --augment=article_rot90

For a split held in memory, and for one streamed from files. Waiting is the
time until the next batch is there; the rest of the step is Keras's. `slowdown` compares a
step with the pipeline behind it to one on a batch that is always the same: on a CPU the
two share cores.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import pathlib
import tempfile
import time

os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')

import input_pipeline as made
import numpy as np


def main() -> None:
  """Trains some steps with each kind of input and prints the shares."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('--model', default='article_cnn')
  parser.add_argument('--augment', default='article_rot90')
  parser.add_argument('--batch_size', type=int, default=96)
  parser.add_argument('--records', type=int, default=36_000)
  parser.add_argument('--steps', type=int, default=60)
  parser.add_argument('--output', type=pathlib.Path, help='JSON file to write')
  options = parser.parse_args()
  with tempfile.TemporaryDirectory() as folder:
    source = made.make_records(pathlib.Path(folder), options.records)
    results = _measure(source, options)
  for storage, row in results.items():
    print(
      f'{storage}: {row["step_ms"]:.1f} ms per step, {row["wait_ms"]:.2f} ms of them '
      f'waiting ({row["share"]:.2%}); slowdown {row["slowdown"]:.2f}'
    )
  if options.output:
    options.output.write_text(json.dumps(results, indent=2) + '\n')


def _measure(source, options: argparse.Namespace) -> dict:
  import keras

  from luna_tfds.hounsfield import WINDOW_HU
  from model.networks import registry
  from trainer import config as config_lib
  from trainer.data import balance
  from trainer.data import input_pipeline

  network = registry.build(options.model, source.image_shape, WINDOW_HU)
  network.compile(
    optimizer='adam', loss=keras.losses.BinaryCrossentropy(from_logits=True)
  )
  megabytes = source.num_bytes // 2**20 + 1
  results = {}
  for storage, budget in (('memory', megabytes), ('files', max(megabytes // 4, 1))):
    config = config_lib.InputConfig(
      batch_size=options.batch_size,
      balance='rejection',
      augment=config_lib.AUGMENTATIONS[options.augment],
      memory_budget_mb=budget,
    )
    plan = balance.plan_balance(source, config)
    batches = iter(input_pipeline.train_batches(config, plan))
    step, wait = _steps(network, batches, options.steps)
    del batches
    same = itertools.repeat(
      (
        np.zeros((options.batch_size, *source.image_shape), np.float32),
        np.zeros(options.batch_size, np.float32),
      )
    )
    alone, _ = _steps(network, same, options.steps)
    results[storage] = {
      'step_ms': step * 1e3,
      'wait_ms': wait * 1e3,
      'share': wait / step,
      'slowdown': step / alone,
    }
  return results


def _steps(network, batches, count: int) -> tuple[float, float]:
  """Mean seconds of a step, and of those waiting, after the first five."""
  waits, start = 0.0, 0.0
  for step in range(count + 5):
    if step == 5:
      waits, start = 0.0, time.perf_counter()
    before = time.perf_counter()
    image, label = next(batches)
    waits += time.perf_counter() - before
    network.train_on_batch(image, label)
  return (time.perf_counter() - start) / count, waits / count


if __name__ == '__main__':
  main()
