"""How every command parses its flags, fails and exits.

A command keeps its flags in a `FlagValues` of its own, so that flags of two commands
never collide and all of them can be called from one process:

    FLAGS = cli.new_flags()
    _SEED = flags.DEFINE_integer('seed', 0, 'Hash seed.', flag_values=FLAGS)

    def main(unused: Sequence[str]) -> int: ...

    def run(argv: Sequence[str] | None = None) -> int:
      return cli.run('luna16-train', __doc__, main, FLAGS, argv)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
import contextlib
import difflib
import io
import os
import pathlib
import re
import select
import sys
from typing import Any, TypeVar

from absl import flags
from absl import logging

import luna_tfds
from luna_tfds.command_line import interruption as interruption_lib
from luna_tfds.command_line import logs
from luna_tfds.errors import JobError
from luna_tfds.errors import ScanError
from luna_tfds.errors import UsageError
from luna_tfds.errors import memory_problem
from luna_tfds.files import atomic_files
from luna_tfds.files import store_path

_T = TypeVar('_T')

EXIT_FAILED = 1
EXIT_USAGE = 2
_EXIT_BROKEN_PIPE = 141  # as a shell reports a process ended by SIGPIPE

_HELP_FLAGS = ('--help', '-h', '--helpfull', '-help', '--helpshort')
# What Python says of a text that is no number, and what is meant.
_PLAIN_TERMS = {
  r'invalid literal for int\(\) with base \d+: .*': 'must be an integer',
  r'could not convert string to float: .*': 'must be a number',
}
# Added by absl to the help of a flag that may be given several times.
_ABSL_MULTI_HELP = ';\n    repeat this option to specify a list of values'

# Least similarity (0 to 1) of a flag that is suggested for one that does not exist.
_FLAG_SIMILARITY = 0.7

# How absl describes the second name of a flag.
_ALIAS_HELP = re.compile(r'Alias for --(?P<name>\w+)\.')


def new_flags() -> flags.FlagValues:
  """Returns an empty set of flags with `--verbosity`."""
  values = flags.FlagValues()
  flags.DEFINE_enum(
    'verbosity', 'warning', logs.LEVELS, 'What is logged to stderr.', flag_values=values
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
    main: does the work; gets the arguments that are not flags of the command, and
      returns an exit code, None for 0.
    flag_values: the command's flags.
    argv: command line; `sys.argv` if None.
    pass_unknown: whether flags that are not the command's own are passed to `main`.

  Returns:
    The exit code: 0 success, 1 failure, 2 invalid flag or input file, 130 for Ctrl-C
    (SIGINT), 143 for SIGTERM, 141 if the reader of stdout has ended (`| head`).
  """
  argv = list(sys.argv if argv is None else argv)
  _open_missing_streams()
  # As stderr: a file name may be any bytes.
  if isinstance(sys.stdout, io.TextIOWrapper):
    sys.stdout.reconfigure(errors='backslashreplace')
  with interruption_lib.raised_as_keyboard_interrupt(name) as interruption:
    try:
      code = _run(name, doc, main, flag_values, argv, pass_unknown)
      sys.stdout.flush()
      return code
    except (Exception, KeyboardInterrupt) as error:
      # After a signal any error follows from it, e.g. a library's own exception.
      if interruption.signum is None and not isinstance(error, KeyboardInterrupt):
        return _report(name, error)
      print(interruption.message, file=sys.stderr)
      return interruption.exit_code


def _open_missing_streams() -> None:
  """Discards what is printed to a stream that the shell has closed (`>&-`)."""
  # Python has no object for such a stream, and libraries expect one.
  if sys.stdout is None:
    sys.stdout = open(os.devnull, 'w')  # noqa: SIM115
  if sys.stderr is None:
    sys.stderr = open(os.devnull, 'w')  # noqa: SIM115


def _run(
  name: str,
  doc: str,
  main: Callable[[list[str]], int | None],
  flag_values: flags.FlagValues,
  argv: list[str],
  pass_unknown: bool,
) -> int:
  """As `run`, but raises all errors."""
  if any(argument in _HELP_FLAGS for argument in argv[1:]):
    print(_help(name, doc, flag_values))
    return 0
  if '--version' in argv[1:]:
    print(f'{name} {luna_tfds.__version__}')
    return 0
  _check_file_names(argv[1:])
  rest = _parse(flag_values, [name, *argv[1:]], pass_unknown)
  logs.set_up(name, str(flag_values['verbosity'].value))
  return main(rest) or 0


def _report(name: str, error: Exception) -> int:
  """Prints an error that a user can cause, and returns its exit code.

  Raises:
    Exception: any other error, with its traceback.
  """
  if isinstance(error, BrokenPipeError) and _reader_has_ended():
    return _EXIT_BROKEN_PIPE
  if isinstance(error, flags.Error):
    return _fail(name, f'{_flag_problem(error)}; see {name} --help', EXIT_USAGE)
  if isinstance(error, UsageError | ScanError):
    return _fail(name, error, EXIT_USAGE)
  if not isinstance(error, JobError) and (problem := memory_problem(error)):
    fix = 'free some, or raise the limit of this process (ulimit -v)'
    return _fail(name, f'{problem}; {fix}', EXIT_FAILED)
  if isinstance(error, JobError | OSError):
    return _fail(name, error, EXIT_FAILED)
  raise error


def _reader_has_ended() -> bool:
  """Returns whether nobody reads stdout any more; then nothing more is written to it."""
  poll = select.poll()
  poll.register(sys.stdout, 0)
  # Linux reports an error, macOS that the other end has hung up.
  if not any(event & (select.POLLERR | select.POLLHUP) for _, event in poll.poll(0)):
    return False
  # Python flushes once more at its end, and would report the same error.
  with open(os.devnull, 'w') as nowhere:
    os.dup2(nowhere.fileno(), sys.stdout.fileno())
  return True


def unknown_flag(argument: str, known: Sequence[str]) -> UsageError:
  """Returns the error for a flag that does not exist, with the most similar one.

  Args:
    argument: as given, e.g. `--sede=3`.
    known: names of the flags that exist.
  """
  flag = argument.split('=')[0]
  name = flag.lstrip('-')
  close = difflib.get_close_matches(name, known, n=1, cutoff=_FLAG_SIMILARITY)
  hint = f'did you mean --{close[0]}?' if close else 'see --help'
  return UsageError(f'unknown argument {flag}; {hint}')


def parse_ints(text: str, flag: str) -> tuple[int, ...]:
  """Parses the value of a flag that lists integers, e.g. `48,48,48`."""
  try:
    return tuple(int(part) for part in text.split(','))
  except ValueError:
    raise UsageError(
      f'--{flag} must list integers separated by commas. Received: {text!r}'
    ) from None


def required_value(holder: flags.FlagHolder[_T | None]) -> _T:
  """Returns the value of a flag.

  Raises:
    UsageError: it is not given, or empty.
  """
  value = holder.value
  if value is None or value == '':
    raise UsageError(f'--{holder.name} is required')
  return value


def required_path(holder: flags.FlagHolder[str | None]) -> pathlib.Path:
  """As `required_value`, for a path or the URL of a store; `~` is expanded."""
  required_value(holder)
  path = optional_path(holder)
  assert path is not None
  return path


def optional_path(holder: flags.FlagHolder[str | None]) -> pathlib.Path | None:
  """Returns the path of a flag, with `~` expanded; None if not given or empty.

  Raises:
    UsageError: it is a URL that is not one of a store.
  """
  if not holder.value:
    return None
  try:
    return store_path.as_path(holder.value).expanduser()
  except UsageError as error:
    raise UsageError(f'--{holder.name}: {error}') from error


def as_usage_error(
  make: Callable[..., _T], *args: Any, flag_prefix: str = '', **fields: Any
) -> _T:
  """Calls `make(*args, **fields)`; a ValueError of its checks becomes a usage error.

  Args:
    make: e.g. a dataclass that checks its fields.
    *args: of `make`.
    flag_prefix: goes before the message, e.g. '--' where messages begin with the name
      of a field that has a flag of the same name.
    **fields: of `make`.

  Raises:
    UsageError: `make` raised a ValueError or TypeError.
  """
  try:
    return make(*args, **fields)
  except UsageError:
    raise
  except (ValueError, TypeError) as error:
    raise UsageError(f'{flag_prefix}{error}') from error


def make_output_folder(path: pathlib.Path, flag: str) -> None:
  """Makes the folder for results; call it before the work, so that none is lost.

  Args:
    path: the folder.
    flag: the flag that names the folder.

  Raises:
    UsageError: it cannot be made or written.
  """
  try:
    atomic_files.make_folders(path)
    if isinstance(path, store_path.StorePath):
      path.check_writable()
      return
  except OSError as error:
    raise UsageError(
      f'--{flag}: the folder {path} cannot be made: {error.strerror}; give another one'
    ) from error
  if not os.access(path, os.W_OK | os.X_OK):
    raise UsageError(f'--{flag}: the folder {path} cannot be written; give another one')


def load_tensorflow() -> None:
  """Imports TensorFlow without what it writes to stderr, if only warnings are logged.

  While TensorFlow loads it reports that it found no GPU, and no setting prevents that.
  Keras gets TensorFlow as its backend, also if its own config file names another one.

  Raises:
    UsageError: the environment variable KERAS_BACKEND names another backend.
  """
  backend = os.environ.get('KERAS_BACKEND') or 'tensorflow'
  if backend != 'tensorflow':
    raise UsageError(
      f'KERAS_BACKEND={backend} is not supported; unset it, or set it to tensorflow'
    )
  os.environ['KERAS_BACKEND'] = backend
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


def _check_file_names(arguments: Sequence[str]) -> None:
  """Raises UsageError unless file names are UTF-8, as SimpleITK and TensorFlow expect.

  Args:
    arguments: the command line; they are checked, and the working folder.
  """
  encoding = sys.getfilesystemencoding()
  if encoding != 'utf-8':
    raise UsageError(
      f'Python reads and writes file names as {encoding}; set the environment variable '
      'PYTHONUTF8=1, or a locale with UTF-8'
    )
  texts = list(arguments)
  with contextlib.suppress(FileNotFoundError):  # the working folder was deleted
    texts.append(os.getcwd())
  for text in texts:
    try:
      text.encode()
    except UnicodeEncodeError as error:
      shown = os.fsencode(text).decode(errors='backslashreplace')
      raise UsageError(f"'{shown}' is not valid UTF-8; rename it") from error


def _parse(
  flag_values: flags.FlagValues, argv: list[str], pass_unknown: bool
) -> list[str]:
  flag_values.unparse_flags()
  for flag in flag_values:
    flag_values[flag].unparse()
  rest = flag_values(argv, known_only=pass_unknown)[1:]
  if rest and not pass_unknown:
    raise unknown_flag(rest[0], list(flag_values))
  for argument in rest:
    if not argument.startswith('-'):
      continue
    flag = argument.partition('=')[0].lstrip('-').replace('-', '_').lower()
    if flag in flag_values:  # --luna-dir; nobody else has a flag of this name
      raise unknown_flag(argument, [flag])
  return rest


def _fail(name: str, message: object, code: int) -> int:
  print(f'{name}: error: {message}', file=sys.stderr)
  return code


def _flag_problem(error: flags.Error) -> str:
  """Returns absl's message on one line, beginning with the flag and in plain terms."""
  text = ' '.join(str(error).split()).removeprefix('flag ')
  for pattern, plain in _PLAIN_TERMS.items():
    text = re.sub(pattern, plain, text)
  return text


def _help(name: str, doc: str, flag_values: flags.FlagValues) -> str:
  aliases: dict[str, list[str]] = {}
  for flag in flag_values:
    if match := _ALIAS_HELP.fullmatch(str(flag_values[flag].help)):
      aliases.setdefault(match['name'], []).append(flag)
  hidden = {alias for names in aliases.values() for alias in names}
  lines = [doc.strip(), '', f'{name} flags:']
  for flag in sorted(flag_values, key=lambda f: (f == 'verbosity', f)):
    if flag in hidden:
      continue
    item = flag_values[flag]
    default = '' if item.default is None else f' (default: {item.default_as_str})'
    also = ''.join(f' (or --{alias})' for alias in aliases.get(flag, ()))
    # Of a flag that may be given several times; a help text of ours says so.
    text = str(item.help).removesuffix(_ABSL_MULTI_HELP)
    lines.append(f'  --{flag}{also}: {text}{default}')
  lines.append('  --version: Prints the version and exits.')
  return '\n'.join(lines)
