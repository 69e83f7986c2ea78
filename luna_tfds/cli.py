"""How every command parses its flags, fails and exits.

A command keeps its flags in a `FlagValues` of its own, so that flags of two commands
never collide and all of them can be called from one process:

    FLAGS = cli.new_flags()
    _SEED = flags.DEFINE_integer('seed', 0, 'Seed of ...', flag_values=FLAGS)

    def main(unused: Sequence[str]) -> int: ...

    def run(argv: Sequence[str] | None = None) -> int:
      return cli.run('luna16-train', __doc__, main, FLAGS, argv)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
import difflib
import logging as python_logging
import os
import sys
from typing import Any
import warnings

from absl import flags
from absl import logging

from luna_tfds.errors import JobError
from luna_tfds.errors import ScanError
from luna_tfds.errors import UsageError

EXIT_FAILED = 1
EXIT_USAGE = 2
_EXIT_INTERRUPTED = 130

_LEVELS = ('debug', 'info', 'warning', 'error')


def new_flags() -> flags.FlagValues:
  """Returns an empty set of flags with `--verbosity`."""
  values = flags.FlagValues()
  flags.DEFINE_enum(
    'verbosity', 'warning', _LEVELS, 'What is logged to stderr.', flag_values=values
  )
  return values


def run(
  name: str,
  doc: str,
  main: Callable[[list[str]], int | None],
  flag_values: flags.FlagValues,
  argv: Sequence[str] | None = None,
  *,
  pass_unknown: bool = False,
) -> int:
  """Parses flags and runs a command.

  Args:
    name: the command, as the user types it.
    doc: its module docstring, printed by --help.
    main: does the work; gets the arguments it has to judge itself and returns an exit
      code, None for 0.
    flag_values: the command's flags.
    argv: command line; `sys.argv` if None.
    pass_unknown: whether flags that are not the command's own go to `main`.

  Returns:
    The exit code: 0 done, 1 failed, 2 a flag or an input file is wrong.
  """
  argv = list(sys.argv if argv is None else argv)
  if any(a in ('--help', '-h', '--helpfull', '-help') for a in argv[1:]):
    print(_help(name, doc, flag_values))
    return 0
  try:
    rest = _parse(flag_values, [name, *argv[1:]], pass_unknown)
    _set_up_logging(str(flag_values['verbosity'].value))
    return main(rest) or 0
  except flags.Error as error:
    return _fail(name, f'{_one_line(error)}; see {name} --help', EXIT_USAGE)
  except (UsageError, ScanError) as error:
    return _fail(name, error, EXIT_USAGE)
  except (JobError, OSError) as error:
    return _fail(name, error, EXIT_FAILED)
  except KeyboardInterrupt:
    return _fail(name, 'interrupted', _EXIT_INTERRUPTED)


def unknown_flag(argument: str, known: Sequence[str]) -> UsageError:
  """Returns the error for a flag nobody knows, with the nearest one that exists."""
  flag = argument.split('=')[0]
  close = difflib.get_close_matches(flag.lstrip('-'), known, n=1)
  hint = f'; did you mean --{close[0]}?' if close else ''
  return UsageError(f'unknown argument {flag}{hint}')


def integers(text: str, flag: str) -> tuple[int, ...]:
  """Parses the value of a flag that lists whole numbers, e.g. `48,48,48`."""
  try:
    return tuple(int(part) for part in text.split(','))
  except ValueError:
    raise UsageError(
      f'--{flag} lists whole numbers separated by commas. Received: {text!r}'
    ) from None


def required(holder: flags.FlagHolder[Any]) -> Any:
  """Returns the value of a flag that must be given."""
  if holder.value in (None, ''):
    raise UsageError(f'--{holder.name} is required')
  return holder.value


def checked(make: Callable[..., Any], *args: Any, **fields: Any) -> Any:
  """Calls `make(*args, **fields)`; a ValueError of its checks becomes a usage error."""
  try:
    return make(*args, **fields)
  except UsageError:
    raise
  except (ValueError, TypeError) as error:
    raise UsageError(str(error)) from error


def load_tensorflow() -> None:
  """Imports TensorFlow, silently unless more than warnings is to be logged.

  While it loads it writes to stderr that it found no GPU, and no setting stops it.
  """
  if logging.get_verbosity() > logging.WARNING:  # absl counts up to debug
    import tensorflow

    return
  sys.stderr.flush()
  stderr = os.dup(2)
  with open(os.devnull, 'w') as nowhere:
    os.dup2(nowhere.fileno(), 2)
    try:
      import tensorflow  # noqa: F401
    finally:
      os.dup2(stderr, 2)
      os.close(stderr)


def _parse(
  flag_values: flags.FlagValues, argv: list[str], pass_unknown: bool
) -> list[str]:
  flag_values.unparse_flags()
  for flag in flag_values:
    flag_values[flag].unparse()
  rest = flag_values(argv, known_only=pass_unknown)[1:]
  if rest and not pass_unknown:
    raise unknown_flag(rest[0], list(flag_values))
  return rest


def _set_up_logging(level: str) -> None:
  logging.use_absl_handler()
  logging.set_verbosity(getattr(logging, level.upper()))
  quiet = level in ('warning', 'error')
  # Libraries log to the root; our own warnings go through absl's logger.
  python_logging.getLogger().setLevel('ERROR' if quiet else level.upper())
  # TensorFlow's C++ reads this when it loads; it is not loaded before a command knows
  # its flags.
  os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3' if quiet else '0')
  os.environ.setdefault('GRPC_VERBOSITY', 'ERROR' if quiet else 'INFO')
  if quiet:
    for category in (FutureWarning, UserWarning, DeprecationWarning):
      warnings.filterwarnings('ignore', category=category)


def _fail(name: str, message: object, code: int) -> int:
  print(f'{name}: error: {message}', file=sys.stderr)
  return code


def _one_line(error: Exception) -> str:
  return ' '.join(str(error).split()).removeprefix('FATAL Flags parsing error: ')


def _help(name: str, doc: str, flag_values: flags.FlagValues) -> str:
  lines = [doc.strip(), '', f'{name} flags:']
  for flag in sorted(flag_values, key=lambda f: (f == 'verbosity', f)):
    item = flag_values[flag]
    default = '' if item.default is None else f' (default: {item.default_as_str})'
    lines += [f'  --{flag}: {item.help}{default}']
  return '\n'.join(lines)
