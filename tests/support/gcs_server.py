"""The Google Cloud Storage server of gcp-storage-emulator, which checks no credentials."""

import email.message
import http
import io
import json
import logging
import os
import re
import threading
import urllib.parse

# There are none: gcsfs sends no credentials to an emulator.
SECRETS = ()
NO_CREDENTIALS = {}

ENDPOINT = 'STORAGE_EMULATOR_HOST'
REQUIRED_PACKAGES = ('gcp_storage_emulator', 'gcsfs')

_OBJECT = re.compile(r'(?:/[a-z]+)?/storage/v1/b/(?P<bucket>[^/]+)/o/(?P<name>[^/]+)')


def environment(endpoint):
  """Returns the variables that a process needs to use the server."""
  return {
    ENDPOINT: endpoint,
    # gcsfs looks for credentials all the same.
    'GOOGLE_APPLICATION_CREDENTIALS': os.devnull,
    'NO_GCE_CHECK': 'true',
  }


def timeouts(secs):
  """Returns fsspec's options with which a client waits this long for an answer."""
  import aiohttp

  return {'requests_timeout': aiohttp.ClientTimeout(total=secs)}


def application():
  """Returns a WSGI application with storage of its own."""
  from gcp_storage_emulator import storage

  # A real server would not log to the command's stderr.
  logging.getLogger('gcp_storage_emulator').setLevel(logging.CRITICAL)
  return _Application(storage.Storage(use_memory_fs=True))


def error_body(status):
  """Returns the body of an answer with an HTTP status of 400 or more."""
  message = {
    401: 'Anonymous caller does not have storage.objects.list access to the bucket.',
    403: 'x@y.iam.gserviceaccount.com does not have storage.objects.create access.',
  }.get(status, 'try again')
  return json.dumps({'error': {'code': status, 'message': message}}).encode()


def operation(environ):
  """Returns (method, key) of a request, with the methods that S3 has for the same."""
  method, path = environ['REQUEST_METHOD'], environ['REQUEST_URI'].partition('?')[0]
  query = urllib.parse.parse_qs(environ['QUERY_STRING'])
  match = _OBJECT.match(path)
  if path.startswith('/upload/'):
    return 'PUT', query.get('name', [''])[0]
  if not match:
    return method, environ['PATH_INFO']
  if method == 'GET' and query.get('alt') != ['media']:
    method = 'HEAD'
  return method, urllib.parse.unquote(match['name'])


def clear():
  """Does nothing: every application has storage of its own."""


class _Application:
  """The emulator's request handlers as a WSGI application.

  The emulator's own server answers one request at a time, on a new connection each.
  """

  def __init__(self, storage):
    self._storage = storage
    # Its storage is not made for threads.
    self._lock = threading.Lock()

  def __call__(self, environ, start_response):
    from gcp_storage_emulator import server

    with self._lock:
      is_refused = self._is_refused(environ)  # may replace the input
      exchange = _Exchange(environ, self._storage)
      # The emulator has neither of the two.
      if is_refused:
        exchange.answer(412, 'Precondition Failed')
      elif environ['REQUEST_METHOD'] == 'DELETE' and 'upload_id=' in exchange.path:
        exchange.answer(499, 'Client Closed Request')
      else:
        server.Router(exchange).handle(environ['REQUEST_METHOD'])
    start_response(exchange.status, exchange.answer_headers)
    return [exchange.wfile.getvalue()]

  def _is_refused(self, environ):
    """Returns whether an object must not exist, but does."""
    query = urllib.parse.parse_qs(environ['QUERY_STRING'])
    if query.get('ifGenerationMatch') != ['0']:
      return False
    body = environ['wsgi.input'].read(int(environ['CONTENT_LENGTH']))
    environ['wsgi.input'] = io.BytesIO(body)
    bucket = environ['PATH_INFO'].split('/')[-2]
    metadata = next(line for line in body.splitlines() if line.startswith(b'{'))
    return json.loads(metadata)['name'] in self._storage.objects.get(bucket, {})


class _Exchange:
  """A request and its answer, with the names of `http.server.BaseHTTPRequestHandler`."""

  def __init__(self, environ, storage):
    self.storage = storage
    self.path = environ['REQUEST_URI']
    self.server = self
    self.server_address = (environ['SERVER_NAME'], int(environ['SERVER_PORT']))
    self.headers = email.message.Message()
    for name, value in environ.items():
      if name.startswith('HTTP_') or name in ('CONTENT_TYPE', 'CONTENT_LENGTH'):
        self.headers[name.removeprefix('HTTP_').replace('_', '-')] = value
    self.rfile = environ['wsgi.input']
    self.wfile = io.BytesIO()
    self.status = ''
    self.answer_headers = []

  def answer(self, code, phrase):
    self.send_response(code, phrase)
    self.send_header('Content-Length', '0')

  def send_response(self, code, phrase):
    self.status = f'{code} {phrase or http.HTTPStatus(code).phrase}'

  def send_header(self, name, value):
    self.answer_headers.append((name, value))

  def end_headers(self):
    pass
