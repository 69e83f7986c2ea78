"""Trainings in processes of their own, which all end when the launcher is interrupted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import contextlib
import os
import pathlib
import signal
import subprocess
import sys
import threading

from luna_tfds.files import local_files

# A training that is interrupted writes a checkpoint before it ends.
_MAX_SECS_TO_END = 50.0


class StoppedError(Exception):
  """No training is started any more."""


class TrainingProcesses:
  """Processes that run luna16-train.

  `run` is called in threads, `stop` in the main thread, where Ctrl-C and SIGTERM raise
  KeyboardInterrupt. Only the launcher reacts to Ctrl-C: a terminal sends it to all of its
  processes, and a training that receives it twice ends without a checkpoint.
  """

  def __init__(self) -> None:
    self._lock = threading.Lock()
    self._running: list[subprocess.Popen[bytes]] = []
    self._is_stopped = False

  def run(
    self, arguments: Sequence[str], log: pathlib.Path, environment: Mapping[str, str]
  ) -> int:
    """Runs a training.

    Args:
      arguments: command-line arguments of luna16-train.
      log: gets its output.
      environment: variables that are set in addition to those of this process.

    Returns:
      Its exit code.

    Raises:
      StoppedError: `stop` was called before.
    """
    with contextlib.ExitStack() as stack:
      # The log of a training in a store is uploaded when it ends.
      local = stack.enter_context(local_files.local_folder(log.parent)) / log.name
      local.parent.mkdir(exist_ok=True)
      file = stack.enter_context(local.open('w'))
      with self._lock:
        if self._is_stopped:
          raise StoppedError
        process = _start(arguments, file.fileno(), environment)
        self._running.append(process)
      code = process.wait()
      with self._lock:
        self._running.remove(process)
      return code

  def stop(self) -> None:
    """Ends all trainings, and starts no other one.

    Each saves its state and ends; it is killed if that takes long.
    """
    with self._lock:
      self._is_stopped = True
      running = list(self._running)
      for process in running:
        process.terminate()
    killer = threading.Timer(_MAX_SECS_TO_END, _kill, [running])
    killer.daemon = True
    killer.start()
    try:
      for process in running:
        process.wait()
    finally:
      killer.cancel()


def _start(
  arguments: Sequence[str], output: int, environment: Mapping[str, str]
) -> subprocess.Popen[bytes]:
  # A process inherits which signals the thread that starts it has blocked.
  before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
  try:
    return subprocess.Popen(
      [sys.executable, '-m', 'trainer.train', *arguments],
      stdin=subprocess.DEVNULL,
      stdout=output,
      stderr=subprocess.STDOUT,
      env={**os.environ, **environment},
    )
  finally:
    signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _kill(processes: Sequence[subprocess.Popen[bytes]]) -> None:
  for process in processes:
    process.kill()
