"""One line for a failure of the pipeline, whatever the runner."""

from __future__ import annotations

from collections.abc import Callable, Iterator
import contextlib
import dataclasses
import logging
import threading

from beam_jobs.job_folder import LESS_MEMORY
from beam_jobs.job_folder import JobFolder
from luna_tfds.errors import JobError
from luna_tfds.errors import UsageError
from luna_tfds.errors import memory_problem
from luna_tfds.processes.worker_processes import WorkerDiedError

_JAVA = 'Caused by: '


@contextlib.contextmanager
def as_job_errors(folder: JobFolder) -> Iterator[None]:
  """Converts an error of the runner to a JobError of one line; logs the details.

  Raises:
    JobError: the pipeline failed.
    KeyboardInterrupt: it was interrupted, which Beam reports as a failure.
  """
  try:
    with _without_stack_traces_of_beam():
      yield
  except WorkerDiedError as error:
    raise folder.job_error(f'{error}; if memory ran out, {LESS_MEMORY}') from error
  except (JobError, UsageError):
    raise
  except OSError as error:
    if not _is_connection_error(error):
      raise
    # An error of requests contains that of urllib3, and this the reason.
    reason = getattr(error.args[0], 'reason', error) if error.args else error
    raise folder.job_error(f'lost the connection to the engine: {reason}') from error
  except Exception as error:  # each runner wraps the errors of workers in its own way
    interrupt = _interrupt(error)
    if interrupt is not None:
      raise interrupt from None
    logging.debug('the pipeline failed', exc_info=True)
    problem = memory_problem(error)
    message = f'{problem}; {LESS_MEMORY}' if problem else _cause(error)
    raise folder.job_error(message) from error


@contextlib.contextmanager
def _without_stack_traces_of_beam() -> Iterator[None]:
  """Hides stack traces of errors that are reported in one line, except at level INFO.

  They come from the thread in which Beam reads the messages of an engine: those in the
  messages, and its own if the connection is lost.
  """
  logger = logging.getLogger()

  def is_shown(record: logging.LogRecord) -> bool:
    return record.module != 'portable_runner' or logger.isEnabledFor(logging.INFO)

  # It stays: the thread may lose the connection after the job, when the engine ends.
  hook = threading.excepthook
  if not isinstance(hook, _HideLostConnection):
    threading.excepthook = _HideLostConnection(hook)
  logger.addFilter(is_shown)
  try:
    yield
  finally:
    logger.removeFilter(is_shown)


@dataclasses.dataclass(frozen=True)
class _HideLostConnection:
  """A `threading.excepthook` that ignores the thread of Beam.

  Attributes:
    hook: the former hook, for all other threads.
  """

  hook: Callable[[threading.ExceptHookArgs], object]

  def __call__(self, args: threading.ExceptHookArgs) -> None:
    """Reports an exception that has ended a thread."""
    if args.thread is None or args.thread.name != 'wait_until_finish_read':
      self.hook(args)


def _is_connection_error(error: OSError) -> bool:
  """Returns whether an error comes from the network: the files of a job are none."""
  # Runners use requests, which is not loaded for local jobs.
  return (
    isinstance(error, ConnectionError)
    or type(error).__module__ == 'requests.exceptions'
  )


def _cause(error: BaseException) -> str:
  """Returns the line with the error of the worker: the last that names an exception.

  A Java process of an engine adds its own exceptions, which matter if Python has none.
  """
  lines = [line.strip() for line in str(error).splitlines() if line.strip()]
  lines = [line for line in lines if not line.startswith(('at ', '... '))]
  named = [line for line in lines if line.split(':')[0].endswith('Error')]
  java = [line.removeprefix(_JAVA) for line in lines if line.startswith(_JAVA)]
  return (named or java or lines or [type(error).__name__])[-1]


def _interrupt(error: BaseException | None) -> KeyboardInterrupt | None:
  """Returns the interrupt that led to an error, if any."""
  while error is not None and not isinstance(error, KeyboardInterrupt):
    error = error.__cause__ or error.__context__
  return error
