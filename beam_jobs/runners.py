"""Beam's part of the command line, and the runner of the pipeline.

Some options are known only later: those of a runner once its module is loaded, as
`--dask_client_address`, and those of a job server once it is asked, as Flink's
`--number_of_execution_retries`.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
import contextlib
import difflib
import importlib
import logging
import os
from typing import NoReturn

import apache_beam as beam
from apache_beam.options import pipeline_options
from apache_beam.runners import create_runner
from apache_beam.runners.portability import portable_runner
from apache_beam.runners.portability.fn_api_runner import fn_runner
from apache_beam.runners.runner import PipelineResult
from apache_beam.runners.runner import PipelineRunner

from beam_jobs import engine_address
from luna_tfds.command_line import cli
from luna_tfds.errors import JobError
from luna_tfds.errors import UsageError

# Names of the local runner, in lower case and without 'runner'. Beam's own DirectRunner
# would first try to download Prism.
_LOCAL_RUNNERS = ('direct', 'switchingdirect', 'bundlebaseddirect', 'fnapi')

# Flags of engines, by name or by their first word, and the runners that use them.
_RUNNERS_OF_FLAGS = {
  'dask': 'DaskRunner',
  'environment': 'FlinkRunner, SparkRunner or PortableRunner',
  'flink': 'FlinkRunner',
  'job_endpoint': 'PortableRunner',
  'parallelism': 'FlinkRunner',
  'spark': 'SparkRunner',
}

# Beam's options for what `--num_workers` says here.
_WORKER_FLAGS = ('direct_num_workers', 'direct_running_mode')

# Beam's list of runners lacks it.
_DASK_RUNNER = 'apache_beam.runners.dask.dask_runner.DaskRunner'

# Similarity, 0 to 1, from which an unknown option is a misspelt one.
_TYPING_ERROR = 0.85


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
    UsageError: an argument is unknown to Beam, or invalid, or there is no such runner,
      or a flag of an engine is given without its runner.
  """
  name = _runner_name(arguments)
  if name is None or _is_local(name):
    _check_local_flags(arguments)
  runner = _load(name) if name and not _is_local(name) else None
  parser = _Parser(add_help=False, allow_abbrev=False)
  for options_class in pipeline_options.PipelineOptions.__subclasses__():
    with contextlib.suppress(argparse.ArgumentError):  # defined by another class, too
      # Private, but Beam has no public list of its flags.
      options_class._add_argparse_args(parser)  # type: ignore[arg-type]  # noqa: SLF001
  # Private, too: argparse has no public list of its options.
  known = [o.lstrip('-') for a in parser._actions for o in a.option_strings]  # noqa: SLF001
  if arguments:
    _, unknown = parser.parse_known_args(arguments)
    _check_unknown(unknown, [*own_flags, *known], runner)
  return name, pipeline_options.PipelineOptions(list(arguments))


def _runner_name(arguments: Sequence[str]) -> str | None:
  parser = _Parser(add_help=False, allow_abbrev=False)
  parser.add_argument('--runner')
  name: str | None = parser.parse_known_args(arguments)[0].runner
  return name


def _check_local_flags(arguments: Sequence[str]) -> None:
  """Checks that no flag is for an engine, or for the workers of Beam's DirectRunner.

  Raises:
    UsageError: one of them is.
  """
  for argument in arguments:
    name = argument.partition('=')[0].removeprefix('--')
    if not argument.startswith('--'):
      continue
    if name in _WORKER_FLAGS:
      raise UsageError(f'--{name} has no effect; give --num_workers instead')
    first_word = name.partition('_')[0]
    if runner := _RUNNERS_OF_FLAGS.get(name) or _RUNNERS_OF_FLAGS.get(first_word):
      raise UsageError(
        f'--{name} needs --runner={runner}; without it the job runs on this machine'
      )


def _check_unknown(
  unknown: Sequence[str], known: Sequence[str], runner: PipelineRunner | None
) -> None:
  """Checks arguments that Beam does not know: only a job server may know them.

  Beam asks it for its options, and fails or warns if it has no such option.
  """
  for argument in unknown:
    name = argument.partition('=')[0].lstrip('-')
    is_option_of_job_server = (
      isinstance(runner, portable_runner.PortableRunner)
      and argument.startswith('--')
      and not difflib.get_close_matches(name, known, n=1, cutoff=_TYPING_ERROR)
    )
    if not is_option_of_job_server:
      raise cli.unknown_flag(argument, known)


def resolve(
  runner: str | PipelineRunner | None,
  options: pipeline_options.PipelineOptions | None,
  num_workers: int = 0,
) -> tuple[str | PipelineRunner | None, pipeline_options.PipelineOptions]:
  """Returns the runner to use and its options; None is the local runner, by any name.

  Args:
    runner: a runner or its name; None takes the runner of the options.
    options: options of Beam; changed.
    num_workers: number of workers that the service of a runner starts, as Dataflow; 0
      leaves it to the options. The command has a flag of the same name as Beam, so Beam
      does not see it.
  """
  options = options or pipeline_options.PipelineOptions([])
  chosen = runner or options.view_as(pipeline_options.StandardOptions).runner
  if chosen is None or (isinstance(chosen, str) and _is_local(chosen)):
    return None, options
  if num_workers:
    options.view_as(pipeline_options.WorkerOptions).num_workers = num_workers
  return chosen, options


def _is_local(name: str) -> bool:
  return _short_name(name) in _LOCAL_RUNNERS


def _short_name(name: str) -> str:
  # As Beam: any case, with or without 'Runner', also with the name of the module.
  return name.rpartition('.')[2].lower().removesuffix('runner')


def _load(name: str) -> PipelineRunner:
  """Returns a runner; its module adds its options to those that Beam knows.

  Raises:
    UsageError: there is no runner with this name, or it is not installed.
  """
  try:
    return _load_dask(name) if _short_name(name) == 'dask' else create_runner(name)
  except (ValueError, ImportError, AttributeError) as error:
    raise UsageError(f'--runner={name}: {error}') from error


def _load_dask(name: str) -> PipelineRunner:
  try:
    importlib.import_module('distributed')  # without it, Beam's error is misleading
  except ImportError as error:
    raise UsageError(
      f"--runner={name}: {error}; pip install '.[dask]' -c constraints.txt"
    ) from error
  return create_runner(_DASK_RUNNER)


def pipeline(
  runner: str | PipelineRunner | None,
  options: pipeline_options.PipelineOptions | None = None,
) -> beam.Pipeline:
  """Returns a pipeline for a runner.

  Args:
    runner: a runner or its name; None runs the pipeline in this process.
    options: options of Beam, if any.

  Raises:
    UsageError: there is no runner with this name, or it is not installed.
    JobError: nobody listens at the address of its engine, or workers of Dask lack this
      package.
  """
  options = options or pipeline_options.PipelineOptions([])
  if runner is None:
    direct = options.view_as(pipeline_options.DirectOptions)
    direct.direct_num_workers = 1
    direct.direct_running_mode = 'in_memory'
    return _new_pipeline(fn_runner.FnApiRunner(), options)
  if isinstance(runner, str):
    runner = _load(runner)
  engine_address.check_reachable(options.get_all_options())
  if type(runner).__name__ == 'DaskRunner':
    _use_all_dask_workers(options)
    _silence_dask()
    _check_dask_workers(options)
  return _new_pipeline(runner, options)


def _new_pipeline(
  runner: PipelineRunner, options: pipeline_options.PipelineOptions
) -> beam.Pipeline:
  new = beam.Pipeline(runner=runner, options=options)
  # Beam makes this folder in TMPDIR and deletes it at the end, which a process that is
  # killed does not reach. Only transforms in other languages would use it.
  os.rmdir(new.local_tempdir)
  return new


def _use_all_dask_workers(options: pipeline_options.PipelineOptions) -> None:
  """Makes each shard a task, unless the options say otherwise.

  By default Beam makes tasks of 128 elements, so one worker would write all shards.
  """
  from apache_beam.runners.dask.dask_runner import DaskOptions

  dask = options.view_as(DaskOptions)
  if dask.npartitions is None and dask.partition_size is None:
    dask.partition_size = 1


def _silence_dask() -> None:
  """Hides the stack traces that Dask logs in addition to what it raises."""
  if not logging.getLogger().isEnabledFor(logging.DEBUG):
    for name in ('distributed', 'distributed.client'):  # Dask sets the levels of both
      logging.getLogger(name).setLevel(logging.CRITICAL)


def _check_dask_workers(options: pipeline_options.PipelineOptions) -> None:
  """Checks that the workers of a Dask cluster can import this package.

  A worker that cannot ends when it gets a task, and the job waits for others.

  Raises:
    JobError: one of them cannot.
  """
  from apache_beam.runners.dask.dask_runner import DaskOptions

  distributed = importlib.import_module('distributed')
  dask = options.view_as(DaskOptions)
  if not dask.address and not dask.scheduler_file:
    return  # Dask starts workers on this machine
  with distributed.Client(dask.address, scheduler_file=dask.scheduler_file) as client:
    try:
      client.run(exec, 'import beam_jobs.transforms')
    except ImportError as error:
      raise JobError(
        f'a worker of Dask cannot import this package ({error}); install it, in the same '
        'version, in the Python that runs the workers'
      ) from error


@contextlib.contextmanager
def cancelled_on_interrupt(beam_pipeline: beam.Pipeline) -> Iterator[None]:
  """Cancels the job of a pipeline on its engine if this process is interrupted.

  Not every engine cancels what Beam asks it to cancel, and the job may be on its way to
  the engine. Then its tasks end soon, as the launcher deletes their shard specs.

  Raises:
    KeyboardInterrupt: the process was interrupted.
  """
  try:
    yield
  except KeyboardInterrupt:
    result = getattr(beam_pipeline, 'result', None)  # not before it has been submitted
    try:
      if result is not None:
        result.cancel()
    except Exception:  # each runner has its own
      logging.debug('the engine has not cancelled the job', exc_info=True)
    raise


def check_result(result: PipelineResult) -> None:
  """Checks that no task was dropped, which Beam's runner for Dask does not report.

  Args:
    result: what the runner returned, after its end.

  Raises:
    RuntimeError: a task was dropped.
  """
  for future in getattr(result, 'futures', ()):
    if future.status != 'finished':
      raise RuntimeError(
        f'Dask has not finished a task ({future.status}): the scheduler may have ended'
      )
