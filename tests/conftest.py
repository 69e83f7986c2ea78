"""Fixtures of all tests: downloads, and datasets extracted from them once."""

import fcntl
import json
import os
import pathlib
import pickle
import signal
import subprocess
import sys

# Must be set before TensorFlow is imported; silences its messages about devices.
os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')
os.environ.setdefault('CUDA_VISIBLE_DEVICES', '-1')

import fake_data
import hypothesis
import pytest

# As it is where the tests were started with `&`: commands would ignore it, too.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
  signal.signal(signal.SIGINT, signal.default_int_handler)

hypothesis.settings.register_profile(
  'tests', deadline=None, derandomize=True, max_examples=60, database=None
)
hypothesis.settings.load_profile('tests')

_REAL_DATA = pathlib.Path(__file__).parents[2] / 'shared' / 'data'


def extract(luna_dir, data_dir, *arguments):
  """Runs luna16-extract in this process; returns its exit code."""
  from beam_jobs import extract_patches

  flags = [f'--luna_dir={luna_dir}', f'--data_dir={data_dir}', '--num_workers=1']
  return extract_patches.run(['luna16-extract', *flags, *arguments])


@pytest.fixture(scope='session', name='extract')
def extract_fixture():
  """The function `extract(luna_dir, data_dir, *arguments)`."""
  return extract


@pytest.fixture(scope='session')
def made_once(tmp_path_factory):
  """Returns a function (name, make): what `make` returned in one of the test processes.

  `make` is called with a new folder; the other processes wait for it, and share the folder.
  """
  root = tmp_path_factory.getbasetemp()
  if 'PYTEST_XDIST_WORKER' in os.environ:
    root = root.parent  # of all processes of this run of the tests

  def run(name, make):
    with (root / f'{name}.pickle').open('a+b') as file:
      fcntl.flock(file, fcntl.LOCK_EX)
      file.seek(0)
      if not file.read(1):
        (root / name).mkdir()
        pickle.dump(make(root / name), file)
      file.seek(0)
      return pickle.load(file)

  return run


@pytest.fixture(scope='session')
def download(made_once):
  """A LUNA16 download of 12 small scans."""
  return made_once('luna16', fake_data.write_download)


@pytest.fixture(scope='session')
def data_dir(download, made_once):
  """A TFDS data folder with `axial_50px` and `axial_50px_all` of `download`."""

  def make(folder):
    for config in ('axial_50px', 'axial_50px_all'):
      assert extract(download.folder, folder, f'--config={config}') == 0
    return folder

  return made_once('data', make)


@pytest.fixture(scope='session')
def real_data():
  """The folder of real scans and patches; tests that need it are skipped if missing."""
  if not (_REAL_DATA / 'luna16').is_dir():
    pytest.skip(f'needs the real scans in {_REAL_DATA}')
  return _REAL_DATA


@pytest.fixture(scope='session')
def fresh_python():
  """Runs code in a new interpreter; returns its last line of output, parsed as JSON."""

  def run(code, *arguments, **environment):
    done = subprocess.run(
      [sys.executable, '-c', code, *map(str, arguments)],
      env={**os.environ, **environment},
      capture_output=True,
      text=True,
      check=False,
      timeout=600,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])

  return run


@pytest.fixture
def error_line(capfd):
  """Returns a function that returns the only line on stderr, which must be an error."""

  def read():
    lines = capfd.readouterr().err.splitlines()
    assert len(lines) == 1, lines
    assert 'error: ' in lines[0]
    return lines[0]

  return read


@pytest.fixture
def small(tmp_path):
  """A download of four scans and as many shards: two of train, validation, test."""
  scans = [fake_data.make_scan(seed, seed) for seed in (0, 1, 8, 9)]
  return fake_data.write_download(tmp_path / 'luna16', scans)


@pytest.fixture
def out(tmp_path):
  """A data folder that does not exist yet."""
  return tmp_path / 'data'


@pytest.fixture
def failure(capfd):
  """Returns a function that returns the error of the job, its last line on stderr."""

  def read():
    text = capfd.readouterr().err
    assert 'Traceback' not in text
    errors = [line for line in text.splitlines() if 'luna16-extract: error: ' in line]
    assert errors == text.splitlines()[-1:]
    return errors[0]

  return read


@pytest.fixture
def memory_url():
  """The URL of an empty store in the memory of this process."""
  import fsspec

  store = fsspec.filesystem('memory')
  store.store.clear()
  store.pseudo_dirs[:] = ['']
  yield 'memory://bucket'
  store.store.clear()


@pytest.fixture(scope='module', params=['s3', 'gs'])
def store(request):
  """A store's server on loopback with an empty bucket; this process uses it."""
  import fake_store

  with fake_store.running(request.param) as running:
    yield running
