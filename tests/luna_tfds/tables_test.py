import fake_data
import numpy as np
import pytest

from luna_tfds import download as download_lib
from luna_tfds import tables
from luna_tfds.errors import UsageError

ROWS = [
  ('1.2.3', -56.08, -67.85, -311.92, 0),
  ('1.2.4', 53.21, -244.41, 1e-07, 1),
  ('1.2.3', 103.6626129, -211.93, -227.12125, 0),
]
HEADER = 'seriesuid,coordX,coordY,coordZ,class\n'


def rows_of(table):
  return [
    (name, *point, value)
    for name, point, value in zip(
      table.seriesuids, table.xyz_mm.tolist(), table.values.tolist()
    )
  ]


def write(folder, text, name='candidates.csv'):
  path = folder / name
  path.write_bytes(text.encode())
  return path


@pytest.mark.parametrize('line_end', ['\n', '\r\n'])
@pytest.mark.parametrize('last_newline', [True, False])
def test_line_ends(line_end, last_newline, tmp_path):
  path = fake_data.write_candidates(
    tmp_path / 'candidates.csv', ROWS, line_end=line_end, last_newline=last_newline
  )
  assert path.read_bytes().endswith(b'\n') == last_newline
  table = tables.read_candidates(path)
  assert rows_of(table) == ROWS
  assert table.rows.tolist() == [0, 1, 2]
  assert table.xyz_mm.dtype == np.float64


@pytest.mark.parametrize(
  'name', ['candidates.csv', 'candidates.zip', 'candidates.csv.zip']
)
def test_plain_and_zipped(name, tmp_path):
  zipped = name.endswith('zip')
  fake_data.write_candidates(tmp_path / name, ROWS, zipped=zipped)
  path = download_lib.require_file(tmp_path, 'candidates.csv')
  assert path == tmp_path / name
  assert rows_of(tables.read_candidates(path)) == ROWS


def test_columns_in_any_order_with_additional_columns(tmp_path):
  path = write(
    tmp_path,
    'class,note, coordZ ,coordY,coordX,seriesuid\n1,"a, b",3.5,2.5,1.5, 1.2.3 \n',
  )
  assert rows_of(tables.read_candidates(path)) == [('1.2.3', 1.5, 2.5, 3.5, 1)]


def test_byte_order_mark_and_blank_lines(tmp_path):
  path = write(tmp_path, '\ufeff' + HEADER + '1.2,1,2,3,0\n\n1.3,4,5,6,1\n\n')
  table = tables.read_candidates(path)
  assert rows_of(table) == [('1.2', 1, 2, 3, 0), ('1.3', 4, 5, 6, 1)]
  assert table.rows.tolist() == [0, 1]


def test_unlabelled_candidates(tmp_path):
  path = write(tmp_path, 'seriesuid,coordX,coordY,coordZ\n1.2,1,2,3\n')
  table = tables.read_candidates(path, labelled=False)
  assert table.xyz_mm.tolist() == [[1, 2, 3]]
  assert table.value_column is None
  with pytest.raises(ValueError, match='the table holds None, not class'):
    _ = table.class_labels


@pytest.mark.parametrize(
  ('column', 'attribute'),
  [
    ('class', 'class_labels'),
    ('diameter_mm', 'diameters_mm'),
    ('probability', 'probabilities'),
  ],
)
def test_values_are_read_by_the_name_of_their_column(column, attribute, tmp_path):
  path = tmp_path / 'points.csv'
  fake_data.write_candidates(path, ROWS, value_column=column)
  table = tables.read_table(path, column)
  assert getattr(table, attribute).tolist() == [0, 1, 0]
  assert getattr(table[[1]], attribute).tolist() == [1]
  for other in {'class_labels', 'diameters_mm', 'probabilities'} - {attribute}:
    with pytest.raises(ValueError, match=f'the table holds {column}, not '):
      getattr(table, other)


def test_class_labels_are_int8(tmp_path):
  path = fake_data.write_candidates(tmp_path / 'candidates.csv', ROWS)
  assert tables.read_candidates(path).class_labels.dtype == np.int8


def test_indexing_selects_points(tmp_path):
  path = fake_data.write_candidates(tmp_path / 'candidates.csv', ROWS)
  table = tables.read_candidates(path)
  for index in ([2, 0], np.array([True, False, True]), slice(0, 3, 2)):
    picked = table[index]
    assert len(picked) == 2
    assert set(rows_of(picked)) == {ROWS[0], ROWS[2]}
    assert set(picked.rows.tolist()) == {0, 2}


def test_written_table_is_read_back(tmp_path):
  path = tmp_path / 'candidates.csv'
  rows = [('1.2', 1 / 3, -2.5, 1e-7, 1), ('1.3', '4.50', '5', '6', '0')]
  tables.write_table(path, 'class', rows)
  assert path.read_bytes().startswith(
    b'seriesuid,coordX,coordY,coordZ,class\n1.2,0.3333333333333333,-2.5,1e-07,1\n'
  )
  table = tables.read_candidates(path)
  assert rows_of(table) == [rows[0], ('1.3', 4.5, 5, 6, 0)]


def test_table_that_cannot_be_written_leaves_the_old_file(tmp_path):
  path = fake_data.write_candidates(tmp_path / 'candidates.csv', ROWS)
  before = path.read_bytes()

  def rows():
    yield ROWS[0]
    raise ArithmeticError

  with pytest.raises(ArithmeticError):
    tables.write_table(path, 'class', rows())
  assert path.read_bytes() == before
  assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
  ('text', 'problem'),
  [
    ('', r'candidates\.csv: is empty; expected the columns seriesuid, coordX'),
    (HEADER, r'candidates\.csv: has a header but no rows'),
    (
      'seriesuid,coordX,coordY,class\n1.2,1,2,0\n',
      r'candidates\.csv: the column coordZ is missing; found seriesuid, coordX',
    ),
    ('seriesuid,coordX,coordY,coordZ\n1.2,1,2,3\n', 'the column class is missing'),
    (
      HEADER + '1.2,1,2,3,0\n1.2,1,two,3,0\n',
      r"candidates\.csv, row 1 .*: coordY must be a number, found 'two'",
    ),
    (HEADER + '1.2,1,2,,0\n', r"row 0 .*: coordZ must be a number, found ''"),
    (HEADER + '1.2,1,2,3,0\n1.2,1,2,nan,0\n', 'row 1 .*: coordZ must be .*nan'),
    (HEADER + '1.2,inf,2,3,0\n', 'row 0 .*: coordX must be .*inf'),
    (HEADER + '1.2,1,2,3,0\n1.2,1,2\n', 'row 1 .*: 3 columns, but the header has 5'),
    (
      HEADER + '1.2,1,2,3,0\n1.2,-56,08,-67,85,-311,92,0\n',
      'row 1 .*: 8 columns, but the header has 5; .* a point as decimal separator',
    ),
    (HEADER + '1.2,1,2,3,0,0\n', 'row 0 .*: 6 columns, but the header has 5'),
    (HEADER + '1.2,1,2,3,0\n,1,2,3,0\n', 'row 1 .*: seriesuid is empty'),
    (HEADER + ' ,1,2,3,0\n', 'row 0 .*: seriesuid is empty'),
    (HEADER + '1.2,1_0,2,3,0\n', "row 0 .*: coordX must be a number, found '1_0'"),
    (
      'seriesuid,coordX,coordY,coordZ,coordX,class\n1.2,1,2,3,4,0\n',
      'the column coordX is in the header twice',
    ),
    (
      'seriesuid;coordX;coordY;coordZ;class\n1.2;1;2;3;0\n',
      'the column seriesuid is missing; .* must be separated by commas',
    ),
    (HEADER + '1.2,1,2,3,0\n1.2,1,2,3,2\n', 'row 1 .*: class must be 0 or 1, found 2'),
    (HEADER + '1.2,1,2,3,0.5\n', 'row 0 .*: class must be 0 or 1, found 0.5'),
    (HEADER + '1.2,1,2,3,-1\n', 'row 0 .*: class must be 0 or 1, found -1'),
  ],
)
def test_invalid_candidates_are_rejected(text, problem, tmp_path):
  with pytest.raises(UsageError, match=problem) as error:
    tables.read_candidates(write(tmp_path, text))
  assert '\n' not in str(error.value)
  assert str(tmp_path / 'candidates.csv') in str(error.value)


def test_findings_without_rows(tmp_path):
  path = fake_data.write_findings(tmp_path / 'annotations.csv', [])
  table = tables.read_findings(path)
  assert len(table) == 0
  assert table.xyz_mm.shape == (0, 3)
  assert table.groups() == {}


def test_groups_keep_the_order_of_the_file(tmp_path):
  rows = [(name, 0, 0, 0, 0) for name in 'babcab']
  path = fake_data.write_candidates(tmp_path / 'candidates.csv', rows)
  groups = tables.read_candidates(path).groups()
  assert {name: positions.tolist() for name, positions in groups.items()} == {
    'a': [1, 4],
    'b': [0, 2, 5],
    'c': [3],
  }


def test_real_lists(real_data):
  folder = real_data / 'luna16'
  assert len(tables.read_candidates(folder / 'candidates.csv')) == 935
  nodules = tables.read_findings(folder / 'annotations.csv')
  excluded = tables.read_findings(folder / 'annotations_excluded.csv')
  assert len(nodules) == 1186
  assert len(nodules.groups()) == 601
  assert len(excluded) == 35192
  assert int((excluded.diameters_mm < 0).sum()) == 30513


def test_a_header_with_a_line_end_in_quotes_is_shown_on_one_line(tmp_path):
  path = tmp_path / 'candidates.csv'
  path.write_text('"seriesuid\n1.2.3,4,5,6,1\n' * 20)
  with pytest.raises(UsageError, match='the column seriesuid is missing') as caught:
    tables.read_candidates(path)
  assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize('number', ['\uff11', '\u0661'])
def test_digits_of_other_scripts(number, tmp_path):
  path = write(tmp_path, f'seriesuid,coordX,coordY,coordZ,class\n1.2,{number},2,3,1\n')
  with pytest.raises(UsageError, match='coordX must be a number'):
    tables.read_candidates(path)
