import os
import threading
import tracemalloc
import zipfile

import fake_data
import hypothesis
from hypothesis import strategies as st
import numpy as np
import pytest

from luna_tfds import csv_columns
from luna_tfds.errors import UsageError

COLUMNS = ['seriesuid', 'coordX', 'coordY', 'coordZ', 'class']
HEADER = ','.join(COLUMNS) + '\n'
ROWS = [('1.2.3', i / 7, i / 3, i * 5, 0) for i in range(100)]
_BLANKS = st.sampled_from(['', '', '', ' ', '\t', '\x0b', '\u2028'])
_NAMES = st.sampled_from(
  ['a', '1.2.3', 'b c', 'é', 'NA', 'null', '', 'x"y', 'a\nb', 'a,b', '\ufeff', '\x00']
)
_NUMBERS = st.one_of(
  st.floats().map(repr),
  st.integers(-(2**70), 2**70).map(str),
  st.sampled_from(
    ['.5', '5.', '+3', '-0', '1E5', '1e400', '5e-324', '0.1234567890123456789']
    + ['', '1_0', '0x1', '1d5', '1f', 'NA', 'null', 'true', '１', '١', 'nan(1)', '1 2']
  ),
)


@st.composite
def _values(draw, texts):
  text = draw(_BLANKS) + draw(texts) + draw(_BLANKS)
  if draw(st.integers(0, 9)) == 0 or any(c in text for c in ',\n'):
    return '"' + text.replace('"', '""') + '"'
  return text


@st.composite
def _files(draw):
  """Draws a CSV file that is often valid."""
  header, name_column = draw(
    st.sampled_from(
      [('id,x,y', 0), ('x,id,y', 1), ('\ufeffid,x,y', 0), (' id ,"x", y', 0)]
    )
  )
  lines = [header]
  for _ in range(draw(st.integers(0, 4))):
    columns = [draw(_values(_NUMBERS)) for _ in range(2)]
    columns.insert(name_column, draw(_values(_NAMES)))
    damage = draw(st.integers(0, 19))
    columns = columns[:-1] if damage == 0 else columns + ['1'] * (damage == 1)
    lines.append(','.join(columns))
  end = draw(st.sampled_from(['\n', '\r\n', '\r', '\n\n']))
  return end.join(lines) + draw(st.sampled_from(['', end]))


@hypothesis.given(text=_files())
@hypothesis.settings(
  deadline=None,
  max_examples=300,
  suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture],
)
def test_arrow_and_the_csv_module_read_the_same(text, tmp_path):
  path = tmp_path / 'points.csv'
  path.write_bytes(text.encode())
  columns = ['id', 'x', 'y']
  try:
    with path.open('rb') as file:
      found = csv_columns._read_by_arrow(path, file, columns)
  except ValueError:
    hypothesis.event('not read by Arrow')
    return
  with path.open('rb') as file:
    expected = csv_columns._read_by_row(path, file, columns)
  assert found[0] == expected[0]
  np.testing.assert_array_equal(found[1], expected[1])
  np.testing.assert_array_equal(np.signbit(found[1]), np.signbit(expected[1]))


@pytest.mark.parametrize('block_bytes', [64, 65, 100, 1000])
def test_blocks_are_joined(block_bytes, tmp_path, monkeypatch):
  monkeypatch.setattr(csv_columns, '_BLOCK_BYTES', block_bytes)
  path = fake_data.write_candidates(tmp_path / 'candidates.csv', ROWS)
  with path.open('rb') as file:
    names, numbers = csv_columns._read_by_arrow(path, file, COLUMNS)
  assert list(zip(names, *np.reshape(numbers, (-1, 4)).T.tolist())) == ROWS


def test_a_pipe_is_read_once(tmp_path):
  path = tmp_path / 'pipe'
  os.mkfifo(path)
  content = fake_data.csv_text(COLUMNS, ROWS * 100).encode()
  writer = threading.Thread(target=path.write_bytes, args=[content])
  writer.start()
  names, numbers = csv_columns.read_columns(path, COLUMNS)
  writer.join()
  assert list(zip(names, *numbers.T.tolist())) == ROWS * 100


def test_a_line_end_in_the_header_is_part_of_it(tmp_path):
  path = tmp_path / 'points.csv'
  path.write_text('id,x,"note\na,1,2"\nb,1,2\n')
  names, numbers = csv_columns.read_columns(path, ['id', 'x'])
  assert (names.tolist(), numbers.tolist()) == (['b'], [[1]])


@pytest.mark.parametrize(
  ('row', 'problem'),
  [
    (b'a,1,x\xe9\n', r'cannot be read as CSV: .*utf-8'),
    (b'a,1,' + b'x' * 70_000 + b'\n', r'row 3001 .*1 columns, but the header has 3'),
  ],
)
def test_columns_that_are_not_read_must_be_valid_too(row, problem, tmp_path):
  path = tmp_path / 'points.csv'
  path.write_bytes(b'id,x,note\n' + b'b,1,y\n' * 3000 + row)
  with pytest.raises(UsageError, match=problem):
    csv_columns.read_columns(path, ['id', 'x'])


def test_a_quoted_value_at_the_end_of_a_block_is_not_divided(tmp_path, monkeypatch):
  monkeypatch.setattr(csv_columns, '_BLOCK_BYTES', 16)
  path = tmp_path / 'points.csv'
  path.write_text('x,y,id\n1,2,"a\n3,4,b"\n')
  names, numbers = csv_columns.read_columns(path, ['id', 'x', 'y'])
  assert names.tolist() == ['a\n3,4,b']
  assert numbers.tolist() == [[1, 2]]


def test_zip_with_other_files_reads_the_csv_of_its_name(tmp_path):
  path = tmp_path / 'candidates_V2.zip'
  with zipfile.ZipFile(path, 'w') as archive:
    archive.writestr('__MACOSX/other.csv', 'x')
    archive.writestr('readme.txt', 'x')
    archive.writestr('CSVFILES/candidates_V2.csv', fake_data.csv_text(['x'], []))
    archive.writestr('notes.csv', 'x')
  with pytest.raises(UsageError, match='the column seriesuid is missing; found x'):
    csv_columns.read_columns(path, COLUMNS)


def test_zip_without_csv_is_rejected(tmp_path):
  path = tmp_path / 'candidates.zip'
  with zipfile.ZipFile(path, 'w') as archive:
    archive.writestr('readme.txt', 'x')
  with pytest.raises(
    UsageError, match=r'candidates\.zip: must contain one CSV file, found 0'
  ):
    csv_columns.read_columns(path, COLUMNS)


@pytest.mark.parametrize('method', [zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2])
def test_zip_with_another_method_than_deflate_is_rejected(method, tmp_path):
  path = tmp_path / 'candidates.zip'
  with zipfile.ZipFile(path, 'w', method) as archive:
    archive.writestr('candidates.csv', HEADER + 'a,1,2,3,0\n')
  with pytest.raises(UsageError, match=r'candidates\.zip: compressed by an unusual'):
    csv_columns.read_columns(path, COLUMNS)


@pytest.mark.parametrize('damage', ['binary', 'not_a_zip', 'hole_in_zip', 'folder'])
def test_files_that_are_not_csv_are_rejected(damage, tmp_path):
  path = tmp_path / ('candidates.csv' if damage == 'binary' else 'candidates.zip')
  if damage == 'binary':
    path.write_bytes(b'\x93\xff\xfe' * 50)
  elif damage == 'not_a_zip':
    path.write_bytes(HEADER.encode())
  elif damage == 'folder':
    path.mkdir()
  else:
    rows = [('1.2', i / 7, i / 3, i * 5, 0) for i in range(2000)]
    with zipfile.ZipFile(path, 'w', zipfile.ZIP_DEFLATED) as archive:
      archive.writestr('candidates.csv', fake_data.csv_text(COLUMNS, rows))
    content = bytearray(path.read_bytes())
    content[44:64] = b'\xff' * 20  # the first block
    path.write_bytes(content)
  with pytest.raises(UsageError, match=r'candidates\.\w+: cannot be read as CSV'):
    csv_columns.read_columns(path, COLUMNS)


def test_a_line_without_end_takes_no_memory(tmp_path):
  path = tmp_path / 'candidates.zip'
  with zipfile.ZipFile(path, 'w', zipfile.ZIP_DEFLATED) as archive:
    archive.writestr('candidates.csv', HEADER + '1' * 2**26)
  tracemalloc.start()
  try:
    with pytest.raises(UsageError, match=r'candidates\.zip'):
      csv_columns.read_columns(path, COLUMNS)
    assert tracemalloc.get_traced_memory()[1] < 2**23
  finally:
    tracemalloc.stop()


def test_a_zip_of_a_long_table_is_rejected_before_it_is_read(tmp_path, monkeypatch):
  monkeypatch.setattr(csv_columns, 'MAX_ZIPPED_TABLE_BYTES', 1000)
  path = fake_data.write_candidates(tmp_path / 'c.csv.zip', ROWS, zipped=True)
  with pytest.raises(UsageError, match=r'after decompression.*unzip it'):
    csv_columns.read_columns(path, COLUMNS)


@pytest.mark.parametrize(
  'method',
  [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA],
)
def test_any_damage_of_a_zip_file_is_a_usage_error(method, tmp_path):
  path = tmp_path / 'candidates.csv.zip'
  rows = ''.join(f'1.2.{i},{i},2,3,1\n' for i in range(50))
  with zipfile.ZipFile(path, 'w', method) as archive:
    archive.writestr('candidates.csv', HEADER + rows)
  content = path.read_bytes()
  num_errors = 0
  for position in range(len(content)):
    damaged = bytearray(content)
    damaged[position] ^= 0xFF
    path.write_bytes(damaged)
    try:
      csv_columns.read_columns(path, COLUMNS)
    except UsageError:
      num_errors += 1
  assert num_errors > len(content) / 3
