"""Real processes of the job that are interrupted or killed."""

import os
import re
import signal
import subprocess
import sys
import time

import child_processes
import fake_data
import oracles
import pytest

ALL = '--config=axial_50px_all'


def wait_for(condition, secs=300):
  """Returns the first true value of `condition()`."""
  end = time.monotonic() + secs
  while not (value := condition()):
    assert time.monotonic() < end
    time.sleep(0.01)
  return value


def is_running(pid):
  found = subprocess.run(
    ['ps', '-o', 'stat=', '-p', str(pid)], capture_output=True, text=True, check=False
  )
  return bool(found.stdout) and not found.stdout.startswith('Z')


@pytest.fixture(scope='module')
def download(tmp_path_factory):
  """A download that keeps two workers busy for seconds: many candidates a scan."""
  scans = [fake_data.make_scan(k, k % 10) for k in range(20)]
  folder = tmp_path_factory.mktemp('luna16')
  download = fake_data.write_download(folder, scans)
  rows = [row for row in download.candidates for _ in range(200)]
  fake_data.write_candidates(folder / 'candidates.csv', rows)
  return download


@pytest.fixture(scope='module')
def undisturbed(download, extract, tmp_path_factory):
  """The files of the dataset as a job writes them that nothing interrupts."""
  folder = tmp_path_factory.mktemp('undisturbed')
  assert extract(download.folder, folder, ALL) == 0
  return oracles.files_of(oracles.dataset_folder(folder))


def has_finished_shard(out):
  # The name of a file that is being written has another dot.
  results = out.glob('luna16_patches/*/1.0.0.job/*.json')
  return any('.' not in path.stem for path in results)


@pytest.fixture
def job(download, out):
  """A job in a session of its own, of which some shards are finished; and its workers."""
  started = []

  def start(num_workers, *, wait=True):
    command = [sys.executable, '-m', 'beam_jobs.extract_patches', ALL]
    command += [f'--luna_dir={download.folder}', f'--data_dir={out}']
    job = subprocess.Popen(
      [*command, f'--num_workers={num_workers}'],
      start_new_session=True,
      stderr=subprocess.PIPE,
      text=True,
    )
    started.append(job)
    if wait:
      wait_for(lambda: has_finished_shard(out))
    job.workers = child_processes.children(job.pid)
    return job

  yield start
  for job in started:
    if job.poll() is None:
      job.kill()
      job.communicate()


def end_of(job):
  """Returns the last line on stderr, which the job has 30 s to write."""
  _, err = job.communicate(timeout=30)
  assert 'Traceback' not in err
  assert 'Exception' not in err
  wait_for(lambda: not any(map(is_running, job.workers)), secs=20)
  lines = err.splitlines()
  assert [line for line in lines if 'error' in line.lower()] == lines[-1:], err
  return lines[-1]


def assert_rerun_completes(job, out, undisturbed):
  again = job(2, wait=False)
  _, err = again.communicate()
  assert again.returncode == 0, err
  assert re.search(r'resuming: \d+ shards? (is|are) finished', err)
  assert oracles.files_of(oracles.dataset_folder(out)) == undisturbed


@pytest.mark.slow
def test_a_killed_worker_ends_the_job(job, out, undisturbed):
  running = job(2)
  assert len(running.workers) == 2
  os.kill(running.workers[1], signal.SIGKILL)
  line = end_of(running)
  assert running.returncode == 1
  assert re.search(
    'error: a worker process was killed, as the system does when memory runs out; .*'
    'finished shards are kept in .*: run the same command again',
    line,
  )
  assert_rerun_completes(job, out, undisturbed)


@pytest.mark.slow
def test_a_worker_killed_while_it_starts_ends_the_job(job):
  running = job(2, wait=False)
  worker = wait_for(lambda: child_processes.children(running.pid))[0]
  os.kill(worker, signal.SIGKILL)
  assert 'a worker process was killed' in end_of(running)
  assert running.returncode == 1


INTERRUPTED = (signal.SIGINT, 130, 'interrupted')
TERMINATED = (signal.SIGTERM, 143, 'terminated')


@pytest.mark.slow
@pytest.mark.parametrize(
  ('signal_code_word', 'send', 'num_workers'),
  [
    (INTERRUPTED, os.killpg, 2),
    (TERMINATED, os.kill, 2),
    (INTERRUPTED, os.kill, 2),
    (TERMINATED, os.killpg, 2),
    (INTERRUPTED, os.killpg, 1),
    (TERMINATED, os.kill, 1),
  ],
)
def test_a_signal_ends_the_job_in_one_line(
  signal_code_word, send, num_workers, job, out, undisturbed
):
  signum, code, word = signal_code_word
  running = job(num_workers)
  assert len(running.workers) == (num_workers if num_workers > 1 else 0)
  send(running.pid, signum)
  assert end_of(running) == f'luna16-extract: error: {word}'
  assert running.returncode == code
  assert_rerun_completes(job, out, undisturbed)


@pytest.mark.slow
def test_workers_end_with_a_killed_launcher(job, out, undisturbed):
  running = job(2)
  running.kill()
  running.communicate()
  wait_for(lambda: not any(map(is_running, running.workers)), secs=20)
  assert_rerun_completes(job, out, undisturbed)
