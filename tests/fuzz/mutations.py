"""Random changes of valid files: of bytes, lines, fields and numbers.

Each function takes the content of a file and a `random.Random`, and returns the changed
content. All random choices come from that object, so that Hypothesis and atheris can
drive them.
"""

import functools
import gzip
import io
import json
import re
import struct
import zipfile
import zlib

import google_crc32c

# Texts that readers have treated wrongly, here or elsewhere.
TEXTS = (
  *('', ' ', '0', '-0', '1', '-1', '1e400', '-1e400', 'nan', 'inf', '1_000', '0x10'),
  *('1e308', '1e-320', '2147483648', '-9223372036854775809', '9' * 400, '9' * 5000),
  *('1,5', '1;5', '٣', 'é', '\ud800', '\0', '"', "'", '\r', '\n', '\t', '%d', '%s%n'),
  *('True', 'null', 'LIST', 'LOCAL', '../outside.raw', '../outside', '/etc/passwd'),
  *('.', '..', '/', '\\', '~', 'file:///etc/passwd', 'gs://bucket/x', 'x' * 70000),
)
JSON_VALUES = (
  *(None, True, False, 0, 1, -1, 2, 3, 7, 255, 2**31, 2**63, 10**30, -(10**30)),
  *(0.5, -0.5, 1e308, float('nan'), float('inf'), '', 'x', '../outside', '/etc/passwd'),
  *('max_f1', 'recall:2', [], [1], [[]], {}, {'a': 1}, 'x' * 1000, [1, 2, 3], [0] * 50),
)
NUMBERS = (0, 1, 2, 3, 7, 127, 128, 255, 256, 32767, 32768, 65535, 2**31 - 1, 2**31)
NUMBERS += (2**32 - 1, 2**63 - 1, 2**63, 2**64 - 1)

# More than the limit of memory when it is decompressed.
_ZEROS_BYTES = 2**29


@functools.cache
def zeros(wbits=zlib.MAX_WBITS):
  """Returns 512 MiB of zeros, compressed; zlib's `wbits` chooses zlib or gzip."""
  compressor = zlib.compressobj(1, wbits=wbits)
  block = bytes(2**20)
  blocks = [compressor.compress(block) for _ in range(_ZEROS_BYTES // len(block))]
  return b''.join([*blocks, compressor.flush()])


def mutate_bytes(data, rng):
  """Changes, removes, repeats or inserts bytes anywhere."""
  data = bytearray(data)
  start = rng.randint(0, len(data))
  stop = min(start + rng.choice((1, 1, 2, 4, 8, 64, 1024)), len(data))
  kind = rng.randrange(7)
  if kind == 0:
    del data[start:stop]
  elif kind == 1:
    del data[start:]
  elif kind == 2:
    data[start:start] = data[start:stop]
  elif kind == 3:
    data[start:start] = bytes(rng.choice((0, 10, 32, 44, 255)) for _ in range(4))
  elif kind == 4 and start < stop:
    data[start] ^= 1 << rng.randrange(8)
  elif kind == 5:
    size = rng.choice((1, 2, 4, 8))
    number = rng.choice(NUMBERS) % 2 ** (8 * size)
    order = rng.choice(('little', 'big'))
    data[start : start + size] = number.to_bytes(size, order)
  else:
    data[start:stop] = rng.choice(TEXTS).encode('utf-8', 'surrogatepass')[:4000]
  return bytes(data)


def mutate_lines(data, rng):
  """Removes, repeats, moves, joins or replaces a line."""
  lines = data.split(b'\n')
  i, j = rng.randrange(len(lines)), rng.randrange(len(lines))
  kind = rng.randrange(6)
  if kind == 0:
    del lines[i]
  elif kind == 1:
    lines.insert(j, lines[i])
  elif kind == 2:
    lines[i], lines[j] = lines[j], lines[i]
  elif kind == 3:
    lines[i] += b'\r'
  elif kind == 4:
    lines[i : i + 2] = [b''.join(lines[i : i + 2])]
  else:
    lines[i] = _text(rng)
  return b'\n'.join(lines)


def _text(rng):
  return rng.choice(TEXTS).encode('utf-8', 'surrogatepass')


def mutate_csv(data, rng):
  """Changes a field, a separator or a line of a CSV."""
  lines = data.split(b'\n')
  i = rng.choice((0, rng.randrange(len(lines))))
  fields = lines[i].split(b',')
  j = rng.randrange(len(fields))
  kind = rng.randrange(7)
  if kind <= 1:
    fields[j] = _text(rng)
  elif kind == 2:
    fields.insert(j, _text(rng))
  elif kind == 3:
    del fields[j]
  elif kind == 4:
    fields.append(fields[j])
  elif kind == 5:
    fields[j] = rng.choice((b'"', b' ', b'-', b'\xef\xbb\xbf')) + fields[j]
  else:
    return mutate_lines(data, rng)
  lines[i] = rng.choice((b',', b',', b',', b';', b'\t')).join(fields)
  return b'\n'.join(lines)


def mutate_header(data, rng):
  """Changes the value, the name or the place of a field of a MetaImage header."""
  head, mark, voxels = data.partition(b'ElementDataFile')
  lines = (head + mark).split(b'\n')
  rest = voxels.partition(b'\n')
  lines[-1] += rest[0]
  i = rng.randrange(len(lines))
  name, _, value = lines[i].partition(b' = ')
  words = value.split(b' ')
  kind = rng.randrange(8)
  if kind == 0:
    lines[i] = name + b' = ' + _text(rng)
  elif kind in (1, 2):
    words[rng.randrange(len(words))] = _text(rng)
    lines[i] = name + b' = ' + b' '.join(words)
  elif kind == 3:
    lines[i] = name + rng.choice((b'=', b':', b' : ', b' ', b' == ')) + value
  elif kind == 4:
    field, values = rng.choice(_HEADER_FIELDS)
    lines.insert(i, f'{field} = {rng.choice(values)}'.encode())
  elif kind == 5:
    del lines[i]
  elif kind == 6:
    lines.insert(rng.randrange(len(lines) + 1), lines[i])
  else:
    lines[i] = _change_case(lines[i], rng)
  return b'\n'.join(lines) + rest[1] + rest[2]


def _change_case(line, rng):
  return line.swapcase() if rng.random() < 0.5 else line.strip().title()


_HEADER_FIELDS = (
  ('HeaderSize', (-1, 0, 1, 100, 1e9)),
  ('ElementNumberOfChannels', (0, 1, 2, -1)),
  ('ElementType', ('MET_CHAR', 'MET_SHORT', 'MET_DOUBLE', 'MET_NONE', 'MET_STRING')),
  ('ElementType', ('MET_SHORT_ARRAY', 'MET_OTHER', 'x', 'MET_LONG_LONG', 'MET_UCHAR')),
  ('ElementDataFile', ('../outside.raw', 'LOCAL', 'LIST', 'scan.raw 1 2', '%d 1 2 1')),
  ('DimSize', ('3 4 5', '5 4 3', '1000000 1000000 1000000', '3 4', '-3 4 5', '0 4 5')),
  ('DimSize', ('65536 65536 1', '4294967299 4 5', '3.0 4 5', '3e0 4 5')),
  ('ElementByteOrderMSB', ('True', 'False', 'x')),
  ('BinaryDataByteOrderMSB', ('True', 'False', 'x')),
  ('BinaryData', ('False', 'x')),
  ('CompressedData', ('True', 'False', '1', 'x')),
  ('CompressedDataSize', (0, -1, 1, 20, 10**12)),
  ('ElementSize', ('1 1 1', '0 0 0', 'nan nan nan')),
  ('Modality', ('MET_MOD_CT', 'x')),
  ('NDims', (0, 1, 2, 3, 4, 10, 11, 1000, -1)),
  ('ObjectType', ('Image', 'Scene', 'Tube')),
  ('TransformMatrix', ('1 0 0 0 1 0 0 0 1', '0 1 0 1 0 0 0 0 -1', '0 0 0 0 0 0 0 0 0')),
  ('Comment', ('x' * 600,)),
)


def mutate_json(data, rng):
  """Changes a value at any depth of a JSON file, or its text."""
  if rng.random() < 0.1:
    return rng.choice((b'[' * 100000, b'{"a":' * 50000, b'', b'null', b'[]', b'"x"'))
  if rng.random() < 0.1:
    return mutate_bytes(data, rng)
  try:
    value = json.loads(data)
  except (ValueError, RecursionError):
    return mutate_bytes(data, rng)
  return json.dumps(mutate_value(value, rng)).encode()


def mutate_value(value, rng):
  """Changes a value in nested lists and dicts."""
  if not isinstance(value, dict | list) or not value or rng.random() < 0.1:
    return _other_value(value, rng)
  keys = list(value) if isinstance(value, dict) else list(range(len(value)))
  key = rng.choice(keys)
  kind = rng.randrange(10)
  if kind == 0:
    del value[key]
  elif kind == 1 and isinstance(value, dict):
    value[rng.choice(('', 'x', 'module', key + 'x'))] = rng.choice(JSON_VALUES)
  elif kind == 2 and isinstance(value, list):
    value.append(value[key])
  else:
    value[key] = mutate_value(value[key], rng)
  return value


def _other_value(value, rng):
  if isinstance(value, str) and rng.random() < 0.5:
    return rng.choice((value + 'x', value[1:], value.upper(), rng.choice(TEXTS)))
  if isinstance(value, int | float) and rng.random() < 0.5:
    return rng.choice((value + 1, -value, value * 2, str(value), float(value % 2**60)))
  return rng.choice(JSON_VALUES)


def mutate_gzip(data, rng, mutate):
  """Changes a gzip file, or what is in it by `mutate`."""
  kind = rng.randrange(8)
  if kind == 0:
    return mutate_bytes(data, rng)
  if kind == 1 and rng.random() < 0.05:
    return zeros(wbits=31)
  try:
    content = gzip.decompress(data) if len(data) < 2**18 else b''
  except (OSError, EOFError, zlib.error):
    return mutate_bytes(data, rng)
  changed = gzip.compress(mutate(content, rng), 1, mtime=0)
  return changed + changed if kind == 2 else changed


# More is not decompressed to be changed.
_MAX_ZIP_BYTES = 2**20


def mutate_zip(data, rng, mutate):
  """Changes a zip file, or a member of it by `mutate(name, content, rng)`."""
  if rng.randrange(5) == 0:
    return mutate_bytes(data, rng)
  try:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
      if sum(member.file_size for member in archive.infolist()) > _MAX_ZIP_BYTES:
        return mutate_bytes(data, rng)
      members = {name: archive.read(name) for name in archive.namelist()}
  except Exception:  # damaged by an earlier change
    return mutate_bytes(data, rng)
  if not members:
    return mutate_bytes(data, rng)
  name = rng.choice(list(members))
  kind = rng.randrange(12)
  if kind == 0:
    del members[name]
  elif kind == 1:
    members[rng.choice(_MEMBER_NAMES)] = members[name]
  elif kind == 2:
    members[rng.choice(_MEMBER_NAMES)] = members.pop(name)
  else:
    members[name] = mutate(name, members[name], rng)
  methods = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA)
  method = rng.choice((*methods, zipfile.ZIP_STORED, zipfile.ZIP_BZIP2))
  packed = io.BytesIO()
  with zipfile.ZipFile(packed, 'w', method) as archive:
    for member, content in members.items():
      # A fixed date, so that the same choices give the same bytes.
      archive.writestr(zipfile.ZipInfo(member), content, compress_type=method)
  changed = packed.getvalue()
  return mutate_bytes(changed, rng) if rng.randrange(6) == 0 else changed


_MEMBER_NAMES = (
  'x.csv',
  '../outside.csv',
  '/tmp/outside.csv',
  'a/b/c',
  'model.weights.h5',
)
_MEMBER_NAMES += ('assets/x', 'assets/../../outside', 'config.json', 'x\0y', 'é.csv')


_NPY_TYPES = (b"'<i8'", b"'<f4'", b"'|b1'", b"'|O'", b"'<U9'", b"'>c16'", b"'<M8[s]'")
_NPY_SHAPES = (
  b'()',
  b'(0,)',
  b'(1,)',
  b'(19,)',
  b'(-1,)',
  b'(4, 5)',
  b'(99999999999,)',
)


def mutate_npy(data, rng):
  """Changes the type or the shape of a NumPy array in a file, or any bytes."""
  kind = rng.randrange(3)
  if kind == 0:
    return mutate_bytes(data, rng)
  pattern, choices = (rb"'[<>|][^']*'", _NPY_TYPES) if kind == 1 else _NPY_SHAPE
  replacement = rng.choice(choices)
  changed = re.sub(pattern, lambda match: replacement, data, count=1)
  # The length of the header is stated in front of it.
  return changed[:8] + _padded_header(changed[8:], len(changed) - len(data))


_NPY_SHAPE = (rb'\([0-9, ]*\)', _NPY_SHAPES)


def _padded_header(rest, growth):
  if len(rest) < 2:
    return rest
  length = (int.from_bytes(rest[:2], 'little') + growth) % 2**16
  return length.to_bytes(2, 'little') + rest[2:]


# Offset, struct code and some values of fields of a NIfTI-1 header.
_NIFTI_FIELDS = (
  (0, 'i', (348, 540, 0, -1)),
  *((40 + 2 * i, 'h', (0, 1, 2, 3, 4, 5, 7, 8, -1, 32767)) for i in range(8)),
  (70, 'h', (0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 511, 512, 768, 1024, 1536, 2048, -1)),
  (72, 'h', (0, 1, 8, 16, 32, 64, 128, -8)),
  *((76 + 4 * i, 'f', (0, 1, -1, 0.5, 1e38, 1e-40, 'nan', 'inf')) for i in range(8)),
  (108, 'f', (0, 348, 352, 353, 352.5, 368, 1e9, -1, 'nan', 'inf')),
  (112, 'f', (0, 1, -1, 2, 1e38, 1e-40, 'nan', 'inf')),
  (116, 'f', (0, 1, -1024, 1e38, 'nan', 'inf')),
  (123, 'b', (0, 1, 2, 3, 10, 127, -1)),
  (252, 'h', (0, 1, 2, 3, 4, 5, -1)),
  (254, 'h', (0, 1, 2, 3, 4, 5, -1)),
  *((256 + 4 * i, 'f', (0, 1, -1, 0.5, 2, 1e38, 'nan', 'inf')) for i in range(18)),
  (344, 'i', (0, 0x0031692B, 0x00312B6E, 0x0032696E)),
  (348, 'i', (0, 1, 255, -1)),
)


def mutate_nifti(data, rng):
  """Changes a field of a NIfTI-1 header, or any bytes."""
  if len(data) < 352 or rng.randrange(6) == 0:
    return mutate_bytes(data, rng)
  offset, code, values = rng.choice(_NIFTI_FIELDS)
  data = bytearray(data)
  value = rng.choice(values)
  struct.pack_into('<' + code, data, offset, float(value) if code == 'f' else value)
  return bytes(data)


def mutate_dicom(data, rng):
  """Changes a value, the length or the type of an element of a DICOM file."""
  if rng.randrange(4) == 0:
    return mutate_bytes(data, rng)
  elements = _dicom_elements(data)
  if not elements:
    return mutate_bytes(data, rng)
  start, value_start, stop = rng.choice(elements)
  kind = rng.randrange(6)
  if kind == 0:
    return data[:start] + data[stop:]
  if kind == 1:
    return data[:stop] + data[start:stop] + data[stop:]
  if kind == 2:
    i = rng.randrange(start, value_start)
    return data[:i] + bytes([rng.choice((0, 1, 2, 255, data[i] ^ 1))]) + data[i + 1 :]
  words = data[value_start:stop].split(b'\\')
  words[rng.randrange(len(words))] = _text(rng)[:60]
  value = b'\\'.join(words)
  if kind == 3:  # of the same length
    value = value[: stop - value_start].ljust(stop - value_start)
    return data[:value_start] + value + data[stop:]
  value += b' ' * (len(value) % 2)
  head = data[start:value_start]
  if len(head) == 8 and len(value) < 2**16:
    head = head[:6] + struct.pack('<H', len(value))
  return data[:start] + head + value + data[stop:]


_LONG_KINDS = (b'OB', b'OW', b'SQ', b'UN', b'UT')


def _dicom_elements(data):
  """Returns (start, start of the value, end) of the elements, explicit little endian."""
  elements, start = [], 132
  while start + 12 <= len(data):
    kind, length = struct.unpack_from('<2sH', data, start + 4)
    value_start = start + 8
    if kind in _LONG_KINDS:
      (length,) = struct.unpack_from('<I', data, start + 8)
      value_start += 4
    stop = value_start + length
    if stop > len(data):
      break
    elements.append((start, value_start, stop))
    start = stop
  return elements


def masked_crc(data):
  """Returns the checksum of the TFRecord format."""
  crc = google_crc32c.value(data)
  return struct.pack('<I', (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF)


def mutate_tfrecord(data, rng):
  """Changes a record, with checksums that fit, or any bytes of the file."""
  if rng.randrange(4) == 0:
    return mutate_bytes(data, rng)
  records = _split_tfrecord(data)
  if not records:
    return mutate_bytes(data, rng)
  i = rng.randrange(len(records))
  kind = rng.randrange(8)
  if kind == 0:
    del records[i]
  elif kind == 1:
    records.append(records[i])
  else:
    records[i] = mutate_bytes(records[i], rng)
  framed = []
  for record in records:
    length = struct.pack('<Q', len(record))
    framed += [length, masked_crc(length), record, masked_crc(record)]
  return b''.join(framed)


def _split_tfrecord(data):
  records, start = [], 0
  while start + 16 <= len(data):
    (length,) = struct.unpack_from('<Q', data, start)
    if start + 16 + length > len(data):
      break
    records.append(data[start + 12 : start + 12 + length])
    start += 16 + length
  return records
