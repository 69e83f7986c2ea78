import logging
import os

import apache_beam as beam
from apache_beam.options import pipeline_options
from apache_beam.runners.portability.fn_api_runner import fn_runner
import pytest

from beam_jobs import job_folder
from beam_jobs import runners
from luna_tfds import JobError
from luna_tfds import UsageError


def pids_of(pipeline, folder):
  """Runs the pipeline; returns the ids of the processes that handled its elements."""

  def write_pid(number):
    (folder / f'{number}').write_text(str(os.getpid()))

  with pipeline:
    _ = pipeline | beam.Create([1, 2, 3, 4]) | beam.Map(write_pid)
  paths = list(folder.iterdir())
  assert len(paths) == 4
  return {int(path.read_text()) for path in paths}


@pytest.fixture
def folder(tmp_path):
  return job_folder.JobFolder(tmp_path / '1.0.0')


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
    ('--direct_num_workers=many', 'direct_num_workers: invalid'),
  ],
)
def test_invalid_arguments_are_rejected(argument, problem):
  with pytest.raises(UsageError, match=problem):
    runners.parse([argument], ['luna_dir', 'data_dir'])


def test_unknown_runner_is_rejected():
  with pytest.raises(UsageError, match='--runner=NoSuchRunner: '):
    runners.pipeline('NoSuchRunner', None, 1)


@pytest.mark.parametrize('name', [None, 'DirectRunner', 'FnApiRunner', 'direct'])
def test_local_runner_with_one_worker_runs_in_this_process(name, tmp_path):
  pipeline = runners.pipeline(name, None, 1)
  assert type(pipeline.runner) is fn_runner.FnApiRunner
  assert pids_of(pipeline, tmp_path) == {os.getpid()}


def test_local_runner_with_two_workers_uses_other_processes(tmp_path):
  pids = pids_of(runners.pipeline(None, None, 2), tmp_path)
  assert pids
  assert os.getpid() not in pids


def test_a_runner_object_is_used_as_it_is():
  runner = fn_runner.FnApiRunner()
  assert runners.pipeline(runner, None, 2).runner is runner


@pytest.mark.parametrize(
  ('message', 'cause'),
  [
    ('ValueError: bad scan', 'ValueError: bad scan'),
    (
      'Traceback (most recent call last):\n  File "a.py"\nKeyError: 3\n\n'
      'RuntimeError: KeyError: 3 [while running Write]\nworker 2 logs\n',
      'RuntimeError: KeyError: 3 [while running Write]',
    ),
    ('first line\nlast line\n', 'last line'),
    ('', 'RuntimeError'),
  ],
)
def test_errors_of_the_runner_become_one_line(message, cause, folder):
  with pytest.raises(JobError) as error, runners.failures_as_job_errors(folder):
    raise RuntimeError(message)
  assert str(error.value) == (
    f'{cause}; finished shards are kept in {folder.incomplete}: run the same command '
    'again to continue'
  )


def test_details_of_the_error_are_logged(folder, caplog):
  with (
    caplog.at_level(logging.DEBUG),
    pytest.raises(JobError),
    runners.failures_as_job_errors(folder),
  ):
    raise RuntimeError('lost a worker')
  assert 'lost a worker' in caplog.text


@pytest.mark.parametrize('error', [JobError('a'), UsageError('b'), OSError('c')])
def test_errors_of_the_job_are_not_changed(error, folder):
  with pytest.raises(type(error)) as found, runners.failures_as_job_errors(folder):
    raise error
  assert found.value is error
