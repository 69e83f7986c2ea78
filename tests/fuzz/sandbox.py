"""Runs a reader on one input and reports what it must not do."""

import dataclasses
import os
import pathlib
import resource
import signal
import sys
import tempfile
import traceback
import warnings

# More than a reader needs for the small files here; every bomb needs more.
MAX_GROWTH_BYTES = 400 * 2**20

# Processor time.
MAX_SECS = 30

# Real time, as a wait for a file that never comes takes no processor time. Long, because
# a busy machine may give the process no processor for half a minute.
MAX_REAL_SECS = 300

# The timers that end a reader, and what each of them sends.
_LIMITS = (
  (signal.ITIMER_PROF, signal.SIGPROF, MAX_SECS),
  (signal.ITIMER_REAL, signal.SIGALRM, MAX_REAL_SECS),
)
TIME_SIGNALS = tuple(signum for _, signum, _ in _LIMITS)

ROOT = pathlib.Path(__file__).parents[2]

_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
# Events of `sys.addaudithook` that no reader may raise, whatever the arguments.
_FORBIDDEN_EVENTS = (
  *('os.system', 'os.exec', 'os.posix_spawn', 'os.spawn', 'subprocess.Popen'),
  *('socket.connect', 'socket.getaddrinfo', 'pickle.find_class'),
)
_PATH_EVENTS = ('os.remove', 'os.rename', 'os.mkdir', 'os.rmdir', 'os.symlink')


@dataclasses.dataclass(frozen=True)
class Finding:
  """What a reader did wrong.

  Attributes:
    signature: equal for findings with the same cause, as far as can be known.
    text: for the report.
  """

  signature: str
  text: str


class Sandbox:
  """Limits of memory, time and files for a reader in this process.

  Attributes:
    folder: where the files of an input are written, and the only folder that the reader
      may use, besides those of Python, the installed packages, the project and the seeds.
  """

  def __init__(self, folder):
    self.folder = folder
    self._forbidden = []
    self._is_active = False
    self._readable = [
      os.path.realpath(path)
      for path in (sys.prefix, sys.base_prefix, ROOT, '/proc', '/sys', *sys.path)
      if path
    ]
    self._readable += ['/dev/null', '/dev/urandom', '/dev/random', '/etc/localtime']
    self._readable.append(os.path.realpath(folder.parent / 'seeds'))
    self._peak = 0
    sys.addaudithook(self._on_event)

  def start(self):
    """Sets the limit of memory, after the libraries are loaded."""
    tempfile.tempdir = str(self.folder)
    self._peak = _peak_bytes()
    used = int(pathlib.Path('/proc/self/statm').read_text().split()[0])
    limit = used * resource.getpagesize() + 8 * MAX_GROWTH_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))

  def check(self, read, errors):
    """Runs a reader on the files in the folder.

    A reader that takes too long is ended by one of `TIME_SIGNALS`, with its process.

    Args:
      read: called with the folder.
      errors: the exceptions that a command turns into one line.

    Returns:
      The `Finding`, or None if the reader returned or raised one of `errors`.
    """
    self._forbidden.clear()
    finding = None
    for timer, signum, secs in _LIMITS:
      signal.signal(signum, signal.SIG_DFL)
      signal.setitimer(timer, secs)
    self._is_active = True
    try:
      with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        read(self.folder)
    except errors as error:
      finding = _message_problem(error)
    except BaseException as error:
      finding = _from_exception(error)
    finally:
      self._is_active = False
      for timer, _, _ in _LIMITS:
        signal.setitimer(timer, 0)
    peak, before = _peak_bytes(), self._peak
    self._peak = max(peak, before)
    if finding is None and self._forbidden:
      finding = Finding(f'forbidden {self._forbidden[0]}', '\n'.join(self._forbidden))
    if finding is None and peak - before > MAX_GROWTH_BYTES:
      megabytes = (peak - before) >> 20
      finding = Finding('memory', f'the peak of memory grew by {megabytes} MiB')
    return finding

  def _on_event(self, event, arguments):
    if not self._is_active:
      return
    if event in _FORBIDDEN_EVENTS:
      self._forbidden.append(f'{event} {arguments!r}'[:300])
    elif event == 'open' and isinstance(arguments[0], str | bytes):
      flags = arguments[2] if isinstance(arguments[2], int) else 0
      self._check_path(arguments[0], writes=bool(flags & _WRITES), event=event)
    elif event in _PATH_EVENTS:
      path, folder = arguments[0], arguments[-1]
      # `shutil.rmtree` names files relative to an open folder.
      if isinstance(path, str | bytes) and isinstance(folder, int) and folder >= 0:
        path = os.path.join(f'/proc/self/fd/{folder}', os.fsdecode(path))
      self._check_path(path, writes=True, event=event)

  def _check_path(self, path, *, writes, event):
    if isinstance(path, int):
      return
    real = os.path.realpath(os.fsdecode(path))
    allowed = [os.path.realpath(self.folder)] + ([] if writes else self._readable)
    if real == '/dev/null' or any(_is_in(real, folder) for folder in allowed):
      return
    self._forbidden.append(f'{event} {real}')


def _is_in(path, folder):
  return path == folder or path.startswith(folder.rstrip('/') + '/')


def _peak_bytes():
  return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _message_problem(error):
  """Returns a finding if the message is not one or two lines, or tells of memory."""
  text = str(error)
  if isinstance(error, MemoryError) or 'bad_alloc' in text or 'allocate memory' in text:
    return _from_exception(error)
  if text.count('\n') > 1 or len(text) > 2000 or not text:
    where = _signature(error)
    return Finding(f'message {where}', f'{where}: not one line: {text[:3000]!r}')
  try:
    text.encode()
  except UnicodeEncodeError:
    return Finding(f'encoding {_signature(error)}', f'cannot be printed: {text!a}')
  return None


def _from_exception(error):
  lines = traceback.format_exception(error)
  return Finding(_signature(error), ''.join(lines)[-4000:])


def _signature(error):
  """Returns the type of the error and the last line of the project that it passed."""
  frames = traceback.extract_tb(error.__traceback__)
  own = [
    frame
    for frame in frames
    if frame.filename.startswith(str(ROOT)) and '/tests/' not in frame.filename
  ]
  frame = (own or frames)[-1]
  return f'{type(error).__name__} {pathlib.Path(frame.filename).name}:{frame.lineno}'
