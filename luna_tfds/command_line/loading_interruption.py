"""Ctrl-C while the modules of a command are loaded; this module itself loads in no time."""

from __future__ import annotations

from collections.abc import Sequence
import os
import signal
import sys

# Packages whose modules can be started with `python -m`.
_PACKAGES = ('luna_tfds', 'beam_jobs', 'trainer')


def exit_on_interrupt_while_loading() -> None:
  """Lets a command end on Ctrl-C without a traceback while its modules are loaded.

  TFDS alone takes a second. In other programs, which import this package, and in threads
  nothing changes.
  """
  name = _command(sys.orig_argv)
  if name is None or signal.getsignal(signal.SIGINT) != signal.default_int_handler:
    return
  line = f'{name}: error: interrupted\n'.encode()

  def end(*unused: object) -> None:
    try:
      os.write(2, line)
    finally:  # stderr may be closed
      os._exit(128 + signal.SIGINT)

  try:
    signal.signal(signal.SIGINT, end)
  except ValueError:  # not the main thread
    return


def _command(argv: Sequence[str]) -> str | None:
  """Returns the command of this project that a command line starts, None if none.

  Args:
    argv: the interpreter, and `luna16-extract ...` or `-m beam_jobs.extract_patches ...`.
  """
  if len(argv) > 2 and argv[1] == '-m':
    return argv[2] if argv[2].partition('.')[0] in _PACKAGES else None
  name = os.path.basename(argv[1]) if len(argv) > 1 else ''
  return name if name.startswith('luna16-') else None
