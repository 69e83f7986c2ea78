"""Starts the Python workers of engines on this machine, when an engine asks for one.

    python -m beam_jobs.worker_pool --port=50000

Run it on each machine of a Flink or Spark cluster, with the Python that has this package;
`luna16-extract --environment_type=EXTERNAL --environment_config=localhost:50000` uses it.

Beam's own pool, `worker_pool_main`, names workers by the id that they have in the Java
process that asked for them. Two Java processes of one machine use the same ids: one that
ends its worker also ends the worker of the other, which waits forever if that worker was
just starting. It also starts whatever `python` is on the PATH, and accepts connections from
other machines.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from concurrent import futures
import logging
import signal
import subprocess
import sys
import threading
import traceback

from apache_beam.portability.api import beam_fn_api_pb2
from apache_beam.portability.api import beam_fn_api_pb2_grpc
import grpc

# A request takes a thread for the moment in which a process is started or ended.
_NUM_THREADS = 16
_WORKER = (
  'import sys; from apache_beam.runners.worker.sdk_worker import SdkHarness; '
  'SdkHarness(sys.argv[1], worker_id=sys.argv[2], state_cache_size=0).run()'
)


class WorkerPool(beam_fn_api_pb2_grpc.BeamFnExternalWorkerPoolServicer):
  """Beam's service for external workers: starts and ends worker processes."""

  def __init__(self) -> None:
    # By the connection of the engine's process and the id that it has given.
    self._workers: dict[tuple[str, str], subprocess.Popen[bytes]] = {}
    self._lock = threading.Lock()

  def StartWorker(
    self, request: beam_fn_api_pb2.StartWorkerRequest, context: grpc.ServicerContext
  ) -> beam_fn_api_pb2.StartWorkerResponse:
    """Starts a worker process, which connects to the engine."""
    key = (context.peer(), request.worker_id)
    endpoint = request.control_endpoint.url
    try:
      worker = subprocess.Popen(
        [sys.executable, '-c', _WORKER, endpoint, request.worker_id],
        stdin=subprocess.DEVNULL,
      )
    except OSError:
      return beam_fn_api_pb2.StartWorkerResponse(error=traceback.format_exc())
    logging.info('worker %s of %s started, process %d', *key[::-1], worker.pid)
    with self._lock:
      self._workers[key] = worker
    threading.Thread(target=self._wait, args=(key, worker), daemon=True).start()
    return beam_fn_api_pb2.StartWorkerResponse()

  def StopWorker(
    self, request: beam_fn_api_pb2.StopWorkerRequest, context: grpc.ServicerContext
  ) -> beam_fn_api_pb2.StopWorkerResponse:
    """Ends a worker process.

    If the engine has another connection by now, the worker is not found. It ends by
    itself, because the engine has closed the worker's connection before.
    """
    with self._lock:
      worker = self._workers.pop((context.peer(), request.worker_id), None)
    if worker is not None:
      worker.terminate()
    return beam_fn_api_pb2.StopWorkerResponse()

  def close(self) -> None:
    """Ends all workers."""
    with self._lock:
      workers = list(self._workers.values())
      self._workers.clear()
    for worker in workers:
      worker.terminate()

  def _wait(self, key: tuple[str, str], worker: subprocess.Popen[bytes]) -> None:
    """Waits for the end of a worker, and says so if nobody has ended it."""
    code = worker.wait()
    with self._lock:
      is_unexpected = self._workers.get(key) is worker
      if is_unexpected:
        del self._workers[key]
    if is_unexpected and code:
      logging.error('worker %s of %s ended with code %d', *key[::-1], code)


def main(argv: Sequence[str] | None = None) -> int:
  """Serves until SIGINT or SIGTERM; returns the exit code."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('--port', type=int, required=True, help='port on localhost')
  port = parser.parse_args(argv).port
  pool = WorkerPool()
  options = [
    ('grpc.so_reuseport', 0),  # two pools on one port would share the requests
    # Engines may ask often whether the connection is alive.
    ('grpc.http2.max_pings_without_data', 0),
    ('grpc.http2.max_ping_strikes', 0),
  ]
  server = grpc.server(futures.ThreadPoolExecutor(_NUM_THREADS), options=options)
  beam_fn_api_pb2_grpc.add_BeamFnExternalWorkerPoolServicer_to_server(pool, server)
  try:
    # On this machine only: who can connect can run code.
    server.add_insecure_port(f'localhost:{port}')
  except RuntimeError:
    print(f'--port={port}: cannot be used; give a free port', file=sys.stderr)
    return 2
  logging.basicConfig(level=logging.INFO, force=True)  # Beam has configured it
  signal.signal(signal.SIGTERM, signal.default_int_handler)
  try:
    server.start()
    server.wait_for_termination()
  except KeyboardInterrupt:
    pool.close()
    server.stop(0)
  return 0


if __name__ == '__main__':
  sys.exit(main())
