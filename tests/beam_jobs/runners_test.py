import os
import socket
import sys
import tempfile
import types

import apache_beam as beam
from apache_beam.options import pipeline_options
from apache_beam.runners.portability.fn_api_runner import fn_runner
import pytest

from beam_jobs import runners
from luna_tfds import JobError
from luna_tfds import UsageError

NO_OPTIONS = pipeline_options.PipelineOptions([])


def pids_of(pipeline, folder):
  """Runs the pipeline; returns the ids of the processes that handled its elements."""

  def write_pid(number):
    (folder / f'{number}').write_text(str(os.getpid()))

  with pipeline:
    _ = pipeline | beam.Create([1, 2, 3, 4]) | beam.Map(write_pid)
  paths = list(folder.iterdir())
  assert len(paths) == 4
  return {int(path.read_text()) for path in paths}


def test_no_arguments_leave_the_runner_open():
  runner, options = runners.parse([], ['luna_dir'])
  assert runner is None
  assert isinstance(options, pipeline_options.PipelineOptions)


def test_flags_of_beam_are_parsed():
  arguments = ['--runner=FlinkRunner', '--flink_master=host:8081', '--streaming']
  runner, options = runners.parse(arguments, ['luna_dir'])
  assert runner == 'FlinkRunner'
  flink = options.view_as(pipeline_options.FlinkRunnerOptions)
  assert flink.flink_master == 'host:8081'
  assert options.view_as(pipeline_options.StandardOptions).streaming


@pytest.mark.parametrize(
  ('argument', 'problem'),
  [
    ('--luna_dri=x', 'unknown argument --luna_dri; did you mean --luna_dir'),
    ('--runer=x', 'unknown argument --runer; did you mean --runner'),
    ('stray', 'unknown argument stray'),
    ('--streaming=perhaps', 'streaming: '),
    ('--direct_num_workers=4', 'direct_num_workers has no effect; give --num_workers'),
    ('--direct_running_mode=in_memory', 'direct_running_mode has no effect'),
  ],
)
def test_invalid_arguments_are_rejected(argument, problem):
  with pytest.raises(UsageError, match=problem):
    runners.parse([argument], ['luna_dir', 'data_dir'])


def test_options_of_a_runner_that_its_module_defines(monkeypatch, tmp_path):
  # As Dask's: Beam learns of them when it loads the module.
  (tmp_path / 'late_options.py').write_text(
    'from apache_beam.options import pipeline_options\n'
    'from apache_beam.runners.portability.fn_api_runner import fn_runner\n'
    'class LateOptions(pipeline_options.PipelineOptions):\n'
    '  @classmethod\n'
    '  def _add_argparse_args(cls, parser):\n'
    "    parser.add_argument('--late_address')\n"
    'class LateRunner(fn_runner.FnApiRunner):\n'
    '  pass\n'
  )
  monkeypatch.syspath_prepend(tmp_path)
  runner, options = runners.parse(
    ['--late_address=host:1', '--runner=late_options.LateRunner'], ['luna_dir']
  )
  assert runner == 'late_options.LateRunner'
  assert options.get_all_options()['late_address'] == 'host:1'


def test_options_of_a_job_server_are_passed_on():
  arguments = ['--runner=FlinkRunner', '--number_of_execution_retries=3']
  runner, _ = runners.parse(arguments, ['luna_dir'])
  assert runner == 'FlinkRunner'
  with pytest.raises(UsageError, match='unknown argument --number_of_execution'):
    runners.parse(arguments[1:], ['luna_dir'])


@pytest.mark.parametrize(
  'argument', ['--luna_dri=x', '--flink_mastr=x', 'stray', '-number_of_retries']
)
def test_misspelt_flags_are_rejected_on_every_runner(argument):
  with pytest.raises(UsageError, match='unknown argument ' + argument.split('=')[0]):
    runners.parse(['--runner=FlinkRunner', argument], ['luna_dir', 'data_dir'])


def test_num_workers_of_a_service():
  options = pipeline_options.PipelineOptions([])
  assert runners.resolve('DataflowRunner', options, 20) == ('DataflowRunner', options)
  assert options.view_as(pipeline_options.WorkerOptions).num_workers == 20


def test_num_workers_of_the_local_runner_are_not_those_of_a_service():
  options = pipeline_options.PipelineOptions([])
  runners.resolve('DirectRunner', options, 20)
  assert options.view_as(pipeline_options.WorkerOptions).num_workers is None


@pytest.mark.parametrize('arguments', [[], ['--runner=DirectRunner']])
@pytest.mark.parametrize(
  ('flag', 'runner'),
  [
    ('dask_client_address', 'DaskRunner'),
    ('dask_npartitions', 'DaskRunner'),
    ('environment_type', 'FlinkRunner, SparkRunner or PortableRunner'),
    ('flink_master', 'FlinkRunner'),
    ('flink_submit_uber_jar', 'FlinkRunner'),
    ('job_endpoint', 'PortableRunner'),
    ('parallelism', 'FlinkRunner'),
    ('spark_master_url', 'SparkRunner'),
    ('spark_rest_url', 'SparkRunner'),
  ],
)
def test_a_flag_of_an_engine_needs_its_runner(arguments, flag, runner):
  with pytest.raises(UsageError, match=f'--{flag} needs --runner={runner}; '):
    runners.parse(['--streaming', *arguments, f'--{flag}=localhost:1'], ['luna_dir'])


def test_other_flags_need_no_runner():
  runners.parse(['--streaming', '--temp_location=/tmp'], ['luna_dir'])


def test_an_engine_that_does_not_run():
  with socket.socket() as bound:
    bound.bind(('127.0.0.1', 0))  # and does not listen
    address = f'127.0.0.1:{bound.getsockname()[1]}'
    options = pipeline_options.PipelineOptions([f'--job_endpoint={address}'])
    with pytest.raises(JobError, match=f'--job_endpoint={address}: cannot be reached'):
      runners.pipeline('PortableRunner', options)


@pytest.mark.parametrize('name', ['NoSuchRunner', 'no.such.Runner', 'json.NoRunner'])
def test_unknown_runner_is_rejected(name):
  with pytest.raises(UsageError, match=f'--runner={name}: '):
    runners.pipeline(name, NO_OPTIONS)
  with pytest.raises(UsageError, match=f'--runner={name}: '):
    runners.parse([f'--runner={name}'], [])


@pytest.mark.parametrize(
  'name',
  [
    None,
    'DirectRunner',
    'directrunner',
    'DIRECT',
    'FnApiRunner',
    'fnapirunner',
    'SwitchingDirectRunner',
    'BundleBasedDirectRunner',
    'apache_beam.runners.direct.direct_runner.DirectRunner',
  ],
)
def test_names_of_the_local_runner(name):
  # Beam's own DirectRunner downloads a program.
  assert runners.resolve(name, NO_OPTIONS) == (None, NO_OPTIONS)
  assert runners.resolve(name, None)[0] is None


@pytest.mark.parametrize('name', ['FlinkRunner', 'prismrunner', 'my.package.Runner2'])
def test_names_of_other_runners(name):
  assert runners.resolve(name, NO_OPTIONS) == (name, NO_OPTIONS)


def test_runner_of_the_options():
  options = pipeline_options.PipelineOptions(['--runner=flinkrunner'])
  assert runners.resolve(None, options) == ('flinkrunner', options)
  assert runners.resolve('direct', options) == (None, options)


def test_a_runner_object_is_used_as_it_is():
  runner = fn_runner.FnApiRunner()
  assert runners.resolve(runner, NO_OPTIONS) == (runner, NO_OPTIONS)
  assert runners.pipeline(runner, NO_OPTIONS).runner is runner


def test_local_pipeline_runs_in_this_process(tmp_path):
  pipeline = runners.pipeline(None)
  assert type(pipeline.runner) is fn_runner.FnApiRunner
  assert pids_of(pipeline, tmp_path) == {os.getpid()}


def test_dask_that_is_not_installed(monkeypatch):
  monkeypatch.setitem(sys.modules, 'distributed', None)
  with pytest.raises(UsageError, match=r"--runner=dask: .*; pip install '\.\[dask\]'"):
    runners.pipeline('dask', NO_OPTIONS)


def dask_result(*statuses):
  return types.SimpleNamespace(
    futures=[types.SimpleNamespace(status=status) for status in statuses]
  )


def test_tasks_that_dask_has_dropped():
  with pytest.raises(
    RuntimeError, match=r'not finished a task \(cancelled\): the sched'
  ):
    runners.check_result(dask_result('finished', 'cancelled'))


def test_results_without_dropped_tasks(tmp_path):
  runners.check_result(dask_result('finished', 'finished'))
  pipeline = runners.pipeline(None)
  pids_of(pipeline, tmp_path)
  runners.check_result(pipeline.result)


class SubmittedPipeline:
  """A pipeline that runs on an engine, and whether it was cancelled."""

  def __init__(self, error=None):
    self.result = self
    self.num_cancelled = 0
    self._error = error

  def cancel(self):
    self.num_cancelled += 1
    if self._error:
      raise self._error


@pytest.mark.parametrize('error', [None, ConnectionError('the job server has ended')])
def test_an_interrupt_cancels_the_job_on_the_engine(error):
  pipeline = SubmittedPipeline(error)
  with pytest.raises(KeyboardInterrupt), runners.cancelled_on_interrupt(pipeline):
    raise KeyboardInterrupt
  assert pipeline.num_cancelled == 1


def test_an_interrupt_before_the_job_is_submitted():
  pipeline = runners.pipeline(None)
  with pytest.raises(KeyboardInterrupt), runners.cancelled_on_interrupt(pipeline):
    raise KeyboardInterrupt


def test_a_job_that_failed_or_finished_is_not_cancelled():
  pipeline = SubmittedPipeline()
  with runners.cancelled_on_interrupt(pipeline):
    pass
  with pytest.raises(ValueError, match='x'), runners.cancelled_on_interrupt(pipeline):
    raise ValueError('x')
  assert pipeline.num_cancelled == 0


def test_a_pipeline_leaves_no_temporary_folder_if_it_is_killed(tmp_path, monkeypatch):
  monkeypatch.setattr(tempfile, 'tempdir', str(tmp_path))
  pipeline = runners.pipeline(None)
  assert list(tmp_path.iterdir()) == []
  with pipeline:
    _ = pipeline | beam.Create([1])
  assert list(tmp_path.iterdir()) == []
