"""Slow tests: the job reads from and writes to servers of stores on loopback."""

import itertools
import json
import os
import random
import re
import signal
import subprocess
import sys
import threading
import time

import fake_data
import fake_store
from fake_store import contents
import fsspec
import pytest

from luna_tfds import phantom
from luna_tfds.files import store_requests

pytestmark = pytest.mark.slow

CONFIG = 'axial_50px_all'
DATASET = f'luna16_patches/{CONFIG}/1.0.0'
# What a store may send in addition to voxels: CSV files, headers, lists, the job's state.
OTHER_BYTES = 200_000


def same_dataset(got, expected):
  """Compares all but the times and ETags in shard_results.json."""
  state = f'{DATASET}/shard_results.json'
  assert got.keys() == expected.keys()
  assert [k for k in got if got[k] != expected[k] and k != state] == []


@pytest.fixture(scope='module')
def download(tmp_path_factory):
  """A download of five scans, one of them compressed."""
  fields = {1: {'compressed': True}, 2: {'flips': (True, True, False)}}
  scans = [fake_data.make_scan(k, k, **fields.get(k, {})) for k in (0, 1, 2, 8, 9)]
  return fake_data.write_download(tmp_path_factory.mktemp('luna16'), scans)


@pytest.fixture(scope='module')
def local(download, tmp_path_factory, extract):
  """The contents of the dataset that a local job extracts from `download`."""
  folder = tmp_path_factory.mktemp('local')
  assert extract(download.folder, folder, f'--config={CONFIG}') == 0
  return contents(folder)


@pytest.fixture(scope='module')
def luna_dir(download, store):
  """The URL of `download`."""
  return fake_store.upload_folder(download.folder, store.path('luna16'))


@pytest.fixture
def data_dir(store):
  folder = store.path('data')
  yield folder
  folder.rmtree()


def start(luna_dir, data_dir, *flags):
  return subprocess.Popen(
    [
      sys.executable,
      '-m',
      'beam_jobs.extract_patches',
      f'--luna_dir={luna_dir}',
      f'--data_dir={data_dir}',
      f'--config={CONFIG}',
      *flags,
    ],
    start_new_session=True,
    stderr=subprocess.PIPE,
    text=True,
  )


def test_from_a_bucket_to_a_bucket(luna_dir, data_dir, local, extract):
  assert extract(luna_dir, data_dir, f'--config={CONFIG}') == 0
  same_dataset(contents(data_dir), local)


@pytest.mark.parametrize('config', ['axial_50px', 'cube_48mm'])
def test_only_the_rows_of_the_patches_are_transferred(
  store, data_dir, tmp_path, extract, config
):
  shape = {'shape_zyx': (60, 400, 420), 'spacing_xyz_mm': (0.7, 0.7, 1.5)}
  scans = [fake_data.make_scan(seed, seed, **shape) for seed in (0, 8)]
  fake_data.write_download(tmp_path / 'luna16', scans)
  luna_dir = fake_store.upload_folder(tmp_path / 'luna16', store.path('large'))
  first = len(store.requests)
  assert extract(luna_dir, data_dir, f'--config={config}') == 0
  requests = store.requests[first:]
  (info,) = data_dir.glob('*/*/*/metadata.json')
  wanted = json.loads(info.read_text())['counts']['bytes_read']
  voxels = sum(r.sent for r in requests if r.key.endswith('.raw') and r.method == 'GET')
  assert wanted > 100_000
  # Less where patches overlap, and more where gaps between them are read with them.
  assert 0 < voxels <= wanted * (1.05 if config == 'axial_50px' else 1.25)
  assert sum(r.sent for r in requests if r.method == 'GET') < voxels + OTHER_BYTES
  stored = sum(scan.voxels.nbytes for scan in scans)
  assert voxels < stored / (10 if config == 'axial_50px' else 1.2)


def test_two_workers_write_the_same(luna_dir, data_dir, local):
  with start(luna_dir, data_dir, '--num_workers=2') as job:
    _, err = job.communicate()
  assert job.returncode == 0, err
  same_dataset(contents(data_dir), local)


def test_a_killed_job_is_continued(data_dir, tmp_path):
  phantom.write_download(tmp_path / 'luna16', 20, seed=1)
  with start(tmp_path / 'luna16', tmp_path / 'data') as job:
    _, err = job.communicate()
  assert job.returncode == 0, err
  rng = random.Random(1)
  kills = finished = 0
  for min_secs in (2.0, 4.0, 6.0, 7.0):
    with start(tmp_path / 'luna16', data_dir, '--num_workers=2') as job:
      try:
        job.wait(min_secs + rng.uniform(0, 1))
      except subprocess.TimeoutExpired:
        # All processes, or only the launcher, whose workers end a little later.
        if rng.random() < 0.5:
          os.killpg(job.pid, signal.SIGKILL)
        else:
          job.kill()
        kills += 1
        state = data_dir / f'{DATASET}.job'
        finished = max(finished, len(list(state.glob('*.json'))))
      else:
        break
  with start(tmp_path / 'luna16', data_dir) as last:
    _, err = last.communicate()
  assert last.returncode == 0, err
  assert kills
  same_dataset(contents(data_dir), contents(tmp_path / 'data'))


def test_two_jobs_at_the_same_time(luna_dir, data_dir, local):
  jobs = [start(luna_dir, data_dir, '--num_workers=1') for _ in range(2)]
  for job in jobs:
    with job:
      _, err = job.communicate()
    assert job.returncode == 0, err
  same_dataset(contents(data_dir), local)


@pytest.mark.parametrize(
  'fault',
  [
    fake_store.ERROR_500,
    fake_store.ERROR_503,
    fake_store.RESET,
    fake_store.RESET_IN_BODY,
  ],
)
def test_failing_requests_are_repeated(
  store, luna_dir, data_dir, local, extract, fault
):
  number = itertools.count(1)
  lock = threading.Lock()

  def every_fifth(method, key):
    with lock:
      return fault if next(number) % 5 == 0 else None

  with store.failing(every_fifth):
    assert extract(luna_dir, data_dir, f'--config={CONFIG}') == 0
  assert next(number) > 50
  same_dataset(contents(data_dir), local)


def test_a_request_without_answer_is_repeated(
  store, luna_dir, data_dir, local, extract, monkeypatch
):
  timeouts = store.server.timeouts(fake_store.NO_ANSWER_SECS / 3)
  monkeypatch.setitem(fsspec.config.conf, store.scheme, timeouts)
  store_requests.forget_stores()
  number = itertools.count(1)

  def some(method, key):
    return fake_store.NO_ANSWER if next(number) % 40 == 0 else None

  with store.failing(some):
    assert extract(luna_dir, data_dir, f'--config={CONFIG}') == 0
  store_requests.forget_stores()
  same_dataset(contents(data_dir), local)


def test_an_outage_ends_the_job_and_no_scan_is_lost(
  store, luna_dir, data_dir, local, extract, failure
):
  def no_voxels(method, key):
    is_read = method == 'GET' and key.endswith('2.raw')
    return fake_store.ERROR_500 if is_read else None

  flags = [f'--config={CONFIG}', '--max_failed_scans=100']
  with store.failing(no_voxels):
    assert extract(luna_dir, data_dir, *flags) == 1
  line = failure()
  assert f'{luna_dir}/subset' in line
  assert 'run the same command again to continue' in line
  assert extract(luna_dir, data_dir, *flags) == 0
  same_dataset(contents(data_dir), local)


def test_a_scan_that_changes_is_noticed(store, data_dir, tmp_path, extract, failure):
  scans = [fake_data.make_scan(seed, seed) for seed in (0, 8)]
  download = fake_data.write_download(tmp_path / 'luna16', scans)
  luna_dir = fake_store.upload_folder(tmp_path / 'luna16', store.path('changing'))
  assert extract(luna_dir, data_dir, f'--config={CONFIG}') == 0
  path = luna_dir / 'subset0' / download.paths['1.2.826.0.0'].with_suffix('.raw').name
  data = path.read_bytes()
  path.write_bytes(data[:-2] + b'xy')
  assert extract(luna_dir, data_dir, f'--config={CONFIG}') == 2
  assert 'is older than the input file' in failure()
  path.write_bytes(data)
  assert extract(luna_dir, data_dir, f'--config={CONFIG}') == 0


def test_no_credentials_in_logs_and_files(store, luna_dir, data_dir):
  with start(luna_dir, data_dir, '--verbosity=debug', '--num_workers=2') as job:
    _, err = job.communicate()
  assert job.returncode == 0, err
  with store.failing(lambda method, key: fake_store.ERROR_500):
    with start(luna_dir, data_dir, '--verbosity=debug') as job:
      _, more = job.communicate()
    assert job.returncode == 1
  written = b''.join(contents(data_dir).values())
  for secret in store.server.SECRETS:
    assert secret not in err + more
    assert secret.encode() not in written


def test_a_server_that_is_not_there_is_one_line(
  store, luna_dir, out, extract, error_line, monkeypatch
):
  monkeypatch.setenv(store.server.ENDPOINT, 'http://127.0.0.1:9')
  store_requests.forget_stores()
  begin = time.monotonic()
  assert extract(luna_dir, out) in (1, 2)
  assert time.monotonic() - begin < 60
  line = error_line()
  monkeypatch.undo()
  store_requests.forget_stores()
  assert re.search('Could not connect|Connect call failed', line), line
  assert str(luna_dir) in line


def test_missing_credentials_are_one_line(
  store, luna_dir, out, extract, error_line, monkeypatch
):
  for name, value in store.server.NO_CREDENTIALS.items():
    monkeypatch.setenv(name, value)
  store_requests.forget_stores()
  before = store.num_failed
  # A client without credentials of S3 makes no request.
  with store.failing(lambda method, key: fake_store.UNAUTHORIZED):
    assert extract(luna_dir, out) in (1, 2)
  monkeypatch.undo()
  store_requests.forget_stores()
  assert re.search('credentials|Anonymous caller', line := error_line()), line
  assert str(luna_dir) in line
  assert store.num_failed - before < 5  # another attempt would not help


def test_missing_rights_are_one_line(
  store, luna_dir, data_dir, extract, error_line, failure
):
  before = store.num_failed
  with store.failing(lambda method, key: fake_store.FORBIDDEN):
    assert extract(luna_dir, data_dir) in (1, 2)
  assert re.search('Access Denied|Forbidden', line := error_line()), line
  assert str(luna_dir) in line

  def read_only(method, key):
    return fake_store.FORBIDDEN if method == 'PUT' else None

  with store.failing(read_only):
    assert extract(luna_dir, data_dir) == 2
  assert 'give a writable --data_dir' in failure()
  assert store.num_failed - before < 5


def test_a_missing_bucket(store, luna_dir, extract, failure, out, error_line):
  other = f'{store.scheme}://no-such-bucket'
  assert extract(f'{other}/luna16', out) == 2
  assert f'{other}/luna16: no such folder' in error_line()
  assert extract(luna_dir, f'{other}/data') == 2
  assert 'give a writable --data_dir' in failure()


def test_an_object_is_created_once(store):
  path = store.path('created')
  path.create(b'1')
  with pytest.raises(FileExistsError):
    path.create(b'2')
  assert path.read_bytes() == b'1'


def test_verify(store, luna_dir, data_dir, extract, capfd):
  from trainer import inspect

  assert extract(luna_dir, data_dir, f'--config={CONFIG}') == 0
  flags = [f'--data_dir={data_dir}', f'--dataset={CONFIG}', '--verify']
  assert inspect.run(['luna16-inspect', *flags]) == 0
  (shard,) = (data_dir / DATASET).glob('*validation*')
  data = shard.read_bytes()
  shard.write_bytes(data[:50] + b'x' + data[51:])
  capfd.readouterr()
  assert inspect.run(['luna16-inspect', *flags]) == 1
  assert f'{data_dir}' in capfd.readouterr().err
  assert extract(luna_dir, data_dir, f'--config={CONFIG}') == 0
  assert shard.read_bytes() == data
