"""What a worker process runs first: it makes sure that the worker ends with its launcher.

Started as a script, so that nothing of the package is loaded before: loading it and the
libraries of a call takes seconds, in which the launcher can be killed.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time

_PR_SET_PDEATHSIG = 1  # of Linux's <sys/prctl.h>
_POLL_SECS = 0.1


def end_with_launcher(launcher_pid: int) -> None:
  """Makes the system kill this process when its launcher ends, however that happens.

  On Linux the kernel does it; elsewhere a thread compares the parent process.

  Args:
    launcher_pid: the process that started this one, by a thread that waits for it.
  """
  if not _set_parent_death_signal():
    watch = threading.Thread(target=_watch, args=[launcher_pid], daemon=True)
    watch.start()
  if os.getppid() != launcher_pid:  # it has ended already
    os._exit(1)


def _set_parent_death_signal() -> bool:
  """Returns whether the kernel kills this process when its parent ends."""
  if sys.platform != 'linux':
    return False
  try:
    import ctypes

    return bool(ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL)) == 0)
  except (AttributeError, ImportError, OSError):  # Python without ctypes or libc
    return False


def _watch(launcher_pid: int) -> None:
  while os.getppid() == launcher_pid:
    time.sleep(_POLL_SECS)
  os._exit(1)


if __name__ == '__main__':
  end_with_launcher(int(sys.argv[1]))
  from luna_tfds.processes import worker_processes

  worker_processes.serve_call(sys.argv[2])
