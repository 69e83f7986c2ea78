"""Compares ways to extract patches, on the same scans in one run.

    python benchmarks/standin.py --luna16=METADATA --output_dir=/tmp/luna16
    python benchmarks/extract.py --luna_dir=/tmp/luna16 --output=extract.json
    python benchmarks/extract.py --luna_dir=LUNA16 --copies=100

    article   the complete scan is read again for each candidate (timed on a few)
    loop      each scan is read once with SimpleITK, in a plain loop
    write     the same records without any reading: encoded, hashed and written
    tfds      as write, by TFDS's serializer and TensorFlow's writer; neither hashed nor
              ordered
    job_1     luna16-extract with one worker
    job_all   luna16-extract with one worker per core
    apart     as many jobs of one worker as there are cores, at the same time: what the
              cores allow

`article` and `loop` only extract, `write` and `tfds` only write; `job` extracts, encodes,
shuffles, writes and verifies. Rates of the job exclude its start-up, which is timed on a
download of one candidate per worker. No rate is printed where the work takes less time than
the start-up. `--copies` makes enough work of a few scans: each is used that many times, from
the cache of the system after the first time. The scans of a stand-in are read from a disk
that costs no time, but the system must find memory for every page.

It also prints how many bytes of voxels are in the patches, how many the job asks for, and
how many are in the pages of the files that it touches.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import csv
import json
import os
import pathlib
import resource
import subprocess
import sys
import tempfile
import time

from luna_tfds import tables
from luna_tfds.files import atomic_files
from luna_tfds.processes import cores as cores_lib

_SIZE = 50
_PAGE_BYTES = 4096
_CONFIGS = ('axial_50px', 'axial_50px_all')


def main() -> None:
  """Runs each way in a separate process and prints a table."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('--luna_dir', type=pathlib.Path, required=True)
  parser.add_argument('--output', type=pathlib.Path, help='JSON file for the results')
  parser.add_argument('--copies', type=int, default=1, help='uses of each scan')
  parser.add_argument('--article_candidates', type=int, default=20)
  parser.add_argument('--config', choices=_CONFIGS, help='only this config')
  parser.add_argument('--stage', help=argparse.SUPPRESS)
  options = parser.parse_args()
  if options.stage:
    print(json.dumps(_STAGES[options.stage](options)))
    return
  cores = cores_lib.num_usable_cores()
  results = {}
  with tempfile.TemporaryDirectory() as folder:
    if options.copies > 1:
      options.luna_dir = _copy(options.luna_dir, options.copies, pathlib.Path(folder))
    for config in [options.config] if options.config else _CONFIGS:
      results[config] = _compare(options, config, cores)
      _print(config, results[config])
  if options.output:
    atomic_files.write_json(options.output, {'cores': cores, **results})


def _compare(options: argparse.Namespace, config: str, cores: int) -> dict:
  """Returns the times of all ways, the ratios of their rates, and counts of bytes."""
  luna_dir = options.luna_dir
  stages = {name: _run(options, name, config) for name in _STAGES if name != 'bytes'}
  for name, workers, jobs in (
    ('job_1', 1, 1),
    ('job_all', cores, 1),
    ('apart', 1, cores),
  ):
    few = _one_candidate_per_worker(luna_dir, workers)
    stages[name] = _jobs(luna_dir, config, workers, jobs)
    startup_secs = _jobs(few, config, workers, jobs)['secs']
    working_secs = stages[name]['secs'] - startup_secs
    stages[name]['startup_secs'] = startup_secs
    stages[name]['patches_per_sec'] = (
      stages[name]['patches'] / working_secs
      if working_secs > startup_secs
      else None  # too short: the difference is mostly noise
    )
  rates = {name: stage['patches_per_sec'] for name, stage in stages.items()}
  pairs = {
    'job_1 / article': ('job_1', 'article'),
    'job_1 / loop': ('job_1', 'loop'),
    'job_1 / write': ('job_1', 'write'),
    'job_1 / tfds': ('job_1', 'tfds'),
    f'job_all / job_1 ({cores} cores)': ('job_all', 'job_1'),
    f'apart / job_1 ({cores} cores)': ('apart', 'job_1'),
  }
  ratios = {
    name: rates[a] / rates[b] if rates[a] and rates[b] else None
    for name, (a, b) in pairs.items()
  }
  return {'stages': stages, 'ratios': ratios, 'bytes': _run(options, 'bytes', config)}


def _print(config: str, result: dict) -> None:
  print(f'\n{config}')
  print(f'{"":10}{"patches":>9}{"secs":>9}{"start-up":>10}{"patches/s":>11}{"MB":>8}')
  for name, stage in result['stages'].items():
    rate = stage['patches_per_sec']
    print(
      f'{name:10}{stage["patches"]:9d}{stage["secs"]:9.2f}'
      f'{stage.get("startup_secs", 0):10.2f}'
      f'{"too short" if rate is None else format(rate, ".1f"):>11}'
      f'{stage["peak_mb"]:8.0f}'
    )
  for name, ratio in result['ratios'].items():
    print(f'  {name}: {"not enough work" if ratio is None else format(ratio, ".2f")}')
  num_bytes = result['bytes']
  print(
    '  MB of voxels: '
    + ', '.join(f'{value / 1e6:.1f} {name}' for name, value in num_bytes.items())
  )


def _run(options: argparse.Namespace, stage: str, config: str) -> dict:
  command = [sys.executable, __file__, f'--luna_dir={options.luna_dir}']
  command += [f'--article_candidates={options.article_candidates}']
  command += [f'--stage={stage}', f'--config={config}']
  return json.loads(subprocess.run(command, check=True, capture_output=True).stdout)


def _plan(options: argparse.Namespace):
  """Returns the plan: all ways extract its candidates."""
  from beam_jobs import plan as plan_lib
  import luna_tfds

  return plan_lib.make_plan(options.luna_dir, luna_tfds.CONFIGS[options.config])


def _measured(num_patches: int, start: float) -> dict:
  """Returns the rate since `start`, and the memory of this process."""
  secs = time.perf_counter() - start
  return {
    'patches': num_patches,
    'secs': secs,
    'patches_per_sec': num_patches / secs,
    'peak_mb': resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3,
  }


def _article(options: argparse.Namespace) -> dict:
  """Reads the complete scan for each of the first candidates."""
  import SimpleITK as sitk

  tasks = [task for shard in _plan(options).shards for task in shard.tasks]
  points = [(task.path, center) for task in tasks for center in task.centers_xyz_mm]
  points = points[: options.article_candidates]
  start = time.perf_counter()
  for path, center in points:
    image = sitk.ReadImage(path)
    _cut_patch(image, sitk.GetArrayFromImage(image), center)
  return _measured(len(points), start)


def _loop(options: argparse.Namespace) -> dict:
  """Reads each scan once."""
  import SimpleITK as sitk

  tasks = [task for shard in _plan(options).shards for task in shard.tasks]
  start = time.perf_counter()
  patches = []
  for task in tasks:
    image = sitk.ReadImage(task.path)
    voxels = sitk.GetArrayFromImage(image)
    patches += [_cut_patch(image, voxels, center) for center in task.centers_xyz_mm]
  return _measured(len(patches), start)


def _cut_patch(image, voxels, center):
  import numpy as np

  index = image.TransformPhysicalPointToContinuousIndex(center.tolist())
  x, y, z = (int(np.floor(i + 0.5)) for i in index)
  patch = np.full((_SIZE, _SIZE), -1000, np.int16)
  y, x = y - _SIZE // 2, x - _SIZE // 2
  depth, rows, columns = voxels.shape
  if 0 <= z < depth:
    top, left = max(y, 0), max(x, 0)
    bottom, right = min(y + _SIZE, rows), min(x + _SIZE, columns)
    if top < bottom and left < right:
      patch[top - y : bottom - y, left - x : right - x] = voxels[
        z, top:bottom, left:right
      ]
  return np.maximum(patch, -1000)


def _write(options: argparse.Namespace) -> dict:
  """Writes the records of the job as it does."""
  import numpy as np

  from luna_tfds import record_keys
  from luna_tfds import records
  from luna_tfds import tfrecord

  plan = _plan(options)
  encoder = records.RecordEncoder((_SIZE, _SIZE, 1))
  start = time.perf_counter()
  num_patches = 0
  with tempfile.TemporaryDirectory() as folder:
    for shard in plan.shards:
      made = list(_records(shard))
      order = np.argsort(record_keys.hash_keys((r.key for r in made), 0, 'shuffle'))
      encoded = [encoder.encode(made[i]) for i in order]
      path = pathlib.Path(folder, shard.fingerprint)
      with atomic_files.atomic_write(path) as partial_path:
        tfrecord.write_tfrecords(partial_path, encoded)
      num_patches += len(encoded)
  return _measured(num_patches, start)


def _write_by_tfds(options: argparse.Namespace) -> dict:
  """Writes the records of the job as a builder of TFDS does."""
  import tensorflow as tf
  from tensorflow_datasets.core import example_serializer

  from luna_tfds import records

  plan = _plan(options)
  features = records.features((_SIZE, _SIZE, 1))
  serializer = example_serializer.ExampleSerializer(features.get_serialized_info())
  start = time.perf_counter()
  num_patches = 0
  with tempfile.TemporaryDirectory() as folder:
    for shard in plan.shards:
      with tf.io.TFRecordWriter(str(pathlib.Path(folder, shard.fingerprint))) as writer:
        for record in _records(shard):
          example = features.encode_example(record._asdict())
          writer.write(serializer.serialize_example(example))
          num_patches += 1
  return _measured(num_patches, start)


def _records(shard):
  """Yields the records of a shard, with one image for all of them."""
  import numpy as np

  from luna_tfds import records

  image = np.random.default_rng(0).integers(-1000, 400, (_SIZE, _SIZE, 1), np.int16)
  for task in shard.tasks:
    for i in range(len(task.labels)):
      yield records.Record(
        image,
        int(task.labels[i]),
        task.seriesuid,
        int(task.candidate_ids[i]),
        task.subset,
        task.centers_xyz_mm[i],
        task.centers_xyz_mm[i].astype(np.float32),
        (0.7, 0.7, 1.25),
        int(task.matches.nodule_id[i]),
        float(task.matches.diameter_mm[i]),
        bool(task.matches.excluded[i]),
      )


def _bytes(options: argparse.Namespace) -> dict:
  """Counts the bytes of voxels that the job needs, asks for, and touches."""
  import luna_tfds
  from luna_tfds import extractor
  from luna_tfds.scans import scan as scan_lib

  spec = luna_tfds.CONFIGS[options.config].spec
  counts = {'in patches': 0, 'asked for': 0, 'in pages touched': 0, 'in scans': 0}
  for task in (task for shard in _plan(options).shards for task in shard.tasks):
    scan = scan_lib.open_scan(task.path)
    extraction = extractor.Extraction(scan, task.centers_xyz_mm, spec)
    scan_bytes = scan.grid.num_voxels * scan.bytes_per_voxel
    counts['in scans'] += scan_bytes
    counts['asked for'] += extraction.bytes_to_read
    counts['in patches'] += sum(
      box.num_voxels * scan.bytes_per_voxel for box in extraction.regions
    )
    if scan.raw is None:
      counts['in pages touched'] += scan_bytes
    else:
      pages = set()
      for start, num_bytes in scan.byte_ranges(extraction.regions):
        last = start + num_bytes - 1
        pages.update(range(start // _PAGE_BYTES, last // _PAGE_BYTES + 1))
      counts['in pages touched'] += len(pages) * _PAGE_BYTES
  return counts


_STAGES = {
  'article': _article,
  'loop': _loop,
  'write': _write,
  'tfds': _write_by_tfds,
  'bytes': _bytes,
}


def _jobs(luna_dir: pathlib.Path, config: str, workers: int, jobs: int) -> dict:
  """Runs a job, or several of the same at once; the time is that of the last to end."""
  with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
    runs = list(pool.map(lambda _: _job(luna_dir, config, workers), range(jobs)))
  return {
    'patches': sum(run['patches'] for run in runs),
    'secs': max(run['secs'] for run in runs),
    'peak_mb': max(run['peak_mb'] for run in runs),
  }


def _job(luna_dir: pathlib.Path, config: str, workers: int) -> dict:
  """Runs luna16-extract; the peak is that of its largest process."""
  with tempfile.TemporaryDirectory() as data_dir:
    command = [sys.executable, '-m', 'beam_jobs.extract_patches']
    command += [f'--luna_dir={luna_dir}', f'--data_dir={data_dir}']
    command += [f'--config={config}', f'--num_workers={workers}']
    start = time.perf_counter()
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    secs = time.perf_counter() - start
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
      raise SystemExit(f'the job failed with exit code {process.returncode}')
    folder = next(pathlib.Path(data_dir).glob('luna16_patches/*/*/metadata.json'))
    metadata = json.loads(folder.read_text())
  counts = [c for shards in metadata['shard_label_counts'].values() for c in shards]
  return {
    'patches': sum(map(sum, counts)),
    'secs': secs,
    'peak_mb': usage.ru_maxrss / 1e3,
  }


def _copy(luna_dir: pathlib.Path, copies: int, folder: pathlib.Path) -> pathlib.Path:
  """Writes a download in which each scan has several names; returns its folder."""
  for path in luna_dir.glob('subset*/*'):
    (folder / path.parent.name).mkdir(exist_ok=True)
    for k in range(copies if path.suffix == '.mhd' else 1):
      name = f'{path.stem}.{k}{path.suffix}' if path.suffix == '.mhd' else path.name
      (folder / path.parent.name / name).symlink_to(path.resolve())
  scans = {path.stem for path in luna_dir.glob('subset*/*.mhd')}
  for path in luna_dir.glob('[ac]*.csv'):  # annotations and candidates
    with (
      path.open(newline='') as file,
      (folder / path.name).open('w', newline='') as copy,
    ):
      header, *rows = csv.reader(file)
      writer = csv.writer(copy)
      writer.writerow(header)
      for seriesuid, *values in rows:
        if seriesuid in scans:
          writer.writerows([f'{seriesuid}.{k}', *values] for k in range(copies))
  return folder


def _one_candidate_per_worker(luna_dir: pathlib.Path, workers: int) -> pathlib.Path:
  """Returns a download of scans in as many subsets, with one positive each."""
  folder = pathlib.Path(tempfile.mkdtemp())
  for name in ('annotations.csv', 'annotations_excluded.csv'):
    (folder / name).symlink_to((luna_dir / name).resolve())
  scans = {path.parent.name: path for path in sorted(luna_dir.glob('subset*/*.mhd'))}
  rows = []
  for path in list(scans.values())[:workers]:
    (folder / path.parent.name).mkdir()
    for file in path.parent.iterdir():
      if file == path or file.suffix != '.mhd':
        (folder / path.parent.name / file.name).symlink_to(file.resolve())
    rows.append((path.stem, 0, 0, 0, 1))
  tables.write_table(folder / 'candidates.csv', 'class', rows)
  return folder


if __name__ == '__main__':
  main()
