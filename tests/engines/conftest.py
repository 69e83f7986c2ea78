"""Fixtures of the tests on engines: a download, its dataset as the local runner writes it."""

import contextlib
import hashlib
import os
import signal
import subprocess
import sys

import fake_data
import pytest

_CONFIG = 'cube_48mm_all'
_FLAGS = [f'--config={_CONFIG}']


class Extraction:
  """A running `luna16-extract`, in a working folder that no worker has."""

  def __init__(self, luna_dir, data_dir, options, log):
    self.data_dir = data_dir
    self._log = log
    flags = [f'--luna_dir={luna_dir}', f'--data_dir={data_dir}', *_FLAGS, *options]
    with log.open('wb') as file:
      self._process = subprocess.Popen(
        [sys.executable, '-m', 'beam_jobs.extract_patches', *flags],
        stdin=subprocess.DEVNULL,
        stdout=file,
        stderr=file,
        start_new_session=True,  # `stop` also ends the job server that Beam starts
      )

  def send(self, signum, send):
    """Sends a signal with `os.kill`, or with `os.killpg` also to processes it started."""
    send(self._process.pid, signum)

  @property
  def dataset(self):
    return self.data_dir / 'luna16_patches' / _CONFIG / '1.0.0'

  def is_running(self):
    return self._process.poll() is None

  def finished_shards(self):
    """Returns the inode of the file of each finished shard."""
    inodes = set()
    for path in self.dataset.with_name('1.0.0.job').glob('*.json'):
      part = self.dataset.with_name('1.0.0.incomplete') / f'{path.stem}.part'
      if '.' not in path.stem and part.exists():
        inodes.add(part.stat().st_ino)
    return inodes

  def shards(self):
    """Returns the inodes of the shards of the dataset."""
    return {path.stat().st_ino for path in self.dataset.glob('*.tfrecord-*')}

  def wait(self, timeout_secs=600):
    """Waits for the end; returns the exit code."""
    try:
      return self._process.wait(timeout_secs)
    finally:
      self.stop()

  def stop(self):
    with contextlib.suppress(ProcessLookupError):
      os.killpg(self._process.pid, signal.SIGKILL)
    self._process.wait()

  def log(self):
    return self._log.read_text()

  def sha256(self):
    """Returns a hash of all files of the dataset."""
    total = hashlib.sha256()
    for path in sorted(self.dataset.iterdir()):
      total.update(f'{path.name} {len(path.read_bytes())}\n'.encode())
      total.update(path.read_bytes())
    return total.hexdigest()


@pytest.fixture(scope='session')
def many_scans(tmp_path_factory):
  """A download of 120 scans, which gives 20 shards."""
  scans = [fake_data.make_scan(seed, seed % 10) for seed in range(120)]
  download = fake_data.write_download(tmp_path_factory.mktemp('many'), scans)
  # After its first shards, a job lasts until a test has ended it.
  rows = [row for row in download.candidates for _ in range(4)]
  fake_data.write_candidates(download.folder / 'candidates.csv', rows)
  return download.folder


@pytest.fixture
def extraction(many_scans, tmp_path):
  """Returns a function that starts the job with options of an engine."""
  started = []

  def start(options, data_dir=None):
    log = tmp_path / f'extract{len(started)}.log'
    data_dir = data_dir or tmp_path / f'data{len(started)}'
    started.append(Extraction(many_scans, data_dir, options, log))
    return started[-1]

  yield start
  for each in started:
    each.stop()


@pytest.fixture(scope='session')
def local_sha256(many_scans, tmp_path_factory):
  """The hash of the dataset that the local runner writes."""
  folder = tmp_path_factory.mktemp('local')
  job = Extraction(many_scans, folder / 'data', ['--num_workers=1'], folder / 'log')
  assert job.wait() == 0, job.log()
  return job.sha256()
