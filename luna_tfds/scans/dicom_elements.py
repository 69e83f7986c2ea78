"""Checks the lengths of the elements of an uncompressed DICOM file.

ITK allocates memory for the length that an element states before it reads the element, so
a damaged file of a few hundred bytes can take gigabytes.
"""

from __future__ import annotations

import os
import pathlib
import struct
from typing import BinaryIO

from luna_tfds.errors import ScanError

_DATA_START = 132  # after the preamble and 'DICM'
_META_GROUP = 2
_SEQUENCE_GROUP = 0xFFFE  # items of sequences, which have no type
_UNDEFINED_LENGTH = 0xFFFFFFFF
_IMPLICIT = b'1.2.840.10008.1.2'
_BIG_ENDIAN = b'1.2.840.10008.1.2.2'
_TRANSFER_SYNTAX = (2, 0x10)

# Types of values with a length of 16 bits. For any other two letters GDCM reads a length
# that is not there.
_SHORT_TYPES = (
  *(b'AE', b'AS', b'AT', b'CS', b'DA', b'DS', b'DT', b'FD', b'FL', b'IS', b'LO', b'LT'),
  *(b'PN', b'SH', b'SL', b'SS', b'ST', b'TM', b'UI', b'UL', b'US'),
)
# Types with two unused bytes and a length of 32 bits.
_LONG_TYPES = (
  *(b'OB', b'OD', b'OF', b'OL', b'OV', b'OW', b'SQ', b'SV', b'UC', b'UN', b'UR', b'UT'),
  b'UV',
)


def check_lengths(path: pathlib.Path) -> None:
  """Checks that every element ends inside the file.

  Elements in sequences are checked too, unless the transfer syntax is implicit and the
  length of the sequence is stated.

  Args:
    path: a DICOM file that begins with a preamble.

  Raises:
    ScanError: an element is longer than the rest of the file, or cannot be parsed.
  """
  try:
    with path.open('rb') as file:
      _check(file, os.fstat(file.fileno()).st_size)
  except OSError as error:
    raise ScanError(f'{path}: {error.strerror}') from error
  except (ValueError, struct.error) as error:
    raise ScanError(
      f'{path}: is damaged or truncated: it has an element that is not complete; replace '
      'or remove it'
    ) from error


def _check(file: BinaryIO, num_bytes: int) -> None:
  """Raises ValueError or struct.error if an element is not complete."""
  syntax = b''
  position = _DATA_START
  while position < num_bytes:
    file.seek(position)
    header = file.read(12)
    (group,) = struct.unpack_from('<H', header)
    is_meta = group == _META_GROUP
    order = '>' if syntax == _BIG_ENDIAN and not is_meta else '<'
    is_explicit = is_meta or syntax != _IMPLICIT
    group, element = struct.unpack_from(f'{order}2H', header)
    length, header_bytes, is_sequence = _parse_length(
      header, order, is_explicit and group != _SEQUENCE_GROUP, group
    )
    position += header_bytes
    if is_sequence or length == _UNDEFINED_LENGTH:
      continue  # its items follow as elements
    position += length
    if position > num_bytes:
      raise ValueError(f'{length} bytes')
    if (group, element) == _TRANSFER_SYNTAX:
      file.seek(position - length)
      syntax = file.read(length).strip(b'\0 ')


def _parse_length(
  header: bytes, order: str, has_type: bool, group: int
) -> tuple[int, int, bool]:
  """Returns the length of a value, that of its header, and whether it is a sequence."""
  if not has_type:
    (length,) = struct.unpack_from(f'{order}I', header, 4)
    return length, 8, group == _SEQUENCE_GROUP
  kind = header[4:6]
  if kind in _SHORT_TYPES:
    (length,) = struct.unpack_from(f'{order}H', header, 6)
    return length, 8, False
  if kind not in _LONG_TYPES:
    raise ValueError(f'type {kind!r}')
  (length,) = struct.unpack_from(f'{order}I', header, 8)
  if length == _UNDEFINED_LENGTH and kind not in (b'SQ', b'UN'):
    raise ValueError('undefined length')
  return length, 12, kind == b'SQ'
