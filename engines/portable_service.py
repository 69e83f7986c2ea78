"""Beam's own portable job services on this machine: the local job service, and Prism."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
import contextlib
import pathlib
import sys

import engine_downloads
import engine_processes


@contextlib.contextmanager
def running(folder: pathlib.Path) -> Iterator[engine_processes.Engine]:
  """Starts Beam's local job service and a worker pool, and ends them.

  The processes are `job_service` and `worker_pool`.

  Args:
    folder: folder for logs and temporary files, in which the workers run.
  """
  module = 'apache_beam.runners.portability.local_job_service_main'
  (port,) = engine_processes.free_ports(1)
  command = [sys.executable, '-m', module, f'--port={port}', '--staging_dir=staging']
  with _job_service(folder, command, port) as engine:
    yield engine


@contextlib.contextmanager
def running_prism(folder: pathlib.Path) -> Iterator[engine_processes.Engine]:
  """Starts Prism, Beam's local runner written in Go, and a worker pool, and ends them.

  Raises:
    EngineUnavailableError: Prism is not downloaded, and Go is missing.
  """
  program = engine_downloads.prism()
  (port,) = engine_processes.free_ports(1)
  command = [str(program), f'-job_port={port}', '-serve_http=false']
  with _job_service(folder, command, port) as engine:
    yield engine


@contextlib.contextmanager
def _job_service(
  folder: pathlib.Path, command: Sequence[str], port: int
) -> Iterator[engine_processes.Engine]:
  with engine_processes.running(folder) as engine:
    engine.start('job_service', command)
    engine.wait_for_port(port)
    pool = engine_processes.start_worker_pool(engine)
    engine.options = [
      '--runner=PortableRunner',
      f'--job_endpoint=localhost:{port}',
      *pool,
    ]
    yield engine
