"""Moto's S3 server, which checks neither credentials nor signatures."""

import os

# What must never be in a log or in a file.
ACCESS_KEY = 'AKIDLOOPBACKONLY'
SECRET_KEY = 'secret-of-the-loopback-server'
SESSION_TOKEN = 'token-of-the-loopback-server'
SECRETS = (ACCESS_KEY, SECRET_KEY, SESSION_TOKEN)

# With these variables a client has no credentials.
NO_CREDENTIALS = {
  'AWS_ACCESS_KEY_ID': '',
  'AWS_SECRET_ACCESS_KEY': '',
  'AWS_EC2_METADATA_DISABLED': 'true',
}
ENDPOINT = 'AWS_ENDPOINT_URL'
REQUIRED_PACKAGES = ('moto', 's3fs')


def environment(endpoint):
  """Returns the variables that a process needs to use the server."""
  return {
    ENDPOINT: endpoint,
    'AWS_ACCESS_KEY_ID': ACCESS_KEY,
    'AWS_SECRET_ACCESS_KEY': SECRET_KEY,
    'AWS_SESSION_TOKEN': SESSION_TOKEN,
    'AWS_DEFAULT_REGION': 'us-east-1',
    'AWS_CONFIG_FILE': os.devnull,
    'AWS_SHARED_CREDENTIALS_FILE': os.devnull,
  }


def timeouts(secs):
  """Returns fsspec's options with which a client waits this long for an answer."""
  return {'config_kwargs': {'connect_timeout': 1, 'read_timeout': secs}}


def application():
  """Returns the WSGI application."""
  import moto.server  # takes a second

  return moto.server.DomainDispatcherApplication(moto.server.create_backend_app)


def error_body(status):
  """Returns the body of an answer with an HTTP status of 400 or more."""
  code, message = {
    401: ('InvalidToken', 'the token is not valid'),
    403: ('AccessDenied', 'Access Denied'),
  }.get(status, ('InternalError', 'try again'))
  return f'<Error><Code>{code}</Code><Message>{message}</Message></Error>'.encode()


def operation(environ):
  """Returns (method, key) of a request."""
  return environ['REQUEST_METHOD'], environ['PATH_INFO']


def clear():
  """Deletes the buckets: all servers of a process share them."""
  import moto.backends

  for backend in moto.backends.get_backend('s3').values():
    for region in backend.values():
      region.reset()
