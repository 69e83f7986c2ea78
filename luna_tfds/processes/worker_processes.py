"""Calls a function in worker processes, and fails at once if one of them dies.

Neither Beam's local runner nor `concurrent.futures.ProcessPoolExecutor` is used: the first
waits forever for a worker that was killed; the workers of the second print a traceback on
Ctrl-C, import the user's script again, and survive a launcher that was killed.

A worker gets the call on its stdin and returns the result on its stdout. It ends with the
launcher (see `worker_start`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
import concurrent.futures
import contextlib
import logging
import os
import pathlib
import pickle
import signal
import subprocess
import sys
import traceback
from typing import IO, Any, TypeVar

from luna_tfds.errors import JobError

_T = TypeVar('_T')

# Imports this module in the worker.
_WORKER_START = pathlib.Path(__file__).with_name('worker_start.py')

# The launcher ends the workers; Ctrl-C in a terminal reaches all of them.
_SIGNALS_OF_THE_LAUNCHER = (signal.SIGINT, signal.SIGTERM)


class WorkerDiedError(JobError):
  """A worker process ended before its call did."""


def call_in_processes(
  function: Callable[..., _T], arguments: Sequence[tuple[Any, ...]]
) -> list[_T]:
  """Calls a function in several processes at once, one for each call.

  All processes have ended when this returns or raises, also on Ctrl-C.

  Args:
    function: function at the top level of a module, so that the workers can import it.
    arguments: arguments of each call; they and the results are pickled.

  Returns:
    The results, in the order of `arguments`.

  Raises:
    WorkerDiedError: a process was killed or crashed.
    Exception: the first exception of a call; the other calls are ended.
  """
  module = function.__module__
  if module == '__main__':  # started with `python -m`; the workers have another main
    spec = sys.modules['__main__'].__spec__
    assert spec is not None, 'the function must be in a module'
    module = spec.name
  reference = (module, function.__qualname__)
  processes: list[subprocess.Popen[bytes]] = []
  with contextlib.ExitStack() as stack:
    threads = concurrent.futures.ThreadPoolExecutor(max(len(arguments), 1))
    stack.enter_context(threads)
    stack.callback(_kill, processes)
    calls = []
    for call_arguments in arguments:
      processes.append(_start())
      request = pickle.dumps((*reference, call_arguments))
      calls.append(threads.submit(_call, processes[-1], request))
    done, _ = concurrent.futures.wait(
      calls, return_when=concurrent.futures.FIRST_EXCEPTION
    )
    for call in calls:
      if call in done:
        call.result()  # raises its exception
    return [call.result() for call in calls]


def _start() -> subprocess.Popen[bytes]:
  level = logging.getLevelName(max(logging.getLogger().level, logging.INFO))
  search_path = os.pathsep.join(path for path in sys.path if path)
  with _blocked(_SIGNALS_OF_THE_LAUNCHER):
    return subprocess.Popen(
      # Without -P the modules beside the script would hide others of the same names.
      [sys.executable, '-P', str(_WORKER_START), str(os.getpid()), level],
      env={**os.environ, 'PYTHONPATH': search_path},
      stdin=subprocess.PIPE,
      stdout=subprocess.PIPE,
    )


@contextlib.contextmanager
def _blocked(signals: Sequence[signal.Signals]) -> Iterator[None]:
  """Delays signals to this thread; processes started meanwhile never get them."""
  before = signal.pthread_sigmask(signal.SIG_BLOCK, signals)
  try:
    yield
  finally:
    signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _call(process: subprocess.Popen[bytes], request: bytes) -> Any:
  assert process.stdin is not None
  assert process.stdout is not None
  with contextlib.closing(process.stdout), _closing_pipe(process.stdin):
    with contextlib.suppress(BrokenPipeError):  # it has died, as its exit code tells
      process.stdin.write(request)
      process.stdin.flush()
    response = process.stdout.read()
    code = process.wait()
  if code == -signal.SIGKILL:
    raise WorkerDiedError(
      'a worker process was killed, as the system does when memory runs out'
    )
  if code:
    how = f'by {signal.Signals(-code).name}' if code < 0 else f'with exit code {code}'
    raise WorkerDiedError(f'a worker process was ended {how}')
  result, error = pickle.loads(response)
  if error is not None:
    raise error
  return result


@contextlib.contextmanager
def _closing_pipe(pipe: IO[bytes]) -> Iterator[None]:
  """Closes a pipe whose reader may have died."""
  try:
    yield
  finally:
    with contextlib.suppress(BrokenPipeError):
      pipe.close()


def _kill(processes: Sequence[subprocess.Popen[bytes]]) -> None:
  for process in processes:
    process.kill()
  for process in processes:
    process.wait()


# What follows runs in the worker.


def serve_call(log_level: str) -> None:
  """Makes the one call of this process.

  Args:
    log_level: least level of what is logged to stderr.
  """
  handler = logging.StreamHandler()
  handler.setLevel(log_level)
  logging.getLogger().addHandler(handler)
  with os.fdopen(os.dup(1), 'wb') as launcher:
    os.dup2(2, 1)  # printed text must not mix with the result
    module, name, arguments = pickle.load(sys.stdin.buffer)
    _respond(launcher, module, name, arguments)


def _respond(
  launcher: IO[bytes], module: str, name: str, arguments: tuple[Any, ...]
) -> None:
  response: tuple[Any, Exception | None]
  try:
    __import__(module)
    response = (getattr(sys.modules[module], name)(*arguments), None)
  except Exception as error:
    # A traceback is not pickled; this is seen where the launcher prints its own.
    error.add_note(f'in a worker process:\n{traceback.format_exc()}')
    response = (None, error)
  launcher.write(_dumps(response))


def _dumps(response: tuple[Any, Exception | None]) -> bytes:
  try:
    data = pickle.dumps(response)
    pickle.loads(data)  # some exceptions can be pickled, but not restored
    return data
  except Exception as error:
    cause = response[1] or error
    return pickle.dumps((None, RuntimeError(f'{type(cause).__name__}: {cause}')))
