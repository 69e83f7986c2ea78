"""Slow tests: training, evaluation and prediction on servers of stores on loopback."""

import itertools
import os
import signal
import subprocess
import sys
import threading
import time

import fake_data
import fake_store
from fake_store import contents
import pytest

from luna_tfds.files import store_path

pytestmark = pytest.mark.slow

DATASET = 'luna16_patches/axial_50px_all'


@pytest.fixture(scope='module')
def stored(store, data_dir):
  """The URL of the data folder."""
  return fake_store.upload_folder(data_dir, store.path('data'))


def train_flags(data_dir, workdir, *more):
  return [
    f'--data_dir={data_dir}',
    f'--dataset={DATASET}',
    f'--workdir={workdir}',
    '--steps_per_epoch=2',
    '--batch_size=8',
    '--deterministic',
    *more,
  ]


@pytest.fixture(scope='module')
def train():
  def run(*arguments):
    from trainer import train

    return train.run(['luna16-train', *train_flags(*arguments)])

  return run


@pytest.fixture(scope='module')
def workdir(store, stored, train):
  folder = store.path('runs/first')
  assert train(stored, folder, '--epochs=2') == 0
  return folder


@pytest.fixture(scope='module')
def local_workdir(data_dir, train, tmp_path_factory):
  folder = tmp_path_factory.mktemp('run')
  assert train(data_dir, folder, '--epochs=2') == 0
  return folder


def test_a_run_is_that_of_local_files(workdir, local_workdir):
  for name in ('history.csv', 'operating_point.json'):
    assert (workdir / name).read_text() == (local_workdir / name).read_text()
  names = {key for key in contents(local_workdir) if not key.startswith('tensorboard')}
  found = contents(workdir)
  assert names == {key for key in found if not key.startswith('tensorboard')}
  assert [key for key in found if key.startswith('tensorboard/pictures/')]


def test_a_small_budget_streams_from_the_store(
  store, stored, train, data_dir, tmp_path
):
  flags = ('--epochs=1', '--memory_budget_mb=1')
  first = len(store.requests)
  assert train(stored, store.path('runs/streamed'), *flags) == 0
  ranges = [
    r for r in store.requests[first:] if r.method == 'GET' and 'tfrecord' in r.key
  ]
  assert ranges
  assert max(r.sent for r in ranges) < 4 * 2**20
  assert train(data_dir, tmp_path / 'run', *flags) == 0
  history = store.path('runs/streamed/history.csv').read_text()
  assert history == (tmp_path / 'run' / 'history.csv').read_text()


def test_evaluate_predict_and_export(
  store, stored, workdir, local_workdir, data_dir, download, tmp_path, capfd
):
  from trainer import evaluate
  from trainer import export
  from trainer import predict

  local_output = tmp_path / 'evaluation'  # beside the run, which other tests compare
  for folder, data, more in (
    (workdir, stored, []),
    (local_workdir, data_dir, [f'--output_dir={local_output}']),
  ):
    flags = [f'--workdir={folder}', f'--data_dir={data}', '--bootstrap=5', *more]
    assert evaluate.run(['luna16-evaluate', *flags]) == 0
  name = 'predictions.csv'
  assert (workdir / name).read_text() == (local_output / name).read_text()
  assert '<html' in (workdir / 'report.html').read_text()
  luna_dir = fake_store.upload_folder(download.folder, store.path('luna16'))
  # The first is read by ranges, the others are copied.
  for seriesuid in ('1.2.826.0.1', '1.2.826.0.3'):
    scan = download.paths[seriesuid]
    outputs = {}
    for folder, root, output in (
      (workdir, luna_dir, store.path('scores') / seriesuid),
      (local_workdir, download.folder, tmp_path / seriesuid),
    ):
      flags = [
        f'--workdir={folder}',
        f'--scan={root / scan.relative_to(download.folder)}',
        f'--candidates={root / "candidates.csv"}',
        f'--output={output}',
      ]
      assert predict.run(['luna16-predict', *flags]) == 0
      outputs[root] = output.read_text()
    assert outputs[luna_dir] == outputs[download.folder]
  flags = [f'--workdir={workdir}', f'--output_dir={store.path("exported")}']
  assert export.run(['luna16-export', *flags]) == 0
  exported = contents(store.path('exported'))
  assert {'saved_model.pb', 'operating_point.json'} <= exported.keys()


@pytest.mark.parametrize('kind', ['.nii.gz', 'DICOM'])
def test_predict_transfers_a_scan_once(store, workdir, download, tmp_path, kind):
  from trainer import predict

  scan = fake_data.make_scan(3)
  if kind == 'DICOM':
    local = fake_data.write_dicom(tmp_path / 'series', scan)
    url = fake_store.upload_folder(local, store.path('series'))
    sizes = [path.stat().st_size for path in local.iterdir()]
  else:
    local = scan.write(tmp_path / 'scan', kind)
    url = fake_store.upload_folder(local.parent, store.path('scan')) / local.name
    sizes = [local.stat().st_size]
  flags = [f'--workdir={workdir}', f'--candidates={download.folder}/candidates.csv']
  flags += [f'--seriesuid={scan.seriesuid}']
  outputs = [tmp_path / 'stored.csv', tmp_path / 'local.csv']
  first = len(store.requests)
  for path, output in zip((url, local), outputs):
    more = [f'--scan={path}', f'--output={output}']
    assert predict.run(['luna16-predict', *flags, *more]) == 0
  key = str(url).removeprefix(store.url)
  got = [r for r in store.requests[first:] if r.method == 'GET' and r.sent]
  assert sorted(r.sent for r in got if key[1:] in r.key) == sorted(sizes)
  assert outputs[0].read_text() == outputs[1].read_text()


def test_a_killed_training_is_continued(store, stored, data_dir, tmp_path):
  folder = store.path('runs/killed')
  arguments = train_flags(stored, folder, '--epochs=10')
  with subprocess.Popen(
    [sys.executable, '-m', 'trainer.train', *arguments],
    start_new_session=True,
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
    text=True,
  ) as run:
    begin = time.monotonic()
    while not (folder / 'history.csv').exists() and time.monotonic() - begin < 600:
      assert run.poll() is None, run.stdout.read()
      time.sleep(0.1)
    os.killpg(run.pid, signal.SIGKILL)
  rows = (folder / 'history.csv').read_text().splitlines()
  assert 2 <= len(rows) < 11
  assert not (folder / 'model.keras').exists()
  # In processes of their own, as the killed one: the number of threads, on which the last
  # bits of a sum depend, is fixed only before TensorFlow starts.
  for arguments in (
    train_flags(stored, folder, '--epochs=10'),
    train_flags(data_dir, tmp_path / 'run', '--epochs=10'),
  ):
    subprocess.run([sys.executable, '-m', 'trainer.train', *arguments], check=True)
  history = (tmp_path / 'run' / 'history.csv').read_text()
  assert (folder / 'history.csv').read_text() == history


@pytest.mark.parametrize('fault', [fake_store.ERROR_500, fake_store.RESET_IN_BODY])
def test_failing_requests_are_repeated(store, stored, workdir, train, fault):
  number, lock = itertools.count(1), threading.Lock()

  def some(method, key):
    with lock:
      return fault if next(number) % 7 == 0 else None

  folder = store.path(f'runs/{abs(hash(fault))}')
  with store.failing(some):
    assert train(stored, folder, '--epochs=2') == 0
  assert (folder / 'history.csv').read_text() == (workdir / 'history.csv').read_text()


def test_an_outage_is_one_line_and_the_run_continues(
  store, stored, train, capfd, workdir
):
  folder = store.path('runs/outage')

  def no_shards(method, key):
    return fake_store.ERROR_503 if 'tfrecord' in key else None

  with store.failing(no_shards):
    assert train(stored, folder, '--epochs=2') == 1
  errors = [line for line in capfd.readouterr().err.splitlines() if 'error: ' in line]
  assert len(errors) == 1
  assert f'{stored}/luna16_patches' in errors[0]
  assert train(stored, folder, '--epochs=2') == 0
  assert (folder / 'history.csv').read_text() == (workdir / 'history.csv').read_text()


def test_no_credentials_in_the_run(store, workdir):
  written = b''.join(contents(workdir).values())
  for secret in store.server.SECRETS:
    assert secret.encode() not in written


def test_crossval(store, stored):
  from trainer import crossval

  folder = store.path('runs/folds')
  flags = [
    f'--data_dir={stored}',
    f'--dataset={DATASET}',
    f'--workdir={folder}',
    '--folds=8,9',
    '--epochs=1',
    '--steps_per_epoch=2',
    '--batch_size=8',
    '--bootstrap=5',
  ]
  assert crossval.run(['luna16-crossval', *flags]) == 0
  assert isinstance(folder, store_path.StorePath)
  assert (folder / 'crossval.json').is_file()
