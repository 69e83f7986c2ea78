import concurrent.futures
import os
import signal
import subprocess
import sys
import textwrap
import time

import pytest

from trainer.crossvalidation import parallel_training

# What stands in for luna16-train: it says that it runs, and how it ends.
_FAKE_TRAINING = """
import signal, sys, time
def end(signum, frame):
  print('saved', flush=True)
  sys.exit(128 + signum)
signal.signal(signal.SIGTERM, end)
signal.signal(signal.SIGINT, end)
print('running', flush=True)
time.sleep(60)
"""

_LAUNCHER = """
import dataclasses, pathlib, sys
from luna_tfds.command_line import cli
from trainer.crossvalidation import folds
import trainer.crossvalidation.parallel_training

folder = pathlib.Path(sys.argv[1])

@dataclasses.dataclass(frozen=True)
class Config:
  train_split = validation_split = ''

class Plan:
  config = Config()
  training_settings = {}
  is_trained = False
  def __init__(self, number):
    self.number, self.path = number, folder / f'fold{number}'
  def read_state(self):
    return {}

def main(unused):
  folds.train_folds([Plan(k) for k in range(3)], 2, [])

sys.exit(cli.run('luna16-crossval', 'doc', main, cli.new_flags(), ['x']))
"""


@pytest.fixture
def fake_package(tmp_path, monkeypatch):
  """A folder in which `python -m trainer.train` runs the fake training."""
  package = tmp_path / 'fake' / 'trainer'
  package.mkdir(parents=True)
  (package / '__init__.py').write_text('')
  (package / 'train.py').write_text(textwrap.dedent(_FAKE_TRAINING))
  return package.parent


def wait_for(path, text):
  deadline = time.monotonic() + 60
  while not path.exists() or text not in path.read_text():
    assert time.monotonic() < deadline, f'{path} never held {text!r}'
    time.sleep(0.05)


@pytest.mark.parametrize('signum', [signal.SIGINT, signal.SIGTERM])
def test_all_processes_are_stopped(signum, fake_package, tmp_path):
  """As by `kill` for SIGTERM; for SIGINT as by a terminal, which reaches all of them."""
  processes = parallel_training.TrainingProcesses()
  environment = {'PYTHONPATH': str(fake_package)}
  logs = [tmp_path / f'{k}.log' for k in range(2)]
  before = os.getcwd()
  os.chdir(fake_package)  # `-m` looks there first
  try:
    with concurrent.futures.ThreadPoolExecutor() as pool:
      codes = [pool.submit(processes.run, [], log, environment) for log in logs]
      for log in logs:
        wait_for(log, 'running')
      if signum == signal.SIGINT:
        for process in processes._running:
          process.send_signal(signal.SIGINT)
      start = time.monotonic()
      processes.stop()
      assert time.monotonic() - start < 30
      assert [code.result() for code in codes] == 2 * [143]
  finally:
    os.chdir(before)
  assert all(log.read_text().split() == ['running', 'saved'] for log in logs)
  with pytest.raises(parallel_training.StoppedError):
    processes.run([], logs[0], {})


@pytest.mark.slow
@pytest.mark.parametrize(
  ('signum', 'code'), [(signal.SIGINT, 130), (signal.SIGTERM, 143)]
)
def test_an_interrupted_cross_validation_ends_at_once(
  signum, code, fake_package, tmp_path
):
  """Both running folds are stopped, and the third is never started."""
  environment = {**os.environ}
  launcher = subprocess.Popen(
    [sys.executable, '-P', '-c', _LAUNCHER, str(tmp_path)],
    cwd=fake_package,
    env=environment,
    stderr=subprocess.PIPE,
    text=True,
    start_new_session=True,
  )
  logs = [tmp_path / f'fold{k}' / 'train.log' for k in range(2)]
  for log in logs:
    wait_for(log, 'running')
  launcher.send_signal(signum)
  _, text = launcher.communicate(timeout=60)
  assert launcher.returncode == code
  assert 'Traceback' not in text
  assert all(log.read_text().split() == ['running', 'saved'] for log in logs)
  assert not (tmp_path / 'fold2').exists()
