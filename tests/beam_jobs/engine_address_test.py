import socket

import pytest

from beam_jobs import engine_address
from beam_jobs import runners
from luna_tfds import JobError
from luna_tfds import UsageError

RUNNERS = {
  'dask_client_address': 'DaskRunner',
  'flink_master': 'FlinkRunner',
  'job_endpoint': 'PortableRunner',
  'spark_rest_url': 'SparkRunner',
}
FLAGS = tuple(RUNNERS)


def options_of(flag, value):
  """Returns the options as Beam stores them."""
  if flag == 'dask_client_address':
    pytest.importorskip('distributed', reason='needs Dask')
  _, options = runners.parse([f'--runner={RUNNERS[flag]}', f'--{flag}={value}'], [])
  return options.get_all_options()


@pytest.fixture
def closed_port():
  """A port of this machine that nobody listens on: it is bound, but without `listen`."""
  with socket.socket() as bound:
    bound.bind(('127.0.0.1', 0))
    yield bound.getsockname()[1]


@pytest.fixture
def open_port():
  with socket.create_server(('127.0.0.1', 0)) as server:
    yield server.getsockname()[1]


@pytest.mark.parametrize('flag', FLAGS)
@pytest.mark.parametrize('scheme', ['', 'tcp://', 'http://'])
def test_a_port_without_listener(flag, scheme, closed_port):
  value = f'{scheme}127.0.0.1:{closed_port}'
  with pytest.raises(JobError) as error:
    engine_address.check_reachable(options_of(flag, value))
  assert str(error.value) == (
    f'--{flag}={value}: cannot be reached: Connection refused; start the engine or '
    'correct the address'
  )


@pytest.mark.parametrize('flag', FLAGS)
@pytest.mark.parametrize('scheme', ['', 'tcp://', 'http://'])
def test_a_port_with_listener(flag, scheme, open_port):
  value = f'{scheme}127.0.0.1:{open_port}'
  engine_address.check_reachable(options_of(flag, value))


def test_an_unknown_host():
  with pytest.raises(
    JobError, match=r'flink_master=nowhere\.invalid:8081: cannot be re'
  ):
    engine_address.check_reachable({'flink_master': 'nowhere.invalid:8081'})


def test_an_impossible_port():
  with pytest.raises(
    UsageError, match=r'job_endpoint=localhost:many: .*; give HOST:PO'
  ):
    engine_address.check_reachable({'job_endpoint': 'localhost:many'})


@pytest.mark.parametrize(
  'options',
  [
    {},
    {'flink_master': '[auto]'},
    {'flink_master': '[local]'},
    {'job_endpoint': 'embed'},
    {'address': 'inproc://10/11'},
    {'spark_rest_url': None, 'flink_master': None},
  ],
)
def test_what_is_no_address_of_a_machine_is_not_checked(options):
  engine_address.check_reachable(options)


def test_a_job_service_reaches_the_engine_itself(open_port, closed_port):
  options = {
    'job_endpoint': f'127.0.0.1:{open_port}',
    'flink_master': f'127.0.0.1:{closed_port}',
  }
  engine_address.check_reachable(options)


def test_an_engine_behind_a_proxy_is_not_checked(closed_port, monkeypatch):
  monkeypatch.setenv('https_proxy', 'http://127.0.0.1:9')
  monkeypatch.delenv('no_proxy', raising=False)
  monkeypatch.delenv('NO_PROXY', raising=False)
  engine_address.check_reachable({'flink_master': 'https://flink.invalid'})
