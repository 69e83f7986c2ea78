"""The workers find only functions of installed modules, hence those of Python."""

import operator
import os
import signal
import subprocess
import sys
import time

import pytest

from luna_tfds.errors import UsageError
from luna_tfds.processes import worker_processes


def call_each(*calls):
  """Makes calls `(function, *arguments)` in a process each; returns the results."""
  return worker_processes.call_in_processes(operator.call, calls)


def test_results_have_the_order_of_the_calls():
  assert call_each((pow, 2, 3), (pow, 2, 4)) == [8, 16]


def test_each_call_has_a_process():
  pids = call_each((os.getpid,), (os.getpid,))
  assert len({*pids, os.getpid()}) == 3


def test_no_calls():
  assert call_each() == []


def test_printed_text_is_not_part_of_the_result(capfd):
  assert call_each((print, 'hello')) == [None]
  assert capfd.readouterr() == ('', 'hello\n')


def test_search_path_is_that_of_the_launcher(monkeypatch, tmp_path):
  (tmp_path / 'only_here.py').write_text('def answer():\n  return 42\n')
  monkeypatch.syspath_prepend(tmp_path)
  import only_here

  assert worker_processes.call_in_processes(only_here.answer, [()]) == [42]


@pytest.mark.parametrize('name', ['ValueError', 'FileNotFoundError'])
def test_exception_of_a_call_is_raised_and_ends_the_others(name, tmp_path):
  failing = {
    'ValueError': (int, 'x'),
    'FileNotFoundError': (os.stat, str(tmp_path / 'absent')),
  }
  start = time.monotonic()
  with pytest.raises((ValueError, FileNotFoundError)) as error:
    call_each((time.sleep, 300), failing[name])
  assert type(error.value).__name__ == name
  assert 'in a worker process' in error.value.__notes__[0]
  assert time.monotonic() - start < 60


def test_our_errors_keep_their_type():
  with pytest.raises(UsageError, match='no column'):
    call_each(
      (exec, 'from luna_tfds import errors; raise errors.UsageError("no column")')
    )


def test_exception_that_cannot_be_pickled_keeps_its_message():
  code = 'class LocalError(Exception): pass\nraise LocalError("lost")'
  with pytest.raises(RuntimeError, match='LocalError: lost'):
    call_each((exec, code, {'__name__': 'nowhere'}))


def test_result_that_cannot_be_pickled_is_an_error():
  with pytest.raises(RuntimeError, match='pickle'):
    call_each((eval, '(x for x in [])'))


@pytest.mark.parametrize(
  ('call', 'message'),
  [
    ((signal.raise_signal, signal.SIGKILL), 'was killed, as the system does when'),
    ((signal.raise_signal, signal.SIGSEGV), 'was ended by SIGSEGV'),
    ((os._exit, 3), 'was ended with exit code 3'),
  ],
)
def test_worker_that_dies_is_an_error_and_ends_the_others(call, message):
  start = time.monotonic()
  with pytest.raises(worker_processes.WorkerDiedError, match=message):
    call_each((time.sleep, 300), call)
  assert time.monotonic() - start < 60


def test_arguments_larger_than_a_pipe():
  assert call_each((len, b'x' * 10**6), (len, b'')) == [10**6, 0]


def test_worker_that_dies_before_it_reads_its_arguments(monkeypatch):
  monkeypatch.setattr(sys, 'executable', '/bin/false')
  with pytest.raises(worker_processes.WorkerDiedError, match='exit code 1'):
    call_each((len, b'x' * 10**6))


def test_workers_do_not_get_the_signals_of_the_launcher():
  def send_and_return(signum):
    return (eval, f'__import__("os").kill(__import__("os").getpid(), {signum}) or 5')

  assert call_each(send_and_return(signal.SIGINT), send_and_return(15)) == [5, 5]


def test_the_launcher_still_gets_its_signals():
  call_each((len, ''))
  assert not signal.pthread_sigmask(signal.SIG_BLOCK, [])


WAIT = 'import os, time; os.write(2, b"ready\\\\n"); time.sleep(300)'
CALL = f"""
from luna_tfds.processes import worker_processes
worker_processes.call_in_processes(exec, [('{WAIT}',)])
"""
# The arguments of the call load modules that take long.
LOAD_ARGUMENTS = f"""
from luna_tfds.processes import worker_processes
class Slow:
  def __reduce__(self):
    return exec, ('{WAIT}',)
worker_processes.call_in_processes(print, [(Slow(),)])
"""


@pytest.mark.parametrize('code', [CALL, LOAD_ARGUMENTS])
def test_workers_end_with_a_killed_launcher(code):
  launcher = subprocess.Popen([sys.executable, '-c', code], stderr=subprocess.PIPE)
  with launcher:
    assert launcher.stderr.read(6) == b'ready\n'
    launcher.kill()
    start = time.monotonic()
    # The worker has this pipe, too: it is closed when both have ended.
    assert launcher.stderr.read() == b''
    assert time.monotonic() - start < 20
