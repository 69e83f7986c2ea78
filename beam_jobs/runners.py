"""Which runner carries the pipeline out, and with which options."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
import contextlib
import logging
import shlex
import sys
from typing import Any, NoReturn

import apache_beam as beam
from apache_beam.options import pipeline_options
from apache_beam.runners.portability import fn_api_runner
from apache_beam.transforms import environments

from beam_jobs.job_folder import JobFolder
from luna_tfds import cli
from luna_tfds.errors import JobError
from luna_tfds.errors import UsageError

# Since Beam 2.6x DirectRunner means: download Prism and try that first. Here it means
# what it says.
_LOCAL = (None, 'DirectRunner', 'FnApiRunner', 'direct')


class _Parser(argparse.ArgumentParser):
  """Raises where argparse would print its usage and exit."""

  def error(self, message: str) -> NoReturn:
    raise UsageError(message)


def parse(
  arguments: Sequence[str], own_flags: Sequence[str]
) -> tuple[str | None, pipeline_options.PipelineOptions]:
  """Parses Beam's part of the command line.

  Args:
    arguments: what the command itself did not know.
    own_flags: names of the command's flags, for hints.

  Returns:
    (name of the runner or None, all options).

  Raises:
    UsageError: neither does Beam know one of them.
  """
  parser = _Parser(add_help=False, allow_abbrev=False)
  for options_class in pipeline_options.PipelineOptions.__subclasses__():
    with contextlib.suppress(argparse.ArgumentError):  # a runner's own copy of a flag
      options_class._add_argparse_args(parser)  # type: ignore[arg-type]
  known = [o.lstrip('-') for a in parser._actions for o in a.option_strings]
  if arguments:
    _, unknown = parser.parse_known_args(arguments)
    if unknown:
      raise cli.unknown_flag(unknown[0], [*own_flags, *known])
  options = pipeline_options.PipelineOptions(list(arguments))
  return options.view_as(pipeline_options.StandardOptions).runner, options


def pipeline(
  runner: Any, options: pipeline_options.PipelineOptions | None, num_workers: int
) -> beam.Pipeline:
  """Returns a pipeline for a runner.

  Args:
    runner: a runner, its name, or None for the cores of this machine.
    options: Beam's options.
    num_workers: processes of the local runner.
  """
  options = options or pipeline_options.PipelineOptions([])
  if runner not in _LOCAL:
    try:
      return beam.Pipeline(runner=runner, options=options)
    except ValueError as error:
      raise UsageError(f'--runner={runner}: {error}') from error
  direct = options.view_as(pipeline_options.DirectOptions)
  direct.direct_num_workers = num_workers
  # What `multi_processing` would do, with a worker that heeds the log level.
  direct.direct_running_mode = 'in_memory'
  environment = None
  if num_workers > 1:
    level = logging.getLevelName(max(logging.getLogger().level, logging.INFO))
    environment = environments.SubprocessSDKEnvironment.from_command_string(
      f'{shlex.quote(sys.executable)} -m beam_jobs.local_worker {level}'
    )
  return beam.Pipeline(runner=fn_api_runner.FnApiRunner(environment), options=options)


@contextlib.contextmanager
def failures_as_job_errors(folder: JobFolder) -> Iterator[None]:
  """Turns a failure of the runner into one line; the log keeps the rest."""
  try:
    yield
  except (JobError, OSError, UsageError):
    raise
  except Exception as error:  # a runner wraps what a worker raised as it likes
    logging.debug('the pipeline failed', exc_info=True)
    raise JobError(
      f'{_cause(error)}; finished shards are kept in {folder.incomplete}: run the same '
      'command again to go on'
    ) from error


def _cause(error: BaseException) -> str:
  """The line that tells what a worker raised: the last that looks like an error."""
  lines = [line.strip() for line in str(error).splitlines() if line.strip()]
  named = [line for line in lines if line.split(':')[0].endswith('Error')]
  return (named or lines or [type(error).__name__])[-1]
