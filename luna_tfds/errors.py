"""Errors that a user can cause; each message is one line."""

from __future__ import annotations

# What messages contain when memory runs out: of an error that another one contains, of the
# system when it loads a library, of Python when it starts a thread, of the system.
_MEMORY_MESSAGES = (
  'MemoryError',
  'failed to map segment from shared object',
  "can't start new thread",
  'Cannot allocate memory',
)


class UsageError(ValueError):
  """A flag or an input file is invalid; the message names it and the fix.

  Commands print the message and exit with code 2.
  """


class ScanError(ValueError):
  """A scan cannot be read; the message names the file and the reason."""


class JobError(RuntimeError):
  """A job with valid inputs failed; the message says what was kept for the next run.

  Commands print the message and exit with code 1.
  """


def memory_problem(error: BaseException) -> str | None:
  """Returns the line that tells that memory ran out; None for any other error."""
  lines = str(error).strip().splitlines()
  reason = next((li for li in lines if any(m in li for m in _MEMORY_MESSAGES)), None)
  if isinstance(error, MemoryError):
    reason = lines[0] if lines else 'MemoryError'
  return reason and f'not enough memory ({reason.strip()})'
