"""What fsspec tells of an object in a store, and the object as an open file."""

from __future__ import annotations

from collections.abc import Callable
import datetime
import errno
import io
import stat as stat_lib
from typing import Any

from luna_tfds.files.store_requests import StoreError


class ObjectStat:
  """What a store tells of an object, with the names of `os.stat_result`.

  Attributes:
    st_mode: whether it is an object or a folder, for the functions of `stat`.
    st_size: its size in bytes.
    st_mtime_ns: when it was written, in ns since the epoch; 0 if unknown.
    etag: changes with the contents; '' if the store has none.
  """

  def __init__(self, st_mode: int, st_size: int, st_mtime_ns: int, etag: str):
    self.st_mode = st_mode
    self.st_size = st_size
    self.st_mtime_ns = st_mtime_ns
    self.etag = etag

  @classmethod
  def from_info(cls, info: dict[str, Any]) -> ObjectStat:
    """Converts what fsspec returns, whose names differ between stores."""
    is_folder = info.get('type') == 'directory'
    etag = next(
      (info[k] for k in ('ETag', 'md5Hash', 'etag', 'md5') if info.get(k)), ''
    )
    modified = next(
      (info[k] for k in ('LastModified', 'mtime', 'updated', 'created') if info.get(k)),
      None,
    )
    return cls(
      stat_lib.S_IFDIR if is_folder else stat_lib.S_IFREG,
      int(info.get('size') or 0),
      _to_ns(modified),
      str(etag).strip('"'),
    )


def open_object(
  read_range: Callable[[int, int], bytes], num_bytes: int, buffer_bytes: int, url: str
) -> io.BufferedReader:
  """Returns an object as a file that is open for reading.

  Args:
    read_range: reads the bytes from a position to another one.
    num_bytes: size of the object.
    buffer_bytes: that are requested at a time, at least.
    url: URL of the object, for messages.
  """
  return _BufferedReader(_ObjectReader(read_range, num_bytes, url), buffer_bytes)


class _BufferedReader(io.BufferedReader):
  """Fills its buffer by one request, where `read1` would request a few bytes."""

  def read1(self, size: int = -1) -> bytes:
    return self.read(size)


class _ObjectReader(io.RawIOBase):
  """Reads an object by ranges."""

  def __init__(self, read_range: Callable[[int, int], bytes], num_bytes: int, url: str):
    super().__init__()
    self._read_range = read_range
    self._num_bytes = num_bytes
    self._url = url
    self._position = 0

  def readable(self) -> bool:
    return True

  def seekable(self) -> bool:
    return True

  def tell(self) -> int:
    return self._position

  def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
    origin = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._num_bytes}
    self._position = max(origin[whence] + offset, 0)
    return self._position

  def readinto(self, buffer: Any) -> int:
    """Fills a buffer from the present position; returns the number of bytes read."""
    stop = min(self._position + len(buffer), self._num_bytes)
    data = self._read_range(self._position, stop)
    if len(data) < stop - self._position:
      reason = 'became shorter while it was read'
      raise StoreError(errno.EIO, reason, self._url)
    buffer[: len(data)] = data
    self._position += len(data)
    return len(data)


def _to_ns(modified: Any) -> int:
  if isinstance(modified, str):
    try:
      modified = datetime.datetime.fromisoformat(modified)
    except ValueError:
      return 0
  if isinstance(modified, datetime.datetime):
    modified = modified.timestamp()
  return int(modified * 1e9) if isinstance(modified, int | float) else 0
