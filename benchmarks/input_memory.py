"""Shows that peak memory does not grow with the dataset.

    python benchmarks/input_memory.py --records=12000 --times=20 --memory_budget_mb=32

Trains the article's network for some steps, each time in a process of its own, on a
dataset and on one so many times larger. Both exceed the budget, so that both are
streamed; epochs are as long as the smaller one allows, so that both go through several.
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import resource
import subprocess
import sys
import tempfile

os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')
os.environ.setdefault('CUDA_VISIBLE_DEVICES', '-1')

import input_pipeline as made


def main() -> None:
  """Runs both sizes and prints the ratio of their peaks."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('--records', type=int, default=12_000)
  parser.add_argument('--times', type=int, default=20)
  parser.add_argument('--memory_budget_mb', type=int, default=32)
  parser.add_argument('--steps', type=int, default=120)
  parser.add_argument('--balance', default='rejection')
  parser.add_argument('--output', type=pathlib.Path, help='JSON file to write')
  parser.add_argument('--only', type=int, help=argparse.SUPPRESS)
  options = parser.parse_args()
  if options.only:
    print(json.dumps(_train(options)))
    return
  rows = []
  for count in (options.records, options.records * options.times):
    command = [sys.executable, __file__, *sys.argv[1:], f'--only={count}']
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    rows.append(json.loads(done.stdout.splitlines()[-1]))
    print(f'{rows[-1]["dataset_mb"]:8.0f} MB: peak {rows[-1]["peak_mb"]:.0f} MB')
  ratio = rows[1]['peak_mb'] / rows[0]['peak_mb']
  print(f'peak ratio at {options.times} times the size: {ratio:.3f}')
  if options.output:
    options.output.write_text(
      json.dumps({'runs': rows, 'ratio': ratio}, indent=2) + '\n'
    )


def _train(options: argparse.Namespace) -> dict[str, float]:
  """Writes the records in a child, so that writing does not count, and trains."""
  with tempfile.TemporaryDirectory() as folder:
    source = _made_apart(pathlib.Path(folder), options.only)
    peak = _peak_mb(source, options)
  return {'dataset_mb': source.num_bytes / 2**20, 'peak_mb': peak}


def _made_apart(folder: pathlib.Path, count: int):
  import multiprocessing

  with multiprocessing.get_context('spawn').Pool(1) as pool:
    # Shards of one size, as the extraction writes them: more data, more shards.
    return pool.apply(made.make_records, (folder, count, max(count // 3000, 1)))


def _peak_mb(source, options: argparse.Namespace) -> float:
  import keras

  from luna_tfds.hounsfield import WINDOW_HU
  from model.networks import registry
  from trainer import config as config_lib
  from trainer.data import balance
  from trainer.data import input_pipeline

  config = config_lib.InputConfig(
    balance=options.balance,
    augment=config_lib.AUGMENTATIONS['article'],
    memory_budget_mb=options.memory_budget_mb,
  )
  assert source.num_bytes > options.memory_budget_mb * 2**20, 'give more --records'
  network = registry.build('article_cnn', source.image_shape, WINDOW_HU)
  network.compile(
    optimizer='adam', loss=keras.losses.BinaryCrossentropy(from_logits=True)
  )
  plan = balance.plan_balance(source, config)
  batches = input_pipeline.train_batches(config, plan, steps_per_epoch=30)
  for image, label in batches.take(options.steps):
    network.train_on_batch(image, label)
  return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3


if __name__ == '__main__':
  main()
