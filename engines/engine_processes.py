"""Starts the processes of an engine, waits until they are ready, and ends them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
import contextlib
import ctypes
import dataclasses
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request

READY_SECS = 180.0


class EngineUnavailableError(Exception):
  """An engine cannot be used on this machine; the message is one line."""


@dataclasses.dataclass
class Engine:
  """A running engine.

  Attributes:
    folder: contains the logs.
    options: what `luna16-extract` needs to run on it.
    processes: by name, e.g. `worker1`.
  """

  folder: pathlib.Path
  options: list[str] = dataclasses.field(default_factory=list)
  processes: dict[str, subprocess.Popen[bytes]] = dataclasses.field(
    default_factory=dict
  )

  def start(
    self,
    name: str,
    command: Sequence[str],
    environment: Mapping[str, str] | None = None,
  ) -> None:
    """Starts a process whose output goes to `<name>.log`.

    Its working folder is that of the logs, not that of the launcher. It is the leader of
    a process group, so that the processes that it starts end with it.
    """
    with open(self.folder / f'{name}.log', 'ab') as log:
      self.processes[name] = subprocess.Popen(
        command,
        cwd=self.folder,
        env={**_worker_environment(), **(environment or {})},
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        preexec_fn=_end_with_launcher,
      )

  def kill(self, name: str) -> None:
    """Kills a process and those it has started, as a crash of its machine does."""
    process = self.processes[name]
    with contextlib.suppress(ProcessLookupError):
      os.killpg(process.pid, signal.SIGKILL)
    process.wait()

  def wait_for(self, what: str, is_ready: Callable[[], bool]) -> None:
    """Waits for a condition.

    Raises:
      RuntimeError: a process ended, or the condition is not met after some minutes.
    """
    end = time.monotonic() + READY_SECS
    while not is_ready():
      for name, process in self.processes.items():
        if process.poll() is not None:
          raise RuntimeError(f'{name} ended, see {self.folder / name}.log')
      if time.monotonic() > end:
        raise RuntimeError(f'no {what} after {READY_SECS:.0f} s, see {self.folder}')
      time.sleep(0.2)

  def wait_for_port(self, port: int) -> None:
    """Waits until a process listens on a port of this machine."""
    self.wait_for(f'listener on port {port}', lambda: _is_open(port))

  def wait_for_number(self, field: str, number: int, url: str) -> None:
    """Waits until the JSON object at a URL of this machine has a number in a field."""

    def is_reached() -> bool:
      answer = get(url)
      return bool(answer) and json.loads(answer)[field] == number

    self.wait_for(f'{number} {field} at {url}', is_reached)


@contextlib.contextmanager
def running(folder: pathlib.Path) -> Iterator[Engine]:
  """Yields an engine without processes; kills its processes at the end."""
  folder.mkdir(parents=True, exist_ok=True)
  engine = Engine(folder.absolute())
  try:
    yield engine
  finally:
    for name in engine.processes:
      engine.kill(name)


def free_ports(number: int) -> list[int]:
  """Returns ports of this machine that no process listens on."""
  with contextlib.ExitStack() as stack:
    sockets = [stack.enter_context(socket.socket()) for _ in range(number)]
    for each in sockets:
      each.bind(('127.0.0.1', 0))
    return [each.getsockname()[1] for each in sockets]


def get(url: str) -> str:
  """Returns the text at a URL of this machine; '' if there is no answer."""
  try:
    with urllib.request.urlopen(url, timeout=5) as response:
      return str(response.read(), 'utf-8')
  except (urllib.error.URLError, ConnectionError, TimeoutError):
    return ''


def start_worker_pool(engine: Engine, name: str = 'worker_pool') -> list[str]:
  """Starts a worker pool; returns the options that name it.

  The pool starts a Python process for each worker that the engine asks for.
  """
  (port,) = free_ports(1)
  engine.start(name, [sys.executable, '-m', 'beam_jobs.worker_pool', f'--port={port}'])
  engine.wait_for_port(port)
  return ['--environment_type=EXTERNAL', f'--environment_config=localhost:{port}']


def _end_with_launcher() -> None:
  """Asks Linux to kill this process when the launcher ends, however it ends."""
  set_parent_death_signal = 1
  ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGKILL)


def _is_open(port: int) -> bool:
  with socket.socket() as connection:
    return connection.connect_ex(('127.0.0.1', port)) == 0


def _worker_environment() -> dict[str, str]:
  """Returns the environment of workers: `python` is this interpreter.

  Relative entries of PYTHONPATH become absolute: a worker has another working folder.
  """
  environment = dict(os.environ)
  bin_folder = str(pathlib.Path(sys.executable).parent)
  environment['PATH'] = os.pathsep.join([bin_folder, environment.get('PATH', '')])
  paths = environment.get('PYTHONPATH', '').split(os.pathsep)
  environment['PYTHONPATH'] = os.pathsep.join(os.path.abspath(p) for p in paths if p)
  return environment
