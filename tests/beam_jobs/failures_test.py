import logging
import socket
import threading

import apache_beam as beam
from apache_beam.runners.portability import portable_runner
import pytest
import requests

from beam_jobs import disk_job_folder
from beam_jobs import failures
from beam_jobs import runners
from luna_tfds import JobError
from luna_tfds import UsageError
from luna_tfds.processes.worker_processes import WorkerDiedError


@pytest.fixture
def folder(tmp_path):
  return disk_job_folder.DiskJobFolder(tmp_path / '1.0.0')


@pytest.mark.parametrize(
  ('message', 'cause'),
  [
    ('ValueError: bad scan', 'ValueError: bad scan'),
    (
      'Traceback (most recent call last):\n  File "a.py"\nKeyError: 3\n\n'
      'RuntimeError: KeyError: 3 [while running Write]\nworker 2 logs\n',
      'RuntimeError: KeyError: 3 [while running Write]',
    ),
    ('first line\nlast line\n', 'last line'),
    (
      'java.lang.Exception: open() failed\n\tat java.base/Thread.run(Thread.java:840)\n'
      'Caused by: io.grpc.StatusRuntimeException: UNAVAILABLE\n\t... 6 more\n'
      'Caused by: java.net.ConnectException: Connection refused\n\tat a.B.run(B.java:1)\n',
      'java.net.ConnectException: Connection refused',
    ),
    (
      'java.lang.RuntimeException: Error received from SDK harness: Traceback:\n'
      '  File "a.py"\nModuleNotFoundError: No module named a\n\n\tat a.B.run(B.java:1)\n'
      'Caused by: java.lang.RuntimeException: Error received: Traceback:\n\tat b\n',
      'ModuleNotFoundError: No module named a',
    ),
    ('', 'RuntimeError'),
  ],
)
def test_errors_of_the_runner_become_one_line(message, cause, folder):
  with pytest.raises(JobError) as error, failures.as_job_errors(folder):
    raise RuntimeError(message)
  assert str(error.value) == f'{cause}; run the same command again'


def test_details_of_the_error_are_logged(folder, caplog):
  with (
    caplog.at_level(logging.DEBUG),
    pytest.raises(JobError),
    failures.as_job_errors(folder),
  ):
    raise RuntimeError('lost a worker')
  assert 'lost a worker' in caplog.text


@pytest.mark.parametrize('error', [JobError('a'), UsageError('b'), OSError('c')])
def test_errors_of_the_job_are_not_changed(error, folder):
  with pytest.raises(type(error)) as found, failures.as_job_errors(folder):
    raise error
  assert found.value is error


@pytest.mark.parametrize(
  'error',
  [
    requests.ConnectionError('Connection aborted.'),
    ConnectionResetError(104, 'Connection reset by peer'),
  ],
)
def test_a_lost_connection_to_the_engine(error, folder):
  with pytest.raises(JobError) as found, failures.as_job_errors(folder):
    raise error
  assert str(found.value).startswith(
    f'lost the connection to the engine: {error}; run '
  )


def test_the_reason_of_a_lost_connection_is_short(folder):
  with socket.socket() as bound:
    bound.bind(('127.0.0.1', 0))  # and does not listen
    url = f'http://127.0.0.1:{bound.getsockname()[1]}/long/path'
    with pytest.raises(JobError) as found, failures.as_job_errors(folder):
      requests.get(url, timeout=5)
  assert '[Errno 111] Connection refused; run the same' in str(found.value)
  assert 'Max retries exceeded' not in str(found.value)


@pytest.mark.parametrize(('level', 'is_shown'), [('ERROR', False), ('INFO', True)])
def test_pages_of_the_engine_are_shown_only_if_asked_for(
  level, is_shown, folder, caplog
):
  with caplog.at_level(level), failures.as_job_errors(folder):
    # As Beam does it.
    exec(
      compile('import logging; logging.error("page")', portable_runner.__file__, 'exec')
    )
    logging.error('of somebody else')
  assert [r.message for r in caplog.records] == ['page'] * is_shown + [
    'of somebody else'
  ]


@pytest.mark.parametrize(
  ('name', 'is_shown'), [('wait_until_finish_read', False), ('other', True)]
)
@pytest.mark.parametrize('num_jobs', [1, 2])
def test_traces_of_beams_thread_are_not_shown(
  num_jobs, name, is_shown, folder, capsys, monkeypatch
):
  def fail():
    lost.wait()
    raise ConnectionResetError

  # pytest sets its own
  monkeypatch.setattr(threading, 'excepthook', threading.__excepthook__)
  lost = threading.Event()
  threads = [threading.Thread(target=fail, name=name) for _ in range(num_jobs)]
  for thread in threads:
    with failures.as_job_errors(folder):
      thread.start()
  lost.set()  # after the job, as when its job server ends
  # all of them, before pytest sees what they raise
  for thread in threads:
    thread.join()
  assert ('ConnectionResetError' in capsys.readouterr().err) == is_shown


def test_interrupt_in_a_pipeline_is_no_failure(folder):
  def interrupt(unused):
    raise KeyboardInterrupt

  with (
    pytest.raises(KeyboardInterrupt),
    failures.as_job_errors(folder),
    runners.pipeline(None) as pipeline,
  ):
    _ = pipeline | beam.Create([1]) | beam.Map(interrupt)


def test_a_dead_worker_is_a_job_error(folder):
  with pytest.raises(JobError) as error, failures.as_job_errors(folder):
    raise WorkerDiedError('a worker process was killed')
  assert (
    '; if memory ran out, free some, or give a smaller --num_workers; run the same command again'
    in str(error.value)
  )


def test_memory_that_runs_out_is_a_job_error(folder):
  """Beam contains the error of the worker as text."""
  with pytest.raises(JobError) as error, failures.as_job_errors(folder):
    raise RuntimeError('Traceback:\n  File "a.py"\nRuntimeError: MemoryError [while')
  assert str(error.value) == (
    'not enough memory (RuntimeError: MemoryError [while); free some, or give a smaller '
    '--num_workers; run the same command again'
  )
