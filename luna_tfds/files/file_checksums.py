"""Compares a file with its size and its SHA-256."""

from __future__ import annotations

import hashlib
import pathlib

from luna_tfds.files.store_requests import StoreError


def file_sha256(path: pathlib.Path) -> str:
  """Returns the SHA-256 of a file, in hexadecimal digits.

  Raises:
    OSError: the file cannot be read.
  """
  with path.open('rb') as file:
    return hashlib.file_digest(file, 'sha256').hexdigest()


def has_contents(
  path: pathlib.Path, num_bytes: int, sha256: str, etag: str = ''
) -> bool:
  """Returns whether a file has a given size and checksum; False if it is missing.

  Args:
    path: the file.
    num_bytes: its size.
    sha256: its SHA-256, in hexadecimal digits.
    etag: its ETag in a store, '' if unknown. An object with the same ETag is not read.
  """
  try:
    state = path.stat()
    if state.st_size != num_bytes:
      return False
    if etag and getattr(state, 'etag', '') == etag:
      return True
    return file_sha256(path) == sha256
  except StoreError:
    raise
  except OSError:
    return False
