"""An S3 server on loopback that counts its traffic and fails on demand.

The server is moto's, which checks neither credentials nor signatures.
"""

import collections
import contextlib
import dataclasses
import os
import socket
import struct
import threading
import time
from unittest import mock

import werkzeug.serving

from luna_tfds import atomic_files
from luna_tfds import store_path
from luna_tfds import store_requests

BUCKET = 'luna'

# What must never be in a log or in a file.
ACCESS_KEY = 'AKIDLOOPBACKONLY'
SECRET_KEY = 'secret-of-the-loopback-server'
SESSION_TOKEN = 'token-of-the-loopback-server'

# How a request can fail.
ERROR_500 = '500 Internal Server Error'
ERROR_503 = '503 Slow Down'
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
    url: of the bucket, `s3://...`.
    environment: the variables that a process needs to use it.
    requests: all requests so far.
  """

  def __init__(self, endpoint):
    self.url = f's3://{BUCKET}'
    self.environment = {
      'AWS_ENDPOINT_URL': endpoint,
      'AWS_ACCESS_KEY_ID': ACCESS_KEY,
      'AWS_SECRET_ACCESS_KEY': SECRET_KEY,
      'AWS_SESSION_TOKEN': SESSION_TOKEN,
      'AWS_DEFAULT_REGION': 'us-east-1',
      'AWS_CONFIG_FILE': os.devnull,
      'AWS_SHARED_CREDENTIALS_FILE': os.devnull,
    }
    self.requests = []
    self._faults = collections.deque()
    self._always = None
    self._lock = threading.Lock()

  def path(self, key=''):
    """Returns the path of an object."""
    return store_path.as_path(f'{self.url}/{key}')

  def fail_next(self, *faults):
    """Makes the next requests fail, one for each fault; None succeeds."""
    with self._lock:
      self._faults.extend(faults)

  @contextlib.contextmanager
  def failing(self, choose):
    """Asks `choose(method, key)` for the fault of each request in a `with` block."""
    self._always = choose
    try:
      yield
    finally:
      self._always = None

  def next_fault(self, method, key):
    """Takes the fault of a request; None if it succeeds."""
    with self._lock:
      if self._always is not None:
        return self._always(method, key)
      return self._faults.popleft() if self._faults else None

  def count(self, method, suffix=''):
    """Returns the number of requests of a method, of keys with a suffix."""
    return sum(r.method == method and r.key.endswith(suffix) for r in self.requests)


class _Application:
  """Moto's application, with faults and a list of requests."""

  def __init__(self, application, store):
    self._application = application
    self._store = store

  def __call__(self, environ, start_response):
    method, key = environ['REQUEST_METHOD'], environ['PATH_INFO']
    fault = self._store.next_fault(method, key)
    connection = environ['werkzeug.socket']
    if fault == NO_ANSWER:
      time.sleep(NO_ANSWER_SECS)
    if fault in (RESET, NO_ANSWER):
      _reset(connection)
    if fault in (ERROR_500, ERROR_503):
      environ['wsgi.input'].read(int(environ.get('CONTENT_LENGTH') or 0))
      body = b'<Error><Code>InternalError</Code><Message>try again</Message></Error>'
      if method == 'HEAD':
        body = b''
      start_response(fault, [('Content-Length', str(len(body)))])
      return [body]
    body = b''.join(self._application(environ, start_response))
    received = int(environ.get('CONTENT_LENGTH') or 0)
    self._store.requests.append(Request(method, key, received, len(body)))
    if fault == RESET_IN_BODY:
      return _reset_after(connection, body[: len(body) // 2])
    return [body]


NO_ANSWER_SECS = 1.5


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
def running():
  """Runs a server with an empty bucket, and makes this process use it."""
  import moto.backends  # takes a second
  import moto.server

  application = moto.server.DomainDispatcherApplication(moto.server.create_backend_app)
  server = werkzeug.serving.make_server(
    '127.0.0.1',
    0,
    lambda *args: wrapped(*args),
    threaded=True,
    request_handler=_QuietHandler,
  )
  store = Store(f'http://127.0.0.1:{server.server_port}')
  wrapped = _Application(application, store)
  thread = threading.Thread(target=server.serve_forever, daemon=True)
  thread.start()
  try:
    with mock.patch.dict(os.environ, store.environment):
      store_requests.forget_stores()
      store_requests.file_system('s3').mkdir(BUCKET)
      yield store
  finally:
    store_requests.forget_stores()
    server.shutdown()
    thread.join()
    server.server_close()
    # All servers of a process share their buckets.
    for backend in moto.backends.get_backend('s3').values():
      for region in backend.values():
        region.reset()


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
