"""A Flink session cluster on this machine: a JobManager and TaskManagers, two slots each."""

from __future__ import annotations

from collections.abc import Iterator
import contextlib
import pathlib

import engine_downloads
import engine_processes
import java_options

# A session cluster restarts no failed job by default. A TaskManager that does not answer
# for 10 s is lost. Slots are spread, so that a job with fewer than there are uses all
# TaskManagers. The sizes of the memory are those that Flink's scripts compute.
_CONFIG = """\
jobmanager.rpc.address: localhost
jobmanager.bind-host: localhost
taskmanager.host: localhost
taskmanager.bind-host: localhost
rest.address: localhost
rest.bind-address: localhost
cluster.evenly-spread-out-slots: true
taskmanager.numberOfTaskSlots: 2
taskmanager.cpu.cores: 2
taskmanager.memory.framework.heap.size: 128m
taskmanager.memory.framework.off-heap.size: 128m
taskmanager.memory.task.heap.size: 200m
taskmanager.memory.task.off-heap.size: 0b
taskmanager.memory.network.min: 32m
taskmanager.memory.network.max: 32m
taskmanager.memory.managed.size: 64m
taskmanager.memory.jvm-metaspace.size: 256m
taskmanager.memory.jvm-overhead.min: 64m
taskmanager.memory.jvm-overhead.max: 64m
restart-strategy.type: fixed-delay
restart-strategy.fixed-delay.attempts: 10
restart-strategy.fixed-delay.delay: 1 s
heartbeat.interval: 2000
heartbeat.timeout: 10000
"""
_LOGGING = """\
rootLogger.level = INFO
rootLogger.appenderRef.console.ref = Console
appender.console.name = Console
appender.console.type = CONSOLE
appender.console.layout.type = PatternLayout
appender.console.layout.pattern = %d %-5p %c - %m%n
"""
_JOB_MANAGER = 'org.apache.flink.runtime.entrypoint.StandaloneSessionClusterEntrypoint'
_TASK_MANAGER = 'org.apache.flink.runtime.taskexecutor.TaskManagerRunner'


@contextlib.contextmanager
def running(
  folder: pathlib.Path, num_workers: int = 2
) -> Iterator[engine_processes.Engine]:
  """Starts the cluster and a worker pool, and ends them.

  The processes are `job_manager`, `task_manager1`, ..., and `worker_pool`.

  Args:
    folder: folder for logs and temporary files.
    num_workers: number of TaskManagers.

  Raises:
    EngineUnavailableError: Java or a download is missing.
  """
  distribution = engine_downloads.flink()
  job_server = engine_downloads.flink_job_server()
  rpc_port, rest_port = engine_processes.free_ports(2)
  with engine_processes.running(folder) as engine:
    temporary = engine.folder / 'tmp'
    temporary.mkdir(exist_ok=True)
    (engine.folder / 'flink-conf.yaml').write_text(
      f'{_CONFIG}jobmanager.rpc.port: {rpc_port}\nrest.port: {rest_port}\n'
      f'io.tmp.dirs: {temporary}\n'
    )
    (engine.folder / 'log4j.properties').write_text(_LOGGING)

    def start(name: str, main: str) -> None:
      """Starts a Java process with a main class of Flink."""
      logging = f'-Dlog4j.configurationFile={engine.folder / "log4j.properties"}'
      java = ['java', '-Xmx400m', *java_options.OPENS, logging]
      classes = ['-cp', f'{distribution}/lib/*', main]
      engine.start(name, [*java, *classes, '--configDir', str(engine.folder)])

    start('job_manager', _JOB_MANAGER)
    for k in range(num_workers):
      start(f'task_manager{k + 1}', _TASK_MANAGER)
    pool = engine_processes.start_worker_pool(engine)
    overview = f'http://localhost:{rest_port}/overview'
    engine.wait_for_number('taskmanagers', num_workers, overview)
    engine.options = [
      '--runner=FlinkRunner',
      f'--flink_master=localhost:{rest_port}',
      f'--flink_job_server_jar={job_server}',
      f'--parallelism={2 * num_workers}',
      *pool,
    ]
    yield engine
