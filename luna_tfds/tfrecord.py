"""The TFRecord file format, written without TensorFlow."""

from __future__ import annotations

from collections.abc import Iterable
import pathlib
import struct

import google_crc32c

# The length and two checksums that the format adds to each record.
TFRECORD_OVERHEAD_BYTES = 16

_CRC_MASK_DELTA = 0xA282EAD8


def write_tfrecords(path: pathlib.Path, serialized: Iterable[bytes]) -> int:
  """Writes a TFRecord file.

  Args:
    path: the file; replaced if it exists.
    serialized: the records.

  Returns:
    The size of the file in bytes.

  Raises:
    OSError: the file cannot be written.
  """
  with path.open('wb') as file:
    for record in serialized:
      length = struct.pack('<Q', len(record))
      file.write(length + _masked_crc(length) + record + _masked_crc(record))
    return file.tell()


def _masked_crc(data: bytes) -> bytes:
  """Returns the checksum of the format: CRC-32C, rotated and offset, little-endian."""
  crc = google_crc32c.value(data)
  return struct.pack('<I', (((crc >> 15) | (crc << 17)) + _CRC_MASK_DELTA) & 0xFFFFFFFF)
