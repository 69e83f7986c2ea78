"""Requests to object stores, through fsspec.

A request that fails for a passing reason is repeated a few times, with growing pauses.
Local paths never load fsspec.
"""

from __future__ import annotations

from collections.abc import Callable
import errno
import functools
import importlib
import inspect
import logging
import os
import time
import types
from typing import Any, TypeVar

from luna_tfds.errors import UsageError

_T = TypeVar('_T')

# A request is made at most this often; the first pause, in seconds, doubles each time.
MAX_ATTEMPTS = 6
_FIRST_PAUSE_SECS = 0.2

# Requests of one process that are waited for at the same time.
MAX_IN_FLIGHT = 16

# The extra of this project that installs the packages for a scheme.
_EXTRAS = {'s3': 's3', 's3a': 's3', 'gs': 'gcs', 'gcs': 'gcs'}

# Errors that another attempt would not change.
_PERMANENT_ERRORS = (
  FileNotFoundError,
  PermissionError,
  FileExistsError,
  IsADirectoryError,
  NotADirectoryError,
  NotImplementedError,
)
_PERMANENT_ERRNOS = (errno.EINVAL, errno.ENOSYS, errno.EPERM, errno.ENAMETOOLONG)

# Without an answer for so long, a request to Google Cloud fails; as s3fs's. gcsfs would
# wait for 5 minutes, and end transfers that take longer.
_TIMEOUT_SECS = 60

# HTTP: the request took too long; too many requests.
_PASSING_CLIENT_ERRORS = ('408', '429')

# gcsfs's methods that repeat a request themselves, with pauses of up to 16 s.
_REPEATING_METHODS = ('_request', '_get_file_request', '_get_file_concurrent')

# At level DEBUG these log the headers of requests, which contain session tokens.
_LOGGERS_WITH_CREDENTIALS = ('botocore', 'aiobotocore', 'boto3', 's3fs', 'gcsfs')


class StoreError(OSError):
  """A store did not do what it was asked to, also after several attempts.

  It says nothing of the object. That an object is missing is a FileNotFoundError.
  """

  def __str__(self) -> str:
    return f'{self.filename}: {self.strerror}'


def call(scheme: str, url: str, request: Callable[[Any], _T]) -> _T:
  """Makes a request; repeats it if it fails for a passing reason.

  Args:
    scheme: URL scheme of the store, e.g. 's3'.
    url: URL of the object or folder, for messages.
    request: takes the file system of fsspec; can be repeated.

  Raises:
    UsageError: the packages for the store are missing.
    FileNotFoundError: there is no such object, folder or bucket.
    FileExistsError: there is an object that should be created.
    StoreError: the request failed for another reason.
  """
  store = file_system(scheme)
  for attempt in range(MAX_ATTEMPTS):
    try:
      return request(store)
    except Exception as error:  # each store has errors of its own
      if attempt == MAX_ATTEMPTS - 1 or not _is_passing(error):
        raise _as_os_error(error, url) from error
      pause = _FIRST_PAUSE_SECS * 2**attempt
      logging.debug('%s: %s; next attempt in %s s', url, type(error).__name__, pause)
    time.sleep(pause)
  raise AssertionError


def _as_os_error(error: Exception, url: str) -> Exception:
  """Returns an `OSError` that names the object, unless the error is a mistake of ours."""
  if isinstance(error, UsageError):
    return error
  if isinstance(error, TimeoutError):
    return StoreError(errno.ETIMEDOUT, 'the store does not answer in time', url)
  if isinstance(error, FileNotFoundError):
    return FileNotFoundError(errno.ENOENT, 'no such object or bucket', url)
  if isinstance(error, FileExistsError):
    return FileExistsError(errno.EEXIST, 'there is such an object already', url)
  reason = ' '.join(str(getattr(error, 'strerror', None) or error).split())
  reason = reason or type(error).__name__
  if isinstance(error, OSError):
    number = errno.EACCES if _is_forbidden(error) else error.errno or errno.EIO
    return StoreError(number, reason, url)
  is_answer = isinstance(error, ValueError) and reason.startswith('Bad Request: ')
  if type(error).__module__ == 'builtins' and not is_answer:
    return error
  return StoreError(errno.EIO, reason, url)


def _is_passing(error: Exception) -> bool:
  """Returns whether another attempt could succeed."""
  if isinstance(error, _PERMANENT_ERRORS) or _is_forbidden(error):
    return False
  # gcsfs's HttpError, whose code may be a text.
  status = str(getattr(error, 'code', ''))
  if status.startswith('4'):
    return status in _PASSING_CLIENT_ERRORS
  if isinstance(error, TimeoutError | ConnectionError):
    return True
  if isinstance(error, OSError):
    return error.errno not in _PERMANENT_ERRNOS
  return type(error).__module__ != 'builtins' and not isinstance(error, UsageError)


def _is_forbidden(error: Exception) -> bool:
  """Returns whether the store refuses access."""
  if isinstance(error, PermissionError):
    return True
  # gcsfs has no error of its own for status 403.
  return type(error) is OSError and str(error).startswith('Forbidden: ')


def forget_stores() -> None:
  """Makes the next request read the configuration of the stores again."""
  _file_system_of_process.cache_clear()


def file_system(scheme: str) -> Any:
  """Returns fsspec's file system of a scheme, e.g. 's3'.

  Raises:
    UsageError: no store has this scheme, or its packages are missing.
  """
  # A process that was forked needs one of its own.
  return _file_system_of_process(scheme, os.getpid())


@functools.cache
def _file_system_of_process(scheme: str, pid: int) -> Any:
  import fsspec

  for name in _LOGGERS_WITH_CREDENTIALS:
    logger = logging.getLogger(name)
    logger.setLevel(max(logger.getEffectiveLevel(), logging.INFO))
  # Other processes write, too.
  options: dict[str, Any] = {'use_listings_cache': False, 'skip_instance_cache': True}
  if _EXTRAS.get(scheme) == 's3':
    # Requests are repeated here, in one way for all stores.
    configured = fsspec.config.conf.get('s3', {}).get('config_kwargs', {})
    options['config_kwargs'] = {**configured, 'retries': {'total_max_attempts': 1}}
  try:
    store_class = _class_of(scheme)
    if _EXTRAS.get(scheme) == 'gcs':
      aiohttp = importlib.import_module('aiohttp')
      timeout = aiohttp.ClientTimeout(
        sock_connect=_TIMEOUT_SECS, sock_read=_TIMEOUT_SECS
      )
      options['session_kwargs'] = {'timeout': timeout}
    store = store_class(**options)
  except ValueError as error:
    raise UsageError(f'{scheme}://: not a store that fsspec knows') from error
  except ImportError as error:
    extra = _EXTRAS.get(scheme)
    needed = f"pip install 'luna16-patches[{extra}]'" if extra else str(error)
    raise UsageError(f'{scheme}:// URLs need more packages: {needed}') from error
  except Exception as error:  # it needs arguments, or a library that is not there
    reason = (str(error).splitlines() or [type(error).__name__])[0]
    raise UsageError(f'{scheme}://: fsspec cannot open this store: {reason}') from error
  if hasattr(store, 'retries'):
    store.retries = 1
  if _EXTRAS.get(scheme) == 'gcs':
    _repeat_no_requests(store)
  return store


def _repeat_no_requests(store: Any) -> None:
  """Takes the decorator from gcsfs's methods that repeat requests; it has no option."""
  for name in _REPEATING_METHODS:
    method = getattr(type(store), name, None)
    if method is not None:  # else another version of gcsfs, which may repeat requests
      setattr(store, name, types.MethodType(inspect.unwrap(method), store))


def _class_of(scheme: str) -> Any:
  """Returns fsspec's class of a scheme.

  Raises:
    ValueError: there is none.
    ImportError: its packages are missing.
  """
  import fsspec

  if _EXTRAS.get(scheme) == 'gcs':
    # Its subclass, which fsspec would choose, asks for the kind of the bucket by gRPC, and
    # appends to the objects of zonal buckets, which are seen half written.
    return importlib.import_module('gcsfs.core').GCSFileSystem
  return fsspec.get_filesystem_class(scheme)
