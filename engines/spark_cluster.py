"""A standalone Spark cluster on this machine: a master and workers, two cores each."""

from __future__ import annotations

from collections.abc import Iterator
import contextlib
import json
import pathlib

import engine_downloads
import engine_processes

# Packages of Java that Spark's own scripts open. As an environment variable they also
# reach the drivers and executors that the workers start.
_OPENED = (
  'java.base/java.io',
  'java.base/java.lang',
  'java.base/java.lang.invoke',
  'java.base/java.lang.reflect',
  'java.base/java.net',
  'java.base/java.nio',
  'java.base/java.util',
  'java.base/java.util.concurrent',
  'java.base/java.util.concurrent.atomic',
  'java.base/jdk.internal.ref',
  'java.base/sun.nio.ch',
  'java.base/sun.nio.cs',
  'java.base/sun.security.action',
  'java.base/sun.util.calendar',
)


@contextlib.contextmanager
def running(
  folder: pathlib.Path, num_workers: int = 2
) -> Iterator[engine_processes.Engine]:
  """Starts the cluster and a worker pool, and ends them.

  The processes are `master`, `worker1`, ..., and `worker_pool`.

  Args:
    folder: for logs and temporary files.
    num_workers: number of Spark workers.

  Raises:
    EngineUnavailableError: Java or a download is missing.
  """
  distribution = engine_downloads.spark()
  job_server = engine_downloads.spark_job_server()
  port, rest_port, web_port = engine_processes.free_ports(3)
  master = f'spark://localhost:{port}'
  opens = ' '.join(f'--add-opens={package}=ALL-UNNAMED' for package in _OPENED)
  environment = {
    'SPARK_HOME': str(distribution),
    'SPARK_SCALA_VERSION': '2.12',
    'SPARK_LOCAL_IP': '127.0.0.1',
    'JDK_JAVA_OPTIONS': opens,
  }
  java = ['java', '-Xmx300m', '-cp', f'{distribution}/jars/*']
  with engine_processes.running(folder) as engine:
    rest = ['-Dspark.master.rest.enabled=true', f'-Dspark.master.rest.port={rest_port}']
    ports = ['--port', str(port), '--webui-port', str(web_port)]
    main = ['org.apache.spark.deploy.master.Master', '--host', 'localhost', *ports]
    engine.start('master', [*java, *rest, *main], environment)
    engine.wait_for_port(port)
    for k in range(num_workers):
      size = ['--cores', '2', '--memory', '2g', '--webui-port', '0']
      work_dir = ['--work-dir', str(engine.folder / f'work{k + 1}')]
      main = ['org.apache.spark.deploy.worker.Worker', '--host', 'localhost']
      engine.start(
        f'worker{k + 1}', [*java, *main, *size, *work_dir, master], environment
      )
    pool = engine_processes.start_worker_pool(engine)
    engine.wait_for(
      f'cluster of {num_workers} workers',
      lambda: _num_workers(web_port) == num_workers,
    )
    engine.options = [
      '--runner=SparkRunner',
      '--spark_submit_uber_jar',
      f'--spark_master_url={master}',
      f'--spark_rest_url=http://localhost:{rest_port}',
      f'--spark_job_server_jar={job_server}',
      *pool,
    ]
    yield engine


def _num_workers(web_port: int) -> int:
  answer = engine_processes.get(f'http://localhost:{web_port}/json/')
  return int(json.loads(answer)['aliveworkers']) if answer else 0
