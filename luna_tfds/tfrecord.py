"""The TFRecord file format, written and read without TensorFlow."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
import dataclasses
import functools
import hashlib
import io
import pathlib
import struct
from typing import IO

import google_crc32c

# The length and two checksums that the format adds to each record.
TFRECORD_OVERHEAD_BYTES = 16

# Bytes that are written at once; more is not faster.
_WRITE_BYTES = 2**17

_HEADER_BYTES = 12  # the length and its checksum
_CRC_BYTES = 4
_CRC_MASK_DELTA = 0xA282EAD8


@dataclasses.dataclass(frozen=True)
class WrittenFile:
  """A file that was written.

  Attributes:
    num_bytes: its size.
    sha256: SHA-256 of the bytes handed to the file system, in hexadecimal digits.
  """

  num_bytes: int
  sha256: str


def write_tfrecords(path: pathlib.Path, serialized: Iterable[bytes]) -> WrittenFile:
  """Writes a TFRecord file.

  Args:
    path: the file; replaced if it exists.
    serialized: the records.

  Returns:
    The size and the checksum of the file.

  Raises:
    OSError: the file cannot be written.
  """
  sha256 = hashlib.sha256()
  with path.open('wb') as file:
    for part in _framed(serialized):
      sha256.update(part)
      file.write(part)
    return WrittenFile(file.tell(), sha256.hexdigest())


def _framed(serialized: Iterable[bytes]) -> Iterator[bytes]:
  """Yields the bytes of a file, several records at once, as each call takes time."""
  parts: list[bytes] = []
  num_bytes = 0
  for record in serialized:
    parts += (_header(len(record)), record, _masked_crc(record))
    num_bytes += len(record)
    if num_bytes >= _WRITE_BYTES:
      yield b''.join(parts)
      parts.clear()
      num_bytes = 0
  yield b''.join(parts)


@functools.lru_cache(maxsize=1024)
def _header(num_bytes: int) -> bytes:
  """Returns what precedes a record: its length and the checksum of the length."""
  length = struct.pack('<Q', num_bytes)
  return length + _masked_crc(length)


def read_tfrecords(path: pathlib.Path) -> Iterator[bytes]:
  """Reads a TFRecord file and checks both checksums of each record.

  Args:
    path: the file.

  Yields:
    The records.

  Raises:
    OSError: the file cannot be read.
    ValueError: the file is truncated, or a checksum is wrong.
  """
  num_bytes = path.stat().st_size
  with path.open('rb') as file:
    yield from _read(file, num_bytes, str(path))


def parse_tfrecords(data: bytes, name: str) -> Iterator[bytes]:
  """As `read_tfrecords`, for the bytes of consecutive records.

  Args:
    data: the bytes; they begin with a record.
    name: name of their file, for messages.
  """
  return _read(io.BytesIO(data), len(data), name)


def _read(file: IO[bytes], num_bytes: int, name: str) -> Iterator[bytes]:
  number = 0
  while header := file.read(_HEADER_BYTES):
    length_bytes, length_crc = header[:8], header[8:]
    if _masked_crc(length_bytes) != length_crc:
      raise ValueError(f'{name}: record {number} (from 0) is damaged or truncated')
    (length,) = struct.unpack('<Q', length_bytes)
    if length > num_bytes - file.tell():
      raise ValueError(f'{name}: record {number} (from 0) is truncated')
    record = file.read(length)
    if _masked_crc(record) != file.read(_CRC_BYTES):
      raise ValueError(f'{name}: record {number} (from 0) is damaged or truncated')
    yield record
    number += 1


def _masked_crc(data: bytes) -> bytes:
  """Returns the checksum of the format: CRC-32C, rotated and offset, little-endian."""
  crc = google_crc32c.value(data)
  return struct.pack('<I', (((crc >> 15) | (crc << 17)) + _CRC_MASK_DELTA) & 0xFFFFFFFF)
