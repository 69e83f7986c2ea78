"""A Dask cluster on this machine: a scheduler and workers of one thread."""

from __future__ import annotations

from collections.abc import Iterator
import contextlib
import importlib.util
import pathlib
import sys

import engine_processes


@contextlib.contextmanager
def running(
  folder: pathlib.Path, num_workers: int = 2
) -> Iterator[engine_processes.Engine]:
  """Starts the cluster, and ends it.

  The processes are `scheduler`, `worker1`, ...

  Args:
    folder: folder for logs and temporary files.
    num_workers: number of Dask workers.

  Raises:
    EngineUnavailableError: Dask is not installed.
  """
  if importlib.util.find_spec('distributed') is None:
    raise engine_processes.EngineUnavailableError(
      "needs Dask: pip install '.[dask]' -c constraints.txt"
    )
  (port,) = engine_processes.free_ports(1)
  address = f'tcp://127.0.0.1:{port}'
  with engine_processes.running(folder) as engine:
    scheduler = ['--host=127.0.0.1', f'--port={port}', '--no-dashboard']
    engine.start('scheduler', [*_dask('scheduler'), *scheduler])
    engine.wait_for_port(port)
    for k in range(num_workers):
      options = [
        '--nthreads=1',
        '--no-dashboard',
        '--no-nanny',
        f'--name=worker{k + 1}',
      ]
      local = f'--local-directory={engine.folder / f"worker{k + 1}"}'
      engine.start(f'worker{k + 1}', [*_dask('worker'), address, *options, local])
    engine.options = ['--runner=DaskRunner', f'--dask_client_address={address}']
    yield engine


def _dask(command: str) -> list[str]:
  return [sys.executable, '-m', 'dask', command]
