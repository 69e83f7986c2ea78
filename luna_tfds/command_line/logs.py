"""What a command logs to stderr: its own warnings as lines, and nothing of libraries."""

from __future__ import annotations

import logging as python_logging
import os
import sys
import warnings

from absl import flags
from absl import logging

# Values of --verbosity.
LEVELS = ('debug', 'info', 'warning', 'error')


class _LineOfCommand(python_logging.Formatter):
  """Formats warnings as the lines that a command prints itself."""

  def __init__(self, name: str):
    super().__init__()
    self._name = name

  def format(self, record: python_logging.LogRecord) -> str:
    """Returns `command: warning: message`."""
    return f'{self._name}: {record.levelname.lower()}: {super().format(record)}'


def _is_not_of_tfds(record: python_logging.LogRecord) -> bool:
  """Returns False for warnings of TFDS, which logs through absl's logger as we do.

  Its errors are shown.
  """
  is_error = record.levelno >= python_logging.ERROR
  return is_error or 'tensorflow_datasets/core/' not in record.pathname


def set_up(name: str, level: str) -> None:
  """Sets what is logged to stderr, and how, also by TensorFlow, gRPC and `warnings`.

  Args:
    name: the command, as the user types it.
    level: one of `LEVELS`.
  """
  # Commands have their own flags; without this absl warns that its own are not parsed.
  flags.FLAGS.mark_as_parsed()
  logging.use_absl_handler()
  logging.set_verbosity(getattr(logging, level.upper()))
  quiet = level in ('warning', 'error')
  handler = logging.get_absl_handler()
  handler.removeFilter(_is_not_of_tfds)
  if quiet:
    handler.setFormatter(_LineOfCommand(name))
    handler.addFilter(_is_not_of_tfds)
  # Libraries log to the root logger; our own warnings go through absl's logger, which
  # takes the level of the root logger if it has none.
  python_logging.getLogger().setLevel('ERROR' if quiet else level.upper())
  logging.get_absl_logger().setLevel(level.upper())
  # It logs errors of requests to stores that nobody waits for any more, with tracebacks,
  # when they are garbage. An error that matters is raised.
  python_logging.getLogger('asyncio').setLevel('CRITICAL' if quiet else level.upper())
  # TensorFlow's C++ reads this when it loads; it is not loaded before a command knows
  # its flags.
  os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3' if quiet else '0')
  os.environ.setdefault('GRPC_VERBOSITY', 'ERROR' if quiet else 'INFO')
  if quiet and not sys.warnoptions:  # the user asked for other warnings with -W
    for category in (FutureWarning, UserWarning, DeprecationWarning):
      warnings.filterwarnings('ignore', category=category)
