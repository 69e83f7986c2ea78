import errno
import sys

import pytest

from luna_tfds.errors import UsageError
from luna_tfds.files import store_path
from luna_tfds.files import store_requests

URL = 'memory://bucket/a'


class StoreLibraryError(Exception):
  """As the errors of botocore, which are no OSError."""


@pytest.fixture
def pauses(monkeypatch):
  pauses = []
  monkeypatch.setattr(store_requests.time, 'sleep', pauses.append)
  return pauses


def call(*answers):
  """Makes a request with these answers; returns (its result or error, attempts)."""
  attempts = []

  def request(store):
    attempts.append(store)
    answer = answers[min(len(attempts), len(answers)) - 1]
    if isinstance(answer, Exception):
      raise answer
    return answer

  try:
    return store_requests.call('memory', URL, request), attempts
  except Exception as error:
    return error, attempts


@pytest.mark.parametrize(
  'error',
  [
    OSError(errno.EIO, 'an error'),
    ConnectionResetError(),
    TimeoutError(),
    StoreLibraryError('an error'),
  ],
)
def test_a_request_that_fails_once_is_repeated(error, pauses):
  answer, attempts = call(error, error, 'answer')
  assert answer == 'answer'
  assert len(attempts) == 3
  assert pauses == [0.2, 0.4]


class HttpError(Exception):
  """As gcsfs's, which has no error of its own for most status codes."""

  def __init__(self, code):
    super().__init__(f'an error, {code}')
    self.code = code


@pytest.mark.parametrize(
  ('error', 'attempts', 'number'),
  [
    (HttpError(401), 1, errno.EIO),
    (HttpError('400'), 1, errno.EIO),
    (HttpError(429), store_requests.MAX_ATTEMPTS, errno.EIO),
    (HttpError('503'), store_requests.MAX_ATTEMPTS, errno.EIO),
    (OSError('Forbidden: https://a\nno access'), 1, errno.EACCES),
    (ValueError('Bad Request: https://a\nan invalid name'), 1, errno.EIO),
  ],
)
def test_errors_of_gcsfs(error, attempts, number, pauses):
  got, made = call(error)
  assert isinstance(got, store_requests.StoreError)
  assert got.errno == number
  assert '\n' not in str(got)
  assert len(made) == attempts


def test_the_number_of_attempts_is_limited(pauses):
  error, attempts = call(StoreLibraryError('try later'))
  assert isinstance(error, OSError)
  assert error.strerror == 'try later'
  assert error.filename == URL
  assert len(attempts) == store_requests.MAX_ATTEMPTS
  assert sum(pauses) < 10


@pytest.mark.parametrize(
  ('error', 'expected'),
  [
    (FileNotFoundError('x'), FileNotFoundError),
    (PermissionError('Access Denied'), store_requests.StoreError),
    (OSError(errno.EINVAL, 'a bad request'), store_requests.StoreError),
    (TypeError('a mistake in this project'), TypeError),
  ],
)
def test_other_errors_are_not_repeated(error, expected, pauses):
  raised, attempts = call(error)
  assert type(raised) is expected
  assert len(attempts) == 1
  assert not pauses


def test_only_the_missing_ranges_are_read_again(memory_url, pauses, monkeypatch):
  path = store_path.as_path(memory_url) / 'a'
  path.write_bytes(bytes(range(100)))
  store = store_requests.file_system('memory')
  whole, asked = store.cat_ranges, []

  def failing(paths, starts, ends, **options):
    asked.append(starts)
    blocks = whole(paths, starts, ends)
    return [
      OSError(errno.EIO, 'x') if s == 7 and len(asked) < 3 else b
      for s, b in zip(starts, blocks)
    ]

  monkeypatch.setattr(store, 'cat_ranges', failing)
  assert path.read_ranges([(1, 2), (7, 9)]) == [bytes([1]), bytes([7, 8])]
  assert asked == [[1, 7], [7], [7]]


@pytest.mark.parametrize('scheme', ['gs', 'gcs'])
def test_a_missing_package_is_a_usage_error(scheme, monkeypatch):
  monkeypatch.setitem(sys.modules, 'gcsfs', None)
  monkeypatch.setitem(sys.modules, 'gcsfs.core', None)
  store_requests.forget_stores()
  with pytest.raises(UsageError, match=r"pip install 'luna16-patches\[gcs\]'"):
    store_requests.file_system(scheme)
