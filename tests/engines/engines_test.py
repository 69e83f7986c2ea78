"""The job on the engines that are available here: same bytes, also after a crash.

A test whose engine is not available is skipped, with the reason.
"""

import contextlib
import json
import os
import signal
import sys
import time

import child_processes
import engine_processes
from engine_processes import EngineUnavailableError
import pytest
import start

pytestmark = pytest.mark.engine


def on(*names):
  """Runs a test on engines; tests of an engine use the same processes."""
  return pytest.mark.parametrize('engine', names, indirect=True, scope='module')


@pytest.fixture(scope='module')
def engine(request, tmp_path_factory):
  """The name of an engine, and the engine, running."""
  name = request.param
  with contextlib.ExitStack() as stack:
    try:
      running = stack.enter_context(start.ENGINES[name](tmp_path_factory.mktemp(name)))
    except EngineUnavailableError as error:
      pytest.skip(f'{name} is not available: {error}')
    yield name, running


def replaced(options, **changes):
  """Returns options with other values; None removes an option."""
  kept = [o for o in options if o.lstrip('-').partition('=')[0] not in changes]
  added = [f'--{key}={value}' for key, value in changes.items() if value is not None]
  return kept + added


def wait_until(condition, timeout_secs=400):
  end = time.monotonic() + timeout_secs
  while not condition():
    assert time.monotonic() < end, 'timeout'
    time.sleep(0.05)


def kill_sdk_worker(running):
  """Kills one of the Python processes that the worker pool has started."""
  pool = running.processes['worker_pool'].pid
  os.kill(child_processes.children(pool)[0], signal.SIGKILL)


def kill_executor(running):
  """Kills one of the Java processes in which Spark's workers run tasks."""
  for name in ('worker1', 'worker2'):
    for pid in child_processes.children(running.processes[name].pid):
      (line,) = child_processes.command_lines([pid])
      if 'CoarseGrainedExecutorBackend' in line:
        os.kill(pid, signal.SIGKILL)
        return
  raise AssertionError('no executor runs')


def assert_same_dataset(job, local_sha256, name):
  assert job.wait() == 0, job.log()
  assert job.sha256() == local_sha256
  print(f'{name}: dataset {job.sha256()}, as the local runner')


def crash(job, kill, local_sha256, name):
  """Calls `kill` when some shards are finished, and waits for the end of the job.

  Returns the shards (inodes of their files) that were finished before.
  """
  wait_until(lambda: len(job.finished_shards()) >= 3 or not job.is_running())
  assert job.is_running(), job.log()
  kill()
  finished = job.finished_shards()
  assert_same_dataset(job, local_sha256, name)
  print(f'{name}: killed after {len(finished)} of 20 shards')
  return finished


@on(*sorted(start.ENGINES))
def test_same_bytes_as_the_local_runner(engine, extraction, local_sha256):
  name, running = engine
  assert_same_dataset(extraction(running.options), local_sha256, name)


@on('dask')
def test_a_killed_worker_of_dask(engine, extraction, local_sha256):
  name, running = engine
  several_shards_per_bundle = '--dask_npartitions=4'
  job = extraction([*running.options, several_shards_per_bundle])
  finished = crash(job, lambda: running.kill('worker2'), local_sha256, name)
  assert 3 <= len(finished) < 20
  assert finished <= job.shards()  # none of them was written again


@on('dask')
def test_a_worker_of_dask_without_this_package(engine, extraction):
  _, running = engine
  address = running.options[-1].partition('=')[2]
  code = 'import sys; sys.modules["beam_jobs"] = None; from dask.__main__ import main; main()'
  options = ['--nthreads=1', '--no-dashboard', '--no-nanny', '--name=incomplete']
  running.start('incomplete', [sys.executable, '-c', code, 'worker', address, *options])
  log = running.folder / 'incomplete.log'
  wait_until(lambda: 'Starting established connection' in log.read_text())
  job = extraction(running.options)
  assert job.wait() == 1
  running.kill('incomplete')
  last_line = job.log().splitlines()[-1]
  assert 'error: a worker of Dask cannot import this package (' in last_line


@on('flink', 'spark')
def test_a_killed_sdk_worker(engine, extraction, local_sha256):
  name, running = engine
  job = extraction(running.options)
  finished = crash(
    job, lambda: kill_sdk_worker(running), local_sha256, f'{name}, SDK worker'
  )
  assert 3 <= len(finished) < 20
  assert finished <= job.shards()  # none of them was written again


@on('flink')
def test_flink_with_workers_in_the_launcher(engine, extraction, local_sha256):
  name, running = engine
  options = replaced(
    running.options, environment_type='LOOPBACK', environment_config=None
  )
  assert_same_dataset(extraction(options), local_sha256, f'{name}, LOOPBACK')


@on('spark')
def test_a_killed_executor(engine, extraction, local_sha256):
  name, running = engine
  job = extraction(running.options)
  finished = crash(job, lambda: kill_executor(running), local_sha256, name)
  assert 3 <= len(finished) < 20
  assert finished <= job.shards()  # none of them was written again


def option(running, name):
  (value,) = [
    text.partition('=')[2] for text in running.options if text.startswith(f'--{name}=')
  ]
  return value


def dask_runs_a_job(running):
  import distributed

  with distributed.Client(option(running, 'dask_client_address')) as client:
    return client.run_on_scheduler(lambda dask_scheduler: bool(dask_scheduler.tasks))


def flink_runs_a_job(running):
  url = f'http://{option(running, "flink_master")}/jobs/overview'
  jobs = json.loads(engine_processes.get(url))['jobs']
  return any(job['end-time'] == -1 for job in jobs)


def spark_runs_a_job(running):
  """Returns whether a driver or an executor, which exist for a job, run."""
  workers = [running.processes[name].pid for name in ('worker1', 'worker2')]
  return any(child_processes.children(pid) for pid in workers)


_RUNS_A_JOB = {
  'dask': dask_runs_a_job,
  'flink': flink_runs_a_job,
  'spark': spark_runs_a_job,
}


def state_of(job):
  """Returns names, sizes and times of modification of the files that tasks write."""
  folders = [job.dataset.with_name(f'1.0.0.{end}') for end in ('job', 'incomplete')]
  found = set()
  for path in (path for folder in folders for path in folder.iterdir()):
    with contextlib.suppress(FileNotFoundError):  # renamed meanwhile
      found.add((path, path.stat().st_size, path.stat().st_mtime_ns))
  return found


def nothing_is_written(job, secs):
  before = state_of(job)
  time.sleep(secs)
  return state_of(job) == before


@on(*sorted(start.ENGINES))
@pytest.mark.parametrize(
  ('signum', 'send', 'exit_code', 'word'),
  [
    # Ctrl-C in a terminal interrupts also the processes that the launcher has started.
    (signal.SIGINT, os.killpg, 130, 'interrupted'),
    (signal.SIGTERM, os.kill, 143, 'terminated'),
  ],
)
def test_a_signal_ends_the_job_also_on_the_engine(
  engine, extraction, local_sha256, signum, send, exit_code, word
):
  name, running = engine
  # As in a script that was started with `&`, and then in the launcher, too.
  assert signal.getsignal(signal.SIGINT) != signal.SIG_IGN, 'SIGINT is ignored'
  job = extraction(running.options)
  wait_until(lambda: len(job.finished_shards()) >= 3 or not job.is_running())
  assert job.is_running(), job.log()
  start_secs = time.monotonic()
  job.send(signum, send)
  assert job.wait(timeout_secs=60) == exit_code, job.log()
  secs = time.monotonic() - start_secs
  lines = job.log().splitlines()
  assert lines[-1] == f'luna16-extract: error: {word}', job.log()
  assert [line for line in lines if 'error' in line.lower()] == lines[-1:], job.log()
  assert 'Traceback' not in job.log()
  if name in _RUNS_A_JOB:
    wait_until(lambda: not _RUNS_A_JOB[name](running), 60)
  # Workers finish the shards in work; then nothing is written.
  wait_until(lambda: nothing_is_written(job, secs=4), 60)
  finished = job.finished_shards()
  assert 3 <= len(finished) < 20
  print(f'{name}: {word} after {secs:.1f} s with {len(finished)} of 20 shards')
  again = extraction(running.options, job.data_dir)
  assert_same_dataset(again, local_sha256, f'{name}, again')
  assert f'resuming: {len(finished)} shards are finished' in again.log()
  assert finished <= again.shards()  # none of them was written again


# The last test on Flink, as no other has enough slots after it.
@on('flink')
def test_a_killed_task_manager(engine, extraction, local_sha256):
  name, running = engine
  # The slots of the other TaskManager suffice to run the job again.
  options = replaced(running.options, parallelism=2)
  job = extraction([*options, '--flink_submit_uber_jar'])
  finished = crash(
    job, lambda: running.kill('task_manager2'), local_sha256, f'{name}, TaskManager'
  )
  assert 3 <= len(finished) < 20
  assert finished <= job.shards()  # none of them was written again
