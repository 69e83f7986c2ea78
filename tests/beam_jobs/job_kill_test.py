"""Slow tests: a job that is killed repeatedly, and a large one."""

import csv
import os
import random
import signal
import subprocess
import sys

import fake_data
import numpy as np
import pytest
import tensorflow_datasets as tfds

from luna_tfds import phantom

pytestmark = pytest.mark.slow


def start(luna_dir, data_dir, workers):
  return subprocess.Popen(
    [
      sys.executable,
      '-m',
      'beam_jobs.extract_patches',
      f'--luna_dir={luna_dir}',
      f'--data_dir={data_dir}',
      '--config=axial_50px_all',
      f'--num_workers={workers}',
    ],
    start_new_session=True,
    stderr=subprocess.PIPE,
    text=True,
  )


def files(folder):
  return {
    str(path.relative_to(folder)): path.read_bytes()
    for path in sorted(folder.rglob('*'))
    if path.is_file()
  }


@pytest.fixture(scope='module')
def luna_dir(tmp_path_factory):
  folder = tmp_path_factory.mktemp('luna16')
  phantom.write_download(folder, 30, seed=1)
  return folder


@pytest.mark.parametrize('workers', [1, 2])
def test_a_job_killed_at_random_times_writes_the_same_dataset(
  luna_dir, tmp_path, workers
):
  uninterrupted, killed = tmp_path / 'a', tmp_path / 'b'
  with start(luna_dir, uninterrupted, 1) as job:
    _, err = job.communicate()
  assert job.returncode == 0, err
  rng = random.Random(workers)
  kills = 0
  # Kills all processes or only the launcher, whose workers continue for a while. The
  # times cover start-up, writing and registration.
  for min_secs in (1.0, 2.0, 3.0, 3.5, 4.0, 5.0):
    with start(luna_dir, killed, workers) as job:
      try:
        job.wait(min_secs + rng.uniform(0, 1))
      except subprocess.TimeoutExpired:
        if rng.random() < 0.5:
          os.killpg(job.pid, signal.SIGKILL)
        else:
          job.kill()
        kills += 1
      else:
        break
  with start(luna_dir, killed, workers) as last:
    _, err = last.communicate()
  assert last.returncode == 0, err
  assert kills
  assert files(killed) == files(uninterrupted)


def test_two_workers_lose_none_of_300_000_records(tmp_path):
  """The local runner loses elements when much data is passed between stages."""
  download = fake_data.write_download(tmp_path / 'luna16')
  rng = np.random.default_rng(0)
  scans = [scan.seriesuid for scan in fake_data.default_scans()]
  count = 300_000
  with open(download.folder / 'candidates.csv', 'w', newline='') as file:
    writer = csv.writer(file)
    writer.writerow(['seriesuid', 'coordX', 'coordY', 'coordZ', 'class'])
    points = rng.uniform(-30, 30, (count, 3)).round(3)
    for k, point in enumerate(points):
      writer.writerow([scans[k % len(scans)], *point, int(k % 50 == 0)])
  flags = ['--config=axial_50px_all', '--patch_shape=8,8']
  command = [
    sys.executable,
    '-m',
    'beam_jobs.extract_patches',
    '--num_workers=2',
    *flags,
  ]
  for attempt in range(2):
    data_dir = tmp_path / f'data{attempt}'
    subprocess.run(
      [*command, f'--luna_dir={download.folder}', f'--data_dir={data_dir}'], check=True
    )
    folder = next(data_dir.glob('luna16_patches/*/1.0.0'))
    builder = tfds.builder_from_directory(folder)
    seen = np.zeros(count, bool)
    for split in builder.info.splits:
      dataset = builder.as_dataset(
        split=split, decoders={'image': tfds.decode.SkipDecoding()}
      )
      for batch in dataset.batch(4096).as_numpy_iterator():
        assert not seen[batch['candidate_id']].any()
        seen[batch['candidate_id']] = True
    assert seen.all()
