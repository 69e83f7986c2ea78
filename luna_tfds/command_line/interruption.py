"""SIGINT (Ctrl-C) and SIGTERM end a command in the same way: by a KeyboardInterrupt."""

from __future__ import annotations

from collections.abc import Iterator
import contextlib
import dataclasses
import logging
import os
import signal
import sys
import threading
import time
from types import FrameType

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
# One Ctrl-C may arrive twice, e.g. through a wrapper that passes it on.
_SAME_REQUEST_SECS = 1.0
# A training writes a checkpoint before it ends.
_MAX_SECS_TO_END = 60.0


@dataclasses.dataclass
class Interruption:
  """The first signal that a command received.

  Attributes:
    name: the command.
    signum: the signal; None if none was received.
  """

  name: str
  signum: int | None = None

  @property
  def message(self) -> str:
    """The line for stderr."""
    reason = 'terminated' if self.signum == signal.SIGTERM else 'interrupted'
    return f'{self.name}: error: {reason}'

  @property
  def exit_code(self) -> int:
    """130 or 143, as of a shell."""
    return 128 + (self.signum or signal.SIGINT)


@contextlib.contextmanager
def raised_as_keyboard_interrupt(name: str) -> Iterator[Interruption]:
  """Raises KeyboardInterrupt in the main thread when SIGINT or SIGTERM is received.

  A library may wrap the exception in another one, or lose it; the caller must look at
  `signum`. A second signal, or a minute in which the block does not end, ends the process
  at once. In other threads, which receive no signals, nothing happens.

  Args:
    name: the command, for its last line.

  Yields:
    What is known of the signal.
  """
  interruption = Interruption(name)
  if threading.current_thread() is not threading.main_thread():
    yield interruption
    return
  logs_disabled = logging.root.manager.disable
  deadline = threading.Timer(_MAX_SECS_TO_END, _exit, [interruption])
  deadline.daemon = True
  first_time = 0.0

  def handle(signum: int, frame: FrameType | None) -> None:
    """Interrupts the command; ends the process if it is asked a second time."""
    nonlocal first_time
    if interruption.signum is None:
      interruption.signum, first_time = signum, time.monotonic()
      if logging.root.level > logging.DEBUG:  # libraries log it as an error of theirs
        logging.disable(logging.CRITICAL)
      deadline.start()
      raise KeyboardInterrupt
    if time.monotonic() - first_time > _SAME_REQUEST_SECS:
      _exit(interruption)

  # A signal that is ignored (`nohup`, `&` in a script) stays ignored.
  handled = [s for s in _SIGNALS if signal.getsignal(s) != signal.SIG_IGN]
  before = [(s, signal.signal(s, handle)) for s in handled]
  try:
    yield interruption
  finally:
    for signum, handler in before:
      signal.signal(signum, handler)
    deadline.cancel()
    logging.disable(logs_disabled)


def _exit(interruption: Interruption) -> None:
  """Ends the process; worker processes notice it and end, too."""
  with contextlib.suppress(OSError):
    print(interruption.message, file=sys.stderr, flush=True)
  os._exit(interruption.exit_code)
