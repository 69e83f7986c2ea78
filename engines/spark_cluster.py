"""A standalone Spark cluster on this machine: a master and workers, two cores each."""

from __future__ import annotations

from collections.abc import Iterator
import contextlib
import pathlib

import engine_downloads
import engine_processes
import java_options


@contextlib.contextmanager
def running(
  folder: pathlib.Path, num_workers: int = 2
) -> Iterator[engine_processes.Engine]:
  """Starts the cluster and a worker pool, and ends them.

  The processes are `master`, `worker1`, ..., and `worker_pool`.

  Args:
    folder: folder for logs and temporary files.
    num_workers: number of Spark workers.

  Raises:
    EngineUnavailableError: Java or a download is missing.
  """
  distribution = engine_downloads.spark()
  job_server = engine_downloads.spark_job_server()
  port, rest_port, web_port = engine_processes.free_ports(3)
  master = f'spark://localhost:{port}'
  environment = {
    'SPARK_HOME': str(distribution),
    'SPARK_SCALA_VERSION': '2.12',
    'SPARK_LOCAL_IP': '127.0.0.1',
    # It also reaches the drivers and executors that the workers start.
    'JDK_JAVA_OPTIONS': ' '.join(java_options.OPENS),
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
    overview = f'http://localhost:{web_port}/json/'
    engine.wait_for_number('aliveworkers', num_workers, overview)
    engine.options = [
      '--runner=SparkRunner',
      '--spark_submit_uber_jar',
      f'--spark_master_url={master}',
      f'--spark_rest_url=http://localhost:{rest_port}',
      f'--spark_job_server_jar={job_server}',
      *pool,
    ]
    yield engine
