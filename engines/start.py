"""Starts an engine on this machine, prints what `luna16-extract` needs, and waits.

    python engines/start.py flink

Ctrl-C ends it. The first start downloads the engine, see engine_downloads.py.
"""

from __future__ import annotations

import argparse
import pathlib
import signal
import sys
import tempfile

import dask_cluster
from engine_processes import EngineUnavailableError
import flink_cluster
import portable_service
import spark_cluster

ENGINES = {
  'dask': dask_cluster.running,
  'flink': flink_cluster.running,
  'portable': portable_service.running,
  'prism': portable_service.running_prism,
  'spark': spark_cluster.running,
}


def main() -> int:
  """Starts the engine that the command line names; returns the exit code."""
  parser = argparse.ArgumentParser(description='Starts an engine on this machine.')
  parser.add_argument('engine', choices=sorted(ENGINES))
  parser.add_argument(
    '--folder', type=pathlib.Path, help='for logs; default: temporary'
  )
  arguments = parser.parse_args()
  folder = arguments.folder or pathlib.Path(tempfile.mkdtemp(prefix='luna16-engine-'))
  signal.signal(signal.SIGTERM, signal.default_int_handler)
  try:
    with ENGINES[arguments.engine](folder) as engine:
      print(f'logs: {engine.folder}', file=sys.stderr)
      print('luna16-extract ... ' + ' '.join(engine.options), flush=True)
      signal.pause()
  except EngineUnavailableError as error:
    print(f'{arguments.engine} is not available: {error}', file=sys.stderr)
    return 1
  except KeyboardInterrupt:
    pass
  return 0


if __name__ == '__main__':
  sys.exit(main())
