"""A store's server on loopback that counts its traffic and fails on demand."""

import contextlib
import dataclasses
import importlib.util
import os
import socket
import struct
import threading
import time
from unittest import mock

import gcs_server
import pytest
import s3_server
import werkzeug.serving

from luna_tfds.files import atomic_files
from luna_tfds.files import store_path
from luna_tfds.files import store_requests

BUCKET = 'luna'

# Modules with the same functions, by scheme.
SERVERS = {'s3': s3_server, 'gs': gcs_server}

# How a request can fail.
ERROR_500 = '500 Internal Server Error'
ERROR_503 = '503 Slow Down'
UNAUTHORIZED = '401 Unauthorized'
FORBIDDEN = '403 Forbidden'
RESET = 'the connection is reset'
RESET_IN_BODY = 'the connection is reset in the middle of the answer'
NO_ANSWER = 'no answer before the client gives up'


@dataclasses.dataclass(frozen=True)
class Request:
  """A request as the server saw it; `received` and `sent` are sizes of bodies."""

  method: str
  key: str
  received: int
  sent: int


class Store:
  """A running server.

  Attributes:
    scheme: 's3' or 'gs'.
    server: the module of the server.
    url: of the bucket.
    requests: all requests so far that succeeded.
    num_failed: number of requests so far that failed on demand.
  """

  def __init__(self, scheme):
    self.scheme = scheme
    self.server = SERVERS[scheme]
    self.url = f'{scheme}://{BUCKET}'
    self.requests = []
    self.num_failed = 0
    self._choose = None
    self._lock = threading.Lock()

  def path(self, key=''):
    """Returns the path of an object."""
    return store_path.as_path(f'{self.url}/{key}')

  @contextlib.contextmanager
  def failing(self, choose):
    """Asks `choose(method, key)` for the fault of each request in a `with` block."""
    self._choose = choose
    try:
      yield
    finally:
      self._choose = None

  def next_fault(self, method, key):
    """Takes the fault of a request; None if it succeeds."""
    with self._lock:
      fault = self._choose(method, key) if self._choose else None
      self.num_failed += fault is not None
      return fault


class _Application:
  """A server's application, with faults and a list of requests."""

  def __init__(self, application, store):
    self._application = application
    self._store = store

  def __call__(self, environ, start_response):
    method, key = self._store.server.operation(environ)
    fault = self._store.next_fault(method, key)
    connection = environ['werkzeug.socket']
    if fault in (ERROR_500, ERROR_503, UNAUTHORIZED, FORBIDDEN):
      environ['wsgi.input'].read(int(environ.get('CONTENT_LENGTH') or 0))
      body = self._store.server.error_body(int(fault[:3]))
      if environ['REQUEST_METHOD'] == 'HEAD':
        body = b''
      start_response(fault, [('Content-Length', str(len(body)))])
      return [body]
    # Done at once, also if the answer is lost: a later test must not see its effect.
    body = b''.join(self._application(environ, start_response))
    if fault == NO_ANSWER:
      time.sleep(NO_ANSWER_SECS)
    if fault in (RESET, NO_ANSWER):
      _reset(connection)
      return [body]
    received = int(environ.get('CONTENT_LENGTH') or 0)
    self._store.requests.append(Request(method, key, received, len(body)))
    if fault == RESET_IN_BODY:
      return _reset_after(connection, body[: len(body) // 2])
    return [body]


NO_ANSWER_SECS = 6.0


def _reset(connection):
  # Closing with unsent data and no lingering sends RST.
  connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0))
  connection.shutdown(socket.SHUT_RDWR)


def _reset_after(connection, body):
  yield body
  _reset(connection)


class _QuietHandler(werkzeug.serving.WSGIRequestHandler):
  protocol_version = 'HTTP/1.1'

  def log(self, *args, **kwargs):
    pass


@contextlib.contextmanager
def running(scheme):
  """Runs a server with an empty bucket, and makes this process use it."""
  store = Store(scheme)
  for package in store.server.REQUIRED_PACKAGES:
    if not importlib.util.find_spec(package):
      pytest.skip(f'needs the Python package {package}')
  wrapped = _Application(store.server.application(), store)
  server = werkzeug.serving.make_server(
    '127.0.0.1', 0, wrapped, threaded=True, request_handler=_QuietHandler
  )
  thread = threading.Thread(target=server.serve_forever, daemon=True)
  thread.start()
  environment = store.server.environment(f'http://127.0.0.1:{server.server_port}')
  try:
    with mock.patch.dict(os.environ, environment):
      store_requests.forget_stores()
      store_requests.file_system(scheme).mkdir(BUCKET)
      yield store
  finally:
    store_requests.forget_stores()
    server.shutdown()
    thread.join()
    server.server_close()
    store.server.clear()


def upload_folder(source, target):
  """Copies the files of a local folder and its subfolders to a store."""
  for path in source.rglob('*'):
    if path.is_file():
      atomic_files.copy_file(path, target / path.relative_to(source))
  return target


def contents(folder):
  """Returns the contents of all files below a folder on disk or in a store."""
  if isinstance(folder, store_path.StorePath):
    files = list(folder.rglob('*'))
  else:
    files = [path for path in folder.rglob('*') if path.is_file()]
  return {str(path.relative_to(folder)): path.read_bytes() for path in files}
