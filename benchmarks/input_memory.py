"""Shows that peak memory does not grow with the dataset.

    python benchmarks/input_memory.py --output=input_memory.json

Each task runs on a dataset and on one so many times larger, each time in a process of its
own, for patches of 50x50 pixels and for cubes of 48x48x48:

    train     some steps of training; both datasets exceed the budget, so that both are
              streamed, and epochs are short, so that both go through several
    evaluate  scores every record of a split, as luna16-evaluate and validation do
    predict   cuts patches from a scan and scores them, as luna16-predict does
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
import numpy as np

# Shape of an image, network, batch size, and records of the smaller dataset.
_IMAGES = {
  'patch': ((50, 50, 1), 'article_cnn', 64, 12_000),
  'cube': ((48, 48, 48, 1), 'nodule_net', 2, 160),
}
_TASKS = ('train', 'evaluate', 'predict')


def main() -> None:
  """Runs both sizes of each task and prints the ratio of their peaks."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('--task', choices=_TASKS, help='only this task')
  parser.add_argument('--image', choices=_IMAGES, help='only these images')
  parser.add_argument('--times', type=int, default=20)
  parser.add_argument('--memory_budget_mb', type=int, default=32)
  parser.add_argument('--steps', type=int, default=60)
  parser.add_argument('--balance', default='rejection')
  parser.add_argument('--output', type=pathlib.Path, help='JSON file to write')
  parser.add_argument('--records', type=int, help=argparse.SUPPRESS)
  options = parser.parse_args()
  if options.records:
    print(json.dumps(_measure(options)))
    return
  results = {}
  for image in [options.image] if options.image else _IMAGES:
    for task in [options.task] if options.task else _TASKS:
      results[f'{task} {image}'] = _compare(options, task, image)
  if options.output:
    options.output.write_text(json.dumps(results, indent=2) + '\n')


def _compare(options: argparse.Namespace, task: str, image: str) -> dict:
  """Returns the peaks for both sizes and their ratio."""
  few = _IMAGES[image][3]
  rows = []
  for count in (few, few * options.times):
    command = [sys.executable, __file__, *sys.argv[1:], f'--task={task}']
    command += [f'--image={image}', f'--records={count}']
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    rows.append(json.loads(done.stdout.splitlines()[-1]))
  ratio = rows[1]['peak_mb'] / rows[0]['peak_mb']
  sizes = ', '.join(f'{r["images_mb"]:.0f} MB: {r["peak_mb"]:.0f} MB' for r in rows)
  print(f'{task:9}{image:6} peak memory for images of {sizes}; ratio {ratio:.3f}')
  return {'runs': rows, 'ratio': ratio}


def _measure(options: argparse.Namespace) -> dict[str, float]:
  """Runs one task on one size; what is written for it is written by another process."""
  shape = _IMAGES[options.image][0]
  with tempfile.TemporaryDirectory() as folder:
    run = {'train': _train, 'evaluate': _evaluate, 'predict': _predict}[options.task]
    run(options, pathlib.Path(folder))
  return {
    'images_mb': options.records * int(np.prod(shape)) * 2 / 1e6,
    'peak_mb': resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3,
  }


def _source(options: argparse.Namespace, folder: pathlib.Path):
  import multiprocessing

  shape, _, _, few = _IMAGES[options.image]
  # Shards of one size, as the extraction writes them: more data, more shards.
  shards = max(4 * options.records // few, 1)
  with multiprocessing.get_context('spawn').Pool(1) as pool:
    return pool.apply(made.make_records, (folder, options.records, shards, 5, shape))


def _network(options: argparse.Namespace):
  from luna_tfds.hounsfield import WINDOW_HU
  from model.networks import registry

  shape, name, _, _ = _IMAGES[options.image]
  return registry.build(name, shape, WINDOW_HU)


def _train(options: argparse.Namespace, folder: pathlib.Path) -> None:
  import keras

  from trainer import config as config_lib
  from trainer.data import balance
  from trainer.data import input_pipeline

  source = _source(options, folder)
  config = config_lib.InputConfig(
    balance=options.balance,
    augment=config_lib.AUGMENTATIONS['flips_and_rot90'],
    memory_budget_mb=options.memory_budget_mb,
    batch_size=_IMAGES[options.image][2],
  )
  assert source.num_bytes > options.memory_budget_mb * 2**20, 'give a smaller budget'
  network = _network(options)
  network.compile(
    optimizer='adam', loss=keras.losses.BinaryCrossentropy(from_logits=True)
  )
  plan = balance.plan_balance(source, config)
  batches = input_pipeline.train_batches(config, plan, steps_per_epoch=30)
  for image, label in batches.take(options.steps):
    network.train_on_batch(image, label)


def _evaluate(options: argparse.Namespace, folder: pathlib.Path) -> None:
  from trainer.scoring import scored_records

  scored_records.score_split([_inference_model(options)], _source(options, folder))


def _predict(options: argparse.Namespace, folder: pathlib.Path) -> None:
  from luna_tfds import patches
  from luna_tfds.scans import scan
  from trainer.scoring import scan_inference

  shape = (300, 512, 512)
  with open(folder / 'a.raw', 'wb') as file:
    file.truncate(2 * int(np.prod(shape)))
  (folder / 'a.mhd').write_text(
    'ObjectType = Image\nNDims = 3\nBinaryData = True\nCompressedData = False\n'
    'Offset = 0 0 0\nElementSpacing = 0.7 0.7 1.25\nDimSize = 512 512 300\n'
    'ElementType = MET_SHORT\nElementDataFile = a.raw\n'
  )
  size_xyz_mm = np.array([512 * 0.7, 512 * 0.7, 300 * 1.25])
  centers = np.random.default_rng(0).uniform(0.2, 0.8, (options.records, 3))
  spec = (
    patches.PatchSpec()
    if options.image == 'patch'
    else patches.PatchSpec((48, 48, 48), 1.0, 'cube')
  )
  scan_inference.predict_points(
    [_inference_model(options)],
    scan.open_scan(folder / 'a.mhd'),
    centers * size_xyz_mm,
    spec,
    tta=False,
  )


def _inference_model(options: argparse.Namespace):
  from trainer.scoring import inference
  from trainer.training import inference_model

  network = inference_model.build_inference_model(_network(options), 0.5, 0.1)
  return inference.InferenceModel(network)


if __name__ == '__main__':
  main()
