import os
import re
import signal
import socket
import subprocess
import sys
import time

from apache_beam.portability.api import beam_fn_api_pb2
from apache_beam.portability.api import beam_fn_api_pb2_grpc
from apache_beam.portability.api import endpoints_pb2
import child_processes
import grpc
import pytest

from beam_jobs import worker_pool

TIMEOUT_SECS = 60


class Engine:
  """A process of an engine, with a connection of its own to the pool."""

  def __init__(self, port):
    options = [('grpc.use_local_subchannel_pool', 1)]
    self._channel = grpc.insecure_channel(f'localhost:{port}', options)
    self._pool = beam_fn_api_pb2_grpc.BeamFnExternalWorkerPoolStub(self._channel)

  def start(self, worker_id, endpoint='localhost:1'):
    request = beam_fn_api_pb2.StartWorkerRequest(
      worker_id=worker_id,
      control_endpoint=endpoints_pb2.ApiServiceDescriptor(url=endpoint),
    )
    answer = self._pool.StartWorker(request, wait_for_ready=True, timeout=TIMEOUT_SECS)
    assert not answer.error

  def stop(self, worker_id):
    """Returns the error, '' for none."""
    request = beam_fn_api_pb2.StopWorkerRequest(worker_id=worker_id)
    return self._pool.StopWorker(request, timeout=TIMEOUT_SECS).error

  def close(self):
    self._channel.close()


@pytest.fixture(scope='module')
def pool():
  """A running pool: (its process, its port)."""
  with socket.socket() as free:
    free.bind(('127.0.0.1', 0))
    port = free.getsockname()[1]
  with subprocess.Popen(
    [sys.executable, '-m', 'beam_jobs.worker_pool', f'--port={port}']
  ) as process:
    yield process, port
    process.kill()


@pytest.fixture
def engines(pool):
  made = [Engine(pool[1]) for _ in range(2)]
  yield made
  for engine in made:
    engine.close()


def workers(process):
  """Returns the control endpoints of the worker processes of a pool."""
  lines = child_processes.command_lines(child_processes.children(process.pid))
  return sorted(re.findall(r'localhost:\d+', ' '.join(lines)))


def workers_soon(process, expected):
  """Returns the workers when they are as expected, or those after a minute."""
  end = time.monotonic() + TIMEOUT_SECS
  while (found := workers(process)) != expected and time.monotonic() < end:
    time.sleep(0.05)
  return found


def test_engines_that_use_the_same_id_do_not_end_the_worker_of_the_other(pool, engines):
  first, second = engines
  first.start('1-1', 'localhost:1')
  second.start('1-1', 'localhost:2')
  assert workers_soon(pool[0], ['localhost:1', 'localhost:2']) == [
    'localhost:1',
    'localhost:2',
  ]
  assert first.stop('1-1') == ''
  assert workers_soon(pool[0], ['localhost:2']) == ['localhost:2']
  assert second.stop('1-1') == ''
  assert workers_soon(pool[0], []) == []


def test_a_worker_that_is_not_known_is_not_an_error(engines):
  assert engines[0].stop('7-7') == ''


def test_workers_run_the_python_of_the_pool(pool, engines):
  engines[0].start('2-1')
  assert workers_soon(pool[0], ['localhost:1']) == ['localhost:1']
  (child,) = [
    pid
    for pid in child_processes.children(pool[0].pid)
    if any(child_processes.command_lines([pid]))  # that of a dead one is empty
  ]
  assert os.readlink(f'/proc/{child}/exe') == os.path.realpath(sys.executable)
  assert engines[0].stop('2-1') == ''
  assert workers_soon(pool[0], []) == []


def test_a_port_that_is_in_use_is_a_usage_error(pool, capsys):
  assert worker_pool.main([f'--port={pool[1]}']) == 2
  last_line = capsys.readouterr().err.splitlines()[-1]
  assert last_line == f'--port={pool[1]}: cannot be used; give a free port'


def test_the_pool_ends_its_workers(pool, engines):
  process, _ = pool
  engines[0].start('3-1')
  assert workers_soon(process, ['localhost:1']) == ['localhost:1']
  process.send_signal(signal.SIGTERM)
  assert process.wait(TIMEOUT_SECS) == 0
