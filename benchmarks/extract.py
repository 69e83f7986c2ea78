"""Compares ways to extract patches, on the same scans in one run.

    python benchmarks/extract.py --luna_dir=LUNA16 --output=extract.json

(a) article: the complete scan is read again for each candidate;
(b) loop: each scan is read once with SimpleITK in a plain loop;
(c) job_1: luna16-extract with one worker; (d) job_all: with one worker per core.

(a) is timed on a few candidates. (a) and (b) only extract; the job also encodes, shuffles
and writes. The start-up of Beam, timed on a download of one candidate, is subtracted.
"""

from __future__ import annotations

import argparse
import json
import pathlib
import resource
import subprocess
import sys
import tempfile
import time

from luna_tfds import atomic_files
from luna_tfds import cores as cores_lib
from luna_tfds import tables

_SIZE = 50


def main() -> None:
  """Runs each way in a separate process and prints a table."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('--luna_dir', type=pathlib.Path, required=True)
  parser.add_argument('--output', type=pathlib.Path, help='JSON file for the results')
  parser.add_argument('--article_candidates', type=int, default=20)
  parser.add_argument('--stage', help=argparse.SUPPRESS)
  parser.add_argument('--config', help=argparse.SUPPRESS)
  options = parser.parse_args()
  if options.stage:
    print(json.dumps(_stage(options)))
    return
  cores = cores_lib.num_usable_cores()
  results = {}
  for config in ('axial_50px', 'axial_50px_all'):
    stages = {
      'article': _run(options, 'article', config),
      'loop': _run(options, 'loop', config),
      'startup': _job(_one_candidate(options.luna_dir), config, 1),
      'job_1': _job(options.luna_dir, config, 1),
      'startup_all': _job(_one_candidate(options.luna_dir, 2), config, cores),
      'job_all': _job(options.luna_dir, config, cores),
    }
    results[config] = _ratios(stages, cores)
    _print(config, stages, results[config]['ratios'])
  if options.output:
    atomic_files.write_json(options.output, {'cores': cores, **results})


def _ratios(stages: dict[str, dict], cores: int) -> dict:
  for job, startup in (('job_1', 'startup'), ('job_all', 'startup_all')):
    working = max(stages[job]['secs'] - stages[startup]['secs'], 1e-3)
    stages[job]['working_secs'] = working
    stages[job]['patches_per_sec'] = stages[job]['patches'] / working
  speed = {name: stage['patches_per_sec'] for name, stage in stages.items()}
  return {
    'stages': stages,
    'ratios': {
      'job_1 / article': speed['job_1'] / speed['article'],
      'job_1 / loop': speed['job_1'] / speed['loop'],
      f'job_all / job_1 ({cores} cores)': speed['job_all'] / speed['job_1'],
    },
  }


def _print(config: str, stages: dict[str, dict], ratios: dict[str, float]) -> None:
  print(f'\n{config}')
  print(
    f'{"":12}{"patches":>9}{"secs":>9}{"patches/s":>11}{"MB read":>10}{"peak MB":>9}'
  )
  for name, stage in stages.items():
    print(
      f'{name:12}{stage["patches"]:9d}{stage["secs"]:9.2f}'
      f'{stage["patches_per_sec"]:11.1f}{stage["bytes_read"] / 1e6:10.1f}'
      f'{stage["peak_mb"]:9.0f}'
    )
  for name, ratio in ratios.items():
    print(f'  {name}: {ratio:.2f}')


def _run(options: argparse.Namespace, stage: str, config: str) -> dict:
  command = [sys.executable, __file__, f'--luna_dir={options.luna_dir}']
  command += [f'--article_candidates={options.article_candidates}']
  command += [f'--stage={stage}', f'--config={config}']
  return json.loads(subprocess.run(command, check=True, capture_output=True).stdout)


def _stage(options: argparse.Namespace) -> dict:
  """Times (a) or (b), without imports."""
  import numpy as np
  import SimpleITK as sitk

  from beam_jobs import plan as plan_lib
  import luna_tfds

  # All ways extract the candidates of the plan.
  plan = plan_lib.make_plan(options.luna_dir, luna_tfds.CONFIGS[options.config])
  tasks = [task for shard in plan.shards for task in shard.tasks]
  patches, num_bytes, scans = [], 0, 0
  start = time.perf_counter()
  for task in tasks:
    image = voxels = None
    for center in task.centers_xyz_mm:
      if image is None or options.stage == 'article':
        image = sitk.ReadImage(task.path)
        voxels = sitk.GetArrayFromImage(image)
        num_bytes += voxels.nbytes
        scans += 1
      patches.append(_extract_patch(np, image, voxels, center))
      if options.stage == 'article' and len(patches) == options.article_candidates:
        break
    if options.stage == 'article' and len(patches) >= options.article_candidates:
      break
  secs = time.perf_counter() - start
  return {
    'patches': len(patches),
    'secs': secs,
    'patches_per_sec': len(patches) / secs,
    'secs_per_scan': secs / scans,
    'bytes_read': num_bytes,
    'peak_mb': resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3,
  }


def _extract_patch(np, image, voxels, center):
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


def _job(luna_dir: pathlib.Path, config: str, workers: int) -> dict:
  with tempfile.TemporaryDirectory() as data_dir:
    command = [sys.executable, '-m', 'beam_jobs.extract_patches']
    command += [f'--luna_dir={luna_dir}', f'--data_dir={data_dir}']
    command += [f'--config={config}', f'--num_workers={workers}']
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    start = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    secs = time.perf_counter() - start
    after = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    folder = next(pathlib.Path(data_dir).glob('luna16_patches/*/*/metadata.json'))
    metadata = json.loads(folder.read_text())
  patches = sum(
    sum(counts)
    for shards in metadata['shard_label_counts'].values()
    for counts in shards
  )
  return {
    'patches': patches,
    'secs': secs,
    'patches_per_sec': patches / secs,
    'bytes_read': metadata['counts']['bytes_read'],
    # Of the largest process so far.
    'peak_mb': max(before, after) / 1e3,
  }


def _one_candidate(luna_dir: pathlib.Path, count: int = 1) -> pathlib.Path:
  """Returns a download of `count` scans in as many subsets, with one positive each."""
  folder = pathlib.Path(tempfile.mkdtemp())
  for name in ('annotations.csv', 'annotations_excluded.csv'):
    (folder / name).symlink_to((luna_dir / name).resolve())
  scans = {path.parent.name: path for path in sorted(luna_dir.glob('subset*/*.mhd'))}
  rows = []
  for path in list(scans.values())[:count]:
    (folder / path.parent.name).mkdir()
    for file in path.parent.glob(f'{path.stem}.*'):
      (folder / path.parent.name / file.name).symlink_to(file.resolve())
    rows.append((path.stem, 0, 0, 0, 1))
  tables.write_table(folder / 'candidates.csv', 'class', rows)
  return folder


if __name__ == '__main__':
  main()
