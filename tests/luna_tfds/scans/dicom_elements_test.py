import struct

import fake_data
import pytest

from luna_tfds.errors import ScanError
from luna_tfds.scans import dicom_elements
from luna_tfds.scans import scan as scan_lib

_SYNTAX = {
  'implicit': (b'1.2.840.10008.1.2\0', '<'),
  'explicit': (b'1.2.840.10008.1.2.1\0', '<'),
  'big endian': (b'1.2.840.10008.1.2.2\0', '>'),
}


def element(syntax, tag, kind, value, length=None):
  order = _SYNTAX[syntax][1]
  length = len(value) if length is None else length
  head = struct.pack(f'{order}2H', *tag)
  if syntax == 'implicit' or kind is None:
    return head + struct.pack(f'{order}I', length) + value
  if kind in (b'OW', b'SQ', b'UN'):
    return head + kind + bytes(2) + struct.pack(f'{order}I', length) + value
  return head + kind + struct.pack(f'{order}H', length) + value


def write(path, syntax, *elements):
  meta = element('explicit', (2, 0x10), b'UI', _SYNTAX[syntax][0])
  path.write_bytes(bytes(128) + b'DICM' + meta + b''.join(elements))
  return path


@pytest.mark.parametrize('syntax', _SYNTAX)
def test_complete_elements_and_sequences(syntax, tmp_path):
  name = element(syntax, (0x10, 0x10), b'PN', b'name')
  item = element(syntax, (0xFFFE, 0xE000), None, name)
  end = element(syntax, (0xFFFE, 0xE0DD), None, b'')
  stated = element(syntax, (8, 0x1140), b'SQ', item)
  undefined = element(syntax, (8, 0x1140), b'SQ', item + end, 0xFFFFFFFF)
  pixels = element(syntax, (0x7FE0, 0x10), b'OW', bytes(40))
  path = write(tmp_path / 'a.dcm', syntax, name, stated, undefined, pixels)
  dicom_elements.check_lengths(path)


@pytest.mark.parametrize('syntax', _SYNTAX)
@pytest.mark.parametrize('excess', [1, 2**30])
def test_an_element_longer_than_the_file(syntax, excess, tmp_path):
  pixels = element(syntax, (0x7FE0, 0x10), b'OW', bytes(40), 40 + excess)
  with pytest.raises(ScanError, match=r'a\.dcm: is damaged or truncated'):
    dicom_elements.check_lengths(write(tmp_path / 'a.dcm', syntax, pixels))


def test_an_element_in_a_sequence_longer_than_the_file(tmp_path):
  value = element('explicit', (8, 0x1150), b'UN', b'', 2**30)
  item = element('explicit', (0xFFFE, 0xE000), None, value)
  path = write(
    tmp_path / 'a.dcm', 'explicit', element('explicit', (8, 0x1140), b'SQ', item)
  )
  with pytest.raises(ScanError, match='is damaged or truncated'):
    dicom_elements.check_lengths(path)


@pytest.mark.parametrize(
  'text', [b'', b'\x08', b'\x08\0\x05\0??\0\0', b'\x08\0\x05\0TI\0\0']
)
def test_an_incomplete_header_of_an_element(text, tmp_path):
  path = write(tmp_path / 'a.dcm', 'explicit', text)
  if not text:
    dicom_elements.check_lengths(path)
    return
  with pytest.raises(ScanError, match='is damaged or truncated'):
    dicom_elements.check_lengths(path)


def test_such_a_slice_is_rejected(tmp_path):
  folder = fake_data.write_dicom(tmp_path / 'series', fake_data.make_scan())
  path = sorted(folder.iterdir())[3]
  data = path.read_bytes()
  pixels = data.rindex(b'\xe0\x7f\x10\0')
  start = pixels + (8 if data[pixels + 4 : pixels + 6] == b'OW' else 4)
  path.write_bytes(data[:start] + struct.pack('<I', 2**30) + data[start + 4 :])
  with pytest.raises(ScanError, match=f'{path.name}: is damaged or truncated'):
    scan_lib.open_scan(folder)
