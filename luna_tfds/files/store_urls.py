"""The URLs of object stores, as users write them: checked, and taken apart."""

from __future__ import annotations

import re
from typing import NamedTuple

from luna_tfds.errors import UsageError

_URL = re.compile(r'(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://(?P<rest>.*)', re.DOTALL)

# A URL with one slash, which would be the name of a local folder.
_ONE_SLASH = re.compile(r'(?P<scheme>s3a?|gs|gcs|abfss?|az|https?|file):/[^/]', re.I)

# In abfs://container@account/x there is no password, and in hdfs://host:8020/x none
# either. A secret key of AWS may contain slashes.
_PASSWORD = re.compile(r'(?!arn:)[^/]*:(?!\d+/).*@', re.DOTALL)

# Stores whose URLs name a bucket first; no name of a bucket contains @.
BUCKET_SCHEMES = ('s3', 's3a', 'gs', 'gcs')

# They cannot be listed, or are not a store.
_REFUSED_SCHEMES = ('http', 'https', 'ftp', 'file', 'local')


class StoreUrl(NamedTuple):
  """A URL of a store.

  Attributes:
    scheme: in lower case, e.g. `s3`.
    parts: the names between slashes: the bucket, folders and the object.
  """

  scheme: str
  parts: tuple[str, ...]


def is_url(text: str) -> bool:
  """Returns whether a text is a URL, e.g. `s3://bucket/key`."""
  return _URL.match(text) is not None


def parse(text: str) -> StoreUrl | None:
  """Returns the URL that a user gave, None for a local path.

  Raises:
    UsageError: the URL is misspelt, is not one of a store, or contains a password.
  """
  match = _URL.match(text)
  if not match:
    _check_local(text)
    return None
  scheme, rest = match['scheme'].lower(), match['rest']
  has_user = scheme in BUCKET_SCHEMES and '@' in rest.partition('/')[0]
  if has_user or _PASSWORD.match(rest):
    raise UsageError(
      f'{scheme}://...: a URL must not contain a user name or a password, as it is '
      "stored with results; give them in the store's environment variables or files"
    )
  if scheme in _REFUSED_SCHEMES:
    advice = (
      'give the path without it' if scheme in ('file', 'local') else 'use a store'
    )
    raise UsageError(f'{scheme}:// URLs are not supported; {advice}')
  parts = tuple(filter(None, rest.split('/')))
  if not parts:
    raise UsageError(f'{text}: names no bucket; give {scheme}://BUCKET/...')
  return StoreUrl(scheme, parts)


def _check_local(text: str) -> None:
  """Raises UsageError for a misspelt URL, which would become the name of a folder."""
  if match := _ONE_SLASH.match(text):
    scheme = match['scheme']
    raise UsageError(
      f'{text}: a URL has two slashes: {scheme}://...; give the absolute path of a local '
      'folder of this name'
    )
  if '://' in text:
    raise UsageError(f'{text.partition("://")[0]}://...: not the URL of a store')
