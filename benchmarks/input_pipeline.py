"""Compares ways to feed balanced batches, on the same records in one run.

    python benchmarks/input_pipeline.py --output=input.json
    python benchmarks/input_pipeline.py --data_dir=DATA --dataset=luna16_patches/axial_50px

The ways:

- `raw`: reads the files with tf.data.TFRecordDataset in batches of 512, and parses
  nothing. `raw_blocks`: the same, four files side by side, as this project does.
- `files_*`: this project's input with a memory budget of a quarter of the records, so that
  they are streamed. `memory_*`: with a budget that holds all of them.
- `tfdata_*`: tf.data's `rejection_resample` and operations on single records.
- `numpy_*`: patches of an HDF5 file in RAM, indices shuffled by NumPy, SciPy operations on
  single images.
- `torch_*`: PyTorch's DataLoader over patches in RAM, with one worker for each core, a
  weighted sampler and the same SciPy operations. Left out if torch is not installed.

Each balanced (`*_balanced`), with flips and rotations by 90 degrees as well
(`*_flips_and_rot90`), and with all augmentations (`*_all`).

Two rates are measured: `out`, the records in the batches (int16 HU and labels; float32 if
augmented), and `in`, the records read to make them, rejected ones included. `raw` and
`tfdata` are compared by `in`, as all of them read rejected records; `numpy` and `torch`, which
draw without rejection, by `out`. The best of several rounds counts, because the machine may
be shared.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time

os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')
os.environ.setdefault('CUDA_VISIBLE_DEVICES', '-1')

import numpy as np

_BATCH = 96
_SHAPE = (50, 50, 1)


def main() -> None:
  """Runs every way in turn, some rounds, and prints a table."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('--data_dir', default='~/tensorflow_datasets')
  parser.add_argument('--dataset', help='made up records if not given')
  parser.add_argument('--split', default='train')
  parser.add_argument('--records', type=int, default=64_000, help='to make up')
  parser.add_argument('--secs', type=float, default=2.0, help='of each measurement')
  parser.add_argument('--rounds', type=int, default=3)
  parser.add_argument('--output', type=pathlib.Path, help='JSON file to write')
  parser.add_argument('--torch_hdf5', help=argparse.SUPPRESS)
  options = parser.parse_args()
  if options.torch_hdf5:
    print(json.dumps(_torch_stages(options)))
    return
  with tempfile.TemporaryDirectory() as folder:
    source = _source(options, pathlib.Path(folder))
    results = _measure(source, options, pathlib.Path(folder))
  results['ratios'] = _ratios(results)
  _print(results)
  if options.output:
    options.output.write_text(json.dumps(results, indent=2) + '\n')


def make_records(
  folder: pathlib.Path,
  count: int,
  shards: int = 16,
  ratio: int = 5,
  image_shape: tuple[int, ...] = _SHAPE,
):
  """Writes records of noise, `ratio` non-nodules for each nodule; returns their source."""
  from luna_tfds import records
  from luna_tfds import tfrecord
  from trainer.data import split_source

  encoder = records.RecordEncoder(image_shape)
  rng = np.random.default_rng(0)
  noise = rng.integers(-1000, 400, (64, *image_shape)).astype(np.int16)
  slices, positives = [], 0
  for shard, numbers in enumerate(np.array_split(np.arange(count), shards)):
    path = folder / records.shard_name('train', shard, shards)
    labels = rng.random(len(numbers)) < 1 / (ratio + 1)
    uid = f'1.3.6.1.4.1.14519.5.2.1.6279.6001.{10**29 + shard}'
    tfrecord.write_tfrecords(
      path,
      (
        encoder.encode(records.Record(noise[n % 64], int(y), uid, int(n)))
        for n, y in zip(numbers, labels)
      ),
    )
    slices.append(split_source.ShardSlice(str(path), 0, len(numbers)))
    positives += int(labels.sum())
  return split_source.SplitSource(
    split='train',
    slices=tuple(slices),
    image_shape=image_shape,
    label_counts=(count - positives, positives),
    num_bytes=count * records.record_bytes(image_shape),
    fingerprint='made up',
  )


def _source(options: argparse.Namespace, folder: pathlib.Path):
  if not options.dataset:
    return make_records(folder, options.records)
  from trainer.data import dataset

  opened = dataset.open_dataset(options.data_dir, options.dataset)
  return opened.open_split(options.split)


def _measure(source, options: argparse.Namespace, folder: pathlib.Path) -> dict:
  from trainer import config as config_lib
  from trainer.data import balance

  images, labels = _load(source)
  hdf5 = _write_hdf5(images, labels, folder)
  ways = {**_own_ways(source), **_tfdata_ways(source), **_numpy_ways(images, labels)}
  own = config_lib.InputConfig(batch_size=_BATCH, balance='rejection')
  reads_per_kept_record = balance.plan_balance(source, own).reads_per_kept_record
  best: dict[str, float] = {}
  for _ in range(options.rounds):
    for name, make in ways.items():
      best[name] = max(best.get(name, 0.0), _rate(make(), options.secs))
  if importlib.util.find_spec('torch'):
    command = [sys.executable, __file__, f'--torch_hdf5={hdf5}']
    command += [f'--secs={options.secs}', f'--rounds={options.rounds}']
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    best.update(json.loads(done.stdout.splitlines()[-1]))
  else:
    print('torch is not installed: the DataLoader is left out', file=sys.stderr)
  reads = {
    name: rate
    * (reads_per_kept_record if name.startswith(('files', 'memory', 'tfdata')) else 1)
    for name, rate in best.items()
  }
  return {
    'cores': len(os.sched_getaffinity(0)),
    'records': source.num_records,
    'label_counts': source.label_counts,
    'reads_per_kept_record': reads_per_kept_record,
    'out_per_sec': best,
    'in_per_sec': reads,
  }


def _rate(batches, secs: float) -> float:
  """Records in batches per second, from the third batch on."""
  batches = iter(batches)
  for _ in range(3):
    next(batches)
  count, start = 0, time.perf_counter()
  while (spent := time.perf_counter() - start) < secs:
    batch = next(batches)
    count += len(batch[0] if isinstance(batch, (tuple, list)) else batch)
  return count / spent


def _own_ways(source) -> dict:
  import tensorflow as tf

  from trainer import config as config_lib
  from trainer.data import balance
  from trainer.data import input_pipeline

  paths = [item.path for item in source.slices]
  quarter = max(source.num_bytes // 4 // 2**20, 1)

  def ours(recipe, budget):
    """Returns this project's stream."""
    config = config_lib.InputConfig(
      batch_size=_BATCH,
      balance='rejection',
      augment=config_lib.AUGMENTATIONS[recipe],
      memory_budget_mb=budget,
    )
    plan = balance.plan_balance(source, config)
    return input_pipeline.train_batches(config, plan)

  def blocks():
    """Returns serialised records, read from four files at once."""
    files = tf.data.Dataset.from_tensor_slices(paths).repeat()
    return files.interleave(
      lambda path: tf.data.TFRecordDataset(path, buffer_size=2**20).batch(512),
      cycle_length=4,
      num_parallel_calls=4,
    )

  ways = {
    'raw': lambda: tf.data.TFRecordDataset(paths).repeat().batch(512),
    'raw_blocks': blocks,
  }
  for storage, budget in (
    ('files', quarter),
    ('memory', source.num_bytes // 2**20 + 1),
  ):
    for way, recipe in (
      ('balanced', 'none'),
      ('flips_and_rot90', 'flips_and_rot90'),
      ('all', 'standard'),
    ):
      ways[f'{storage}_{way}'] = lambda recipe=recipe, budget=budget: ours(
        recipe, budget
      )
  return ways


def _tfdata_ways(source) -> dict:
  """As the guides write it: parse, shuffle, rejection_resample, augment, batch."""
  import tensorflow as tf

  from luna_tfds import records
  from trainer import config as config_lib
  from trainer.data import augment

  paths = [item.path for item in source.slices]
  prior = [1 - source.nodule_fraction, source.nodule_fraction]

  def parse(serialized):
    parsed = records.parse_batch(serialized[tf.newaxis], _SHAPE, ('image', 'label'))
    return parsed['image'][0], tf.cast(parsed['label'][0], tf.int32)

  def make(recipe):
    """Returns a stream that tf.data's `rejection_resample` balances."""

    def vary(number, example):
      image, label = example[1]
      image = augment.augment(
        image[tf.newaxis], config_lib.AUGMENTATIONS[recipe], tf.stack([0, number])
      )
      return image[0], label

    dataset = tf.data.Dataset.from_tensor_slices(paths).shuffle(len(paths)).repeat()
    dataset = dataset.interleave(
      tf.data.TFRecordDataset, cycle_length=4, num_parallel_calls=tf.data.AUTOTUNE
    )
    dataset = dataset.map(parse, num_parallel_calls=tf.data.AUTOTUNE).shuffle(2000)
    dataset = dataset.rejection_resample(
      lambda image, label: label, target_dist=[0.5, 0.5], initial_dist=prior
    )
    dataset = dataset.enumerate().map(vary, num_parallel_calls=tf.data.AUTOTUNE)
    return dataset.batch(_BATCH).prefetch(tf.data.AUTOTUNE)

  return {
    'tfdata_balanced': lambda: make('none'),
    'tfdata_flips_and_rot90': lambda: make('flips_and_rot90'),
    'tfdata_all': lambda: make('standard'),
  }


def _load(source) -> tuple[np.ndarray, np.ndarray]:
  from trainer.data import input_pipeline

  images = np.empty((source.num_records, *source.image_shape), np.int16)
  labels = np.empty(source.num_records, np.int64)
  start = 0
  for batch in input_pipeline.evaluation_batches(source, 512, ('image', 'label')):
    stop = start + len(batch['label'])
    images[start:stop], labels[start:stop] = batch['image'], batch['label']
    start = stop
  return images, labels


def _write_hdf5(images, labels, folder: pathlib.Path) -> pathlib.Path:
  """An .npz in place of the HDF5 where h5py is missing; both are read into RAM."""
  try:
    import h5py
  except ImportError:
    np.savez(folder / 'patches.npz', X=images, Y=labels)
    return folder / 'patches.npz'
  with h5py.File(folder / 'patches.h5', 'w') as file:
    file['X'], file['Y'] = images, labels
  return folder / 'patches.h5'


def _read_hdf5(path: str) -> tuple[np.ndarray, np.ndarray]:
  if path.endswith('.npz'):
    with np.load(path) as file:
      return file['X'], file['Y']
  import h5py

  with h5py.File(path, 'r') as file:
    return file['X'][:], file['Y'][:]


def _numpy_ways(images, labels) -> dict:
  groups = [np.flatnonzero(labels == label) for label in (0, 1)]

  def make(vary):
    """Yields balanced batches, endlessly."""
    rng = np.random.default_rng(0)
    count = min(map(len, groups))
    while True:
      epoch = np.concatenate([rng.permutation(g)[:count] for g in groups])
      rng.shuffle(epoch)
      for start in range(0, len(epoch) - _BATCH + 1, _BATCH):
        picks = epoch[start : start + _BATCH]
        batch = images[picks]
        if vary:
          batch = np.stack([vary(image, rng) for image in batch])
        yield batch, labels[picks].astype(np.float32)

  return {
    'numpy_balanced': lambda: make(None),
    'numpy_flips_and_rot90': lambda: make(_turn),
    'numpy_all': lambda: make(_vary_all),
  }


def _turn(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
  choice = rng.integers(8)
  if choice & 4:
    image = image.transpose(1, 0, 2)
  return np.ascontiguousarray(
    image[:: -1 if choice & 2 else 1, :: -1 if choice & 1 else 1]
  )


def _vary_all(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
  """What the recipe `standard` does, on one image [height, width, 1]."""
  from scipy import ndimage

  image = _turn(image, rng)[..., 0].astype(np.float32)
  angle, grow, stretch, y, x, share, contrast, shift = rng.uniform(-1, 1, 8)
  angle = np.radians(45) * angle
  zoom = 1.2**grow * np.array([1.05**stretch, 1.05**-stretch])
  turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
  inverse = np.linalg.inv(turn @ np.diag(zoom))
  center = (np.array(image.shape) - 1) / 2
  offset = center - inverse @ (center + 4 * np.array([y, x]))
  image = ndimage.affine_transform(image, inverse, offset, order=1, mode='reflect')
  soft = image
  for axis in (0, 1):
    soft = ndimage.convolve1d(soft, [0.25, 0.5, 0.25], axis)
  image += 0.5 * share * (soft - image)
  image = -1000 + (image + 1000) * (1 + 0.12 * contrast) + 0.12 * shift * 700
  noise = rng.standard_normal(image.shape, np.float32) * rng.uniform(0, 42)
  return (image + noise)[..., np.newaxis].astype(np.float32)


def _torch_stages(options: argparse.Namespace) -> dict[str, float]:
  """In a process of its own: workers are forked, which TensorFlow does not survive."""
  import torch

  images, labels = _read_hdf5(options.torch_hdf5)
  weights = 1 / np.bincount(labels)[labels]

  class Patches(torch.utils.data.Dataset):
    def __init__(self, vary):
      self._vary, self._rng = vary, np.random.default_rng(0)

    def __len__(self):
      return len(images)

    def __getitem__(self, index):
      image = images[index]
      if self._vary:
        image = self._vary(image, self._rng)
      return torch.from_numpy(image), np.float32(labels[index])

  def make(vary):
    """Returns a balanced DataLoader."""
    sampler = torch.utils.data.WeightedRandomSampler(weights, 10**6)
    return torch.utils.data.DataLoader(
      Patches(vary),
      batch_size=_BATCH,
      sampler=sampler,
      num_workers=len(os.sched_getaffinity(0)),
    )

  ways = {
    'torch_balanced': None,
    'torch_flips_and_rot90': _turn,
    'torch_all': _vary_all,
  }
  return {
    name: max(_rate(make(vary), options.secs) for _ in range(options.rounds))
    for name, vary in ways.items()
  }


def _ratios(results: dict) -> dict[str, float]:
  reads, out = results['in_per_sec'], results['out_per_sec']
  ratios = {}
  for storage in ('files', 'memory'):
    for way in ('balanced', 'flips_and_rot90'):
      for raw in ('raw', 'raw_blocks'):
        ratios[f'{storage}_{way} / {raw}, in'] = reads[f'{storage}_{way}'] / reads[raw]
    for way in ('balanced', 'flips_and_rot90', 'all'):
      for other in ('tfdata', 'numpy', 'torch'):
        if f'{other}_{way}' in out:
          ratios[f'{storage}_{way} / {other}_{way}, out'] = (
            out[f'{storage}_{way}'] / out[f'{other}_{way}']
          )
  return ratios


def _print(results: dict) -> None:
  print(f'{results["records"]} records, {results["cores"]} cores')
  print(f'{"":18}{"in/s":>12}{"out/s":>12}')
  for name, rate in results['out_per_sec'].items():
    print(f'{name:18}{results["in_per_sec"][name]:12,.0f}{rate:12,.0f}')
  for name, ratio in results['ratios'].items():
    print(f'  {name}: {ratio:.2f}')


if __name__ == '__main__':
  main()
