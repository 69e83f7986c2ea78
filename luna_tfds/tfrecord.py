"""The TFRecord file format, written without TensorFlow."""

from __future__ import annotations

from collections.abc import Iterable
import os
import struct

import google_crc32c

# Added to a record's bytes by the TFRecord format: its length and two checksums.
TFRECORD_OVERHEAD_BYTES = 16


_CRC_MASK_DELTA = 0xA282EAD8


def write_tfrecords(path: str | os.PathLike[str], serialized: Iterable[bytes]) -> int:
  """Writes a TFRecord file and makes sure that it is on disk.

  Args:
    path: the file; replaced if it is there.
    serialized: the records.

  Returns:
    Bytes written.
  """
  with open(path, 'wb') as file:
    for record in serialized:
      length = struct.pack('<Q', len(record))
      file.write(length + _masked_crc(length) + record + _masked_crc(record))
    file.flush()
    os.fsync(file.fileno())
    return file.tell()


def _masked_crc(data: bytes) -> bytes:
  """The checksum of the TFRecord format: CRC-32C, rotated and offset."""
  crc = google_crc32c.value(data)
  return struct.pack('<I', (((crc >> 15) | (crc << 17)) + _CRC_MASK_DELTA) & 0xFFFFFFFF)
