"""The processes that a process has started (Linux)."""

import contextlib
import pathlib


def children(pid):
  """Returns the ids of the processes that any thread of a process has started."""
  found = []
  for thread in pathlib.Path(f'/proc/{pid}/task').iterdir():
    with contextlib.suppress(FileNotFoundError):  # the thread has just ended
      found += [int(child) for child in (thread / 'children').read_text().split()]
  return found


def command_lines(pids):
  """Returns the command lines of those processes that still run."""
  lines = []
  for pid in pids:
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
      lines.append(pathlib.Path(f'/proc/{pid}/cmdline').read_text())
  return lines
