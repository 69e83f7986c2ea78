"""Beam's part of the command line, and the runner of the pipeline."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
import contextlib
import logging
from typing import NoReturn

import apache_beam as beam
from apache_beam.options import pipeline_options
from apache_beam.runners.portability.fn_api_runner import fn_runner
from apache_beam.runners.runner import PipelineRunner

from beam_jobs.job_folder import JobFolder
from luna_tfds import cli
from luna_tfds.errors import JobError
from luna_tfds.errors import UsageError
from luna_tfds.worker_processes import WorkerDiedError

# Names of the local runner, in lower case and without 'runner'. Beam's own DirectRunner
# would first try to download Prism.
_LOCAL_RUNNERS = ('', 'direct', 'switchingdirect', 'bundlebaseddirect', 'fnapi')


class _Parser(argparse.ArgumentParser):
  """Raises UsageError, where argparse prints its usage and exits."""

  def error(self, message: str) -> NoReturn:
    raise UsageError(message)


def parse(
  arguments: Sequence[str], own_flags: Sequence[str]
) -> tuple[str | None, pipeline_options.PipelineOptions]:
  """Parses Beam's part of the command line.

  Args:
    arguments: arguments that are not flags of the command.
    own_flags: names of the command's flags, for suggestions.

  Returns:
    (name of the runner or None, all options).

  Raises:
    UsageError: an argument is unknown to Beam, or invalid.
  """
  parser = _Parser(add_help=False, allow_abbrev=False)
  for options_class in pipeline_options.PipelineOptions.__subclasses__():
    with contextlib.suppress(argparse.ArgumentError):  # defined by another class, too
      # Private, but Beam has no public list of its flags.
      options_class._add_argparse_args(parser)  # type: ignore[arg-type]
  # Private, too: argparse has no public list of its options.
  known = [o.lstrip('-') for a in parser._actions for o in a.option_strings]
  if arguments:
    _, unknown = parser.parse_known_args(arguments)
    if unknown:
      raise cli.unknown_flag(unknown[0], [*own_flags, *known])
  options = pipeline_options.PipelineOptions(list(arguments))
  return options.view_as(pipeline_options.StandardOptions).runner, options


def resolve(
  runner: str | PipelineRunner | None, options: pipeline_options.PipelineOptions
) -> str | PipelineRunner | None:
  """Returns the runner to use: None for the local one, whatever name it was given.

  Args:
    runner: a runner or its name; None takes the runner of the options.
    options: options of Beam.
  """
  chosen = runner or options.view_as(pipeline_options.StandardOptions).runner
  if isinstance(chosen, str):
    # As Beam: any case, with or without 'Runner', also with the name of the module.
    name = chosen.rpartition('.')[2].lower().removesuffix('runner')
    return None if name in _LOCAL_RUNNERS else chosen
  return chosen


def pipeline(
  runner: str | PipelineRunner | None, options: pipeline_options.PipelineOptions
) -> beam.Pipeline:
  """Returns a pipeline for a runner.

  Args:
    runner: a runner or its name; None runs the pipeline in this process.
    options: options of Beam.

  Raises:
    UsageError: there is no runner with this name, or it is not installed.
  """
  if runner is None:
    direct = options.view_as(pipeline_options.DirectOptions)
    direct.direct_num_workers = 1
    direct.direct_running_mode = 'in_memory'
    return beam.Pipeline(runner=fn_runner.FnApiRunner(), options=options)
  try:
    return beam.Pipeline(runner=runner, options=options)
  except (ValueError, ImportError, AttributeError) as error:
    raise UsageError(f'--runner={runner}: {error}') from error


@contextlib.contextmanager
def failures_as_job_errors(folder: JobFolder) -> Iterator[None]:
  """Converts an error of the runner to a JobError of one line; logs the details.

  Raises:
    JobError: the pipeline failed.
    KeyboardInterrupt: it was interrupted, which Beam reports as a failure.
  """
  try:
    yield
  except WorkerDiedError as error:
    raise folder.job_error(f'{error}; if so, give a smaller --num_workers') from error
  except (JobError, OSError, UsageError):
    raise
  except Exception as error:  # each runner wraps the errors of workers in its own way
    interrupt = _interrupt(error)
    if interrupt is not None:
      raise interrupt from None
    logging.debug('the pipeline failed', exc_info=True)
    raise folder.job_error(_cause(error)) from error


def _cause(error: BaseException) -> str:
  """Returns the line with the error of the worker: the last that names an exception."""
  lines = [line.strip() for line in str(error).splitlines() if line.strip()]
  named = [line for line in lines if line.split(':')[0].endswith('Error')]
  return (named or lines or [type(error).__name__])[-1]


def _interrupt(error: BaseException | None) -> KeyboardInterrupt | None:
  """Returns the interrupt that led to an error, if any."""
  while error is not None and not isinstance(error, KeyboardInterrupt):
    error = error.__cause__ or error.__context__
  return error
