"""Downloads Flink, Spark, Beam's job servers and Prism, once for each machine.

They come from the package registries of Python, Maven and Go, through `pip`, `mvn` and
`go`. The cache is `~/.cache/luna16_patches/engines`, or what LUNA16_ENGINES names.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
import os
import pathlib
import shutil
import subprocess
import sys
import tarfile
import tempfile

from engine_processes import EngineUnavailableError

FLINK_VERSION = '1.19.3'
SPARK_VERSION = '3.5.9'
# Of the runners of Flink 1.19 and Spark 3, the newest whose dependencies have all been
# found on Maven Central. It runs pipelines of newer versions of Beam's Python package.
JOB_SERVER_VERSION = '2.62.0'
PRISM_VERSION = 'v2.77.0'

_POM = pathlib.Path(__file__).parent / 'job_server' / 'pom.xml'
_TIMEOUT_SECS = 1_500


def cache() -> pathlib.Path:
  """Returns the folder of the downloads."""
  default = pathlib.Path.home() / '.cache' / 'luna16_patches' / 'engines'
  return pathlib.Path(os.environ.get('LUNA16_ENGINES', default))


def flink() -> pathlib.Path:
  """Returns the folder with Flink's distribution: `lib/*.jar`."""
  return _cached(f'flink-{FLINK_VERSION}', _unpack_flink) / 'deps'


def spark() -> pathlib.Path:
  """Returns the folder with Spark's distribution: `jars/*.jar`."""
  return _cached(f'spark-{SPARK_VERSION}', _unpack_spark) / 'deps'


def flink_job_server() -> pathlib.Path:
  """Returns the jar of Beam's job server for Flink."""
  return _job_server('flink-1.19', 'org.apache.beam.runners.flink.FlinkJobServerDriver')


def spark_job_server() -> pathlib.Path:
  """Returns the jar of Beam's job server for Spark."""
  return _job_server(
    'spark-3',
    'org.apache.beam.runners.spark.SparkJobServerDriver',
    # It needs a newer Guava than that of Spark, which comes first on the class path.
    excluded='beam-sdks-java-extensions-google-cloud-platform-core',
  )


def prism() -> pathlib.Path:
  """Returns the program of Beam's runner Prism."""
  return _cached(f'prism-{PRISM_VERSION}', _install_prism) / 'prism'


def require(program: str) -> None:
  """Checks that a program is on the PATH.

  Raises:
    EngineUnavailableError: it is not.
  """
  if shutil.which(program) is None:
    raise EngineUnavailableError(f'needs {program}, which is not on the PATH')


def _cached(name: str, make: Callable[[pathlib.Path], None]) -> pathlib.Path:
  """Returns a folder of the cache; makes it if it is not there."""
  final = cache() / name
  if final.is_dir():
    return final
  cache().mkdir(parents=True, exist_ok=True)
  with tempfile.TemporaryDirectory(dir=cache()) as temporary:
    folder = pathlib.Path(temporary, name)
    folder.mkdir()
    make(folder)
    try:
      folder.rename(final)
    except OSError:  # another process was faster
      if not final.is_dir():
        raise
  return final


def _unpack_flink(folder: pathlib.Path) -> None:
  require('java')
  _unpack('apache-flink-libraries', FLINK_VERSION, ('deps/lib/',), folder)


def _unpack_spark(folder: pathlib.Path) -> None:
  require('java')
  _unpack('pyspark', SPARK_VERSION, ('deps/jars/',), folder)


def _unpack(
  package: str, version: str, prefixes: tuple[str, ...], folder: pathlib.Path
) -> None:
  """Unpacks a part of the source distribution of a Python package."""
  pip = [sys.executable, '-m', 'pip', 'download', '--quiet', '--no-deps']
  with tempfile.TemporaryDirectory() as downloads:
    _run([*pip, '--no-binary=:all:', f'--dest={downloads}', f'{package}=={version}'])
    (archive,) = pathlib.Path(downloads).iterdir()
    with tarfile.open(archive) as tar:
      for member in tar:
        member.name = member.name.partition('/')[2]  # without the name of the package
        if member.name.startswith(prefixes):
          tar.extract(member, folder, filter='data')


def _job_server(runner: str, main: str, excluded: str = 'none') -> pathlib.Path:
  def make(folder: pathlib.Path) -> None:
    """Builds the jar in a folder."""
    require('java')
    require('mvn')
    shutil.copy(_POM, folder)
    properties = {
      'beam.version': JOB_SERVER_VERSION,
      'runner': runner,
      'main': main,
      'excluded': excluded,
    }
    defines = [f'-D{name}={value}' for name, value in properties.items()]
    _run(['mvn', '--batch-mode', '--quiet', *defines, 'package'], folder)
    jar = folder / 'target' / 'job-server-all.jar'
    jar.rename(folder / 'job-server.jar')
    shutil.rmtree(folder / 'target')

  return _cached(f'{runner}-job-server-{JOB_SERVER_VERSION}', make) / 'job-server.jar'


def _install_prism(folder: pathlib.Path) -> None:
  require('go')
  module = f'github.com/apache/beam/sdks/v2/go/cmd/prism@{PRISM_VERSION}'
  _run(['go', 'install', module], folder, {'GOBIN': str(folder)})


def _run(
  command: Sequence[str],
  folder: pathlib.Path | None = None,
  environment: Mapping[str, str] | None = None,
) -> None:
  try:
    subprocess.run(
      command,
      cwd=folder,
      env={**os.environ, **(environment or {})},
      check=True,
      stdin=subprocess.DEVNULL,
      stdout=subprocess.PIPE,
      stderr=subprocess.STDOUT,
      text=True,
      errors='replace',
      timeout=_TIMEOUT_SECS,
    )
  except subprocess.TimeoutExpired:
    reason = f'no end after {_TIMEOUT_SECS} s'
  except subprocess.CalledProcessError as error:
    lines = [line for line in error.stdout.splitlines() if 'ERROR' in line.upper()]
    reason = (lines or error.stdout.splitlines() or [f'code {error.returncode}'])[0]
  else:
    return
  raise EngineUnavailableError(f'{" ".join(command[:2])} failed: {reason[:300]}')
