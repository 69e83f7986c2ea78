import zipfile

import fake_data
import hypothesis
from hypothesis import strategies as st
import numpy as np
import oracles
import pytest

from luna_tfds import download as download_lib
from luna_tfds import matching
from luna_tfds import tables
from luna_tfds.errors import UsageError

ROWS = [
  ('1.2.3', -56.08, -67.85, -311.92, 0),
  ('1.2.4', 53.21, -244.41, 1e-07, 1),
  ('1.2.3', 103.6626129, -211.93, -227.12125, 0),
]
HEADER = 'seriesuid,coordX,coordY,coordZ,class\n'


def table_of(rows):
  """A `Table` of rows (seriesuid, x, y, z, value)."""
  names = np.empty(len(rows), object)
  names[:] = [row[0] for row in rows]
  numbers = np.array([row[1:] for row in rows], np.float64).reshape(-1, 4)
  return tables.PointTable(names, numbers[:, :3], numbers[:, 3], np.arange(len(rows)))


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


def test_zip_may_hold_other_files_and_folders(tmp_path):
  path = tmp_path / 'candidates_V2.zip'
  with zipfile.ZipFile(path, 'w') as archive:
    archive.writestr('__MACOSX/other.csv', 'x')
    archive.writestr('readme.txt', 'x')
    archive.writestr('CSVFILES/candidates_V2.csv', fake_data.csv_text(['x'], []))
    archive.writestr('notes.csv', 'x')
  with pytest.raises(UsageError, match='the column seriesuid is missing; found x'):
    tables.read_candidates(path)


def test_zip_without_one_csv(tmp_path):
  path = tmp_path / 'candidates.zip'
  with zipfile.ZipFile(path, 'w') as archive:
    archive.writestr('readme.txt', 'x')
  with pytest.raises(UsageError, match=r'candidates\.zip: one CSV is expected in it'):
    tables.read_candidates(path)


def test_columns_in_another_order_and_more_of_them(tmp_path):
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
  assert np.isnan(tables.read_candidates(path, labelled=False).values).all()


@pytest.mark.parametrize(
  ('text', 'problem'),
  [
    ('', r'candidates\.csv: is empty; expected the columns seriesuid, coordX'),
    (HEADER, r'candidates\.csv: holds a header and no rows'),
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
    (HEADER + '1.2,1,2,3,0\n1.2,1,2\n', 'row 1 .*: 3 columns where 5 are needed'),
    (HEADER + '1.2,1,2,3,0\n1.2,1,2,3,2\n', 'row 1 .*: class must be 0 or 1, found 2'),
    (HEADER + '1.2,1,2,3,0.5\n', 'row 0 .*: class must be 0 or 1, found 0.5'),
    (HEADER + '1.2,1,2,3,-1\n', 'row 0 .*: class must be 0 or 1, found -1'),
  ],
)
def test_wrong_candidates(text, problem, tmp_path):
  with pytest.raises(UsageError, match=problem) as error:
    tables.read_candidates(write(tmp_path, text))
  assert '\n' not in str(error.value)
  assert str(tmp_path / 'candidates.csv') in str(error.value)


@pytest.mark.parametrize('damage', ['binary', 'not_a_zip', 'hole_in_zip', 'folder'])
def test_files_that_are_no_csv(damage, tmp_path):
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
      archive.writestr(
        'candidates.csv', fake_data.csv_text(HEADER[:-1].split(','), rows)
      )
    content = bytearray(path.read_bytes())
    content[44:64] = b'\xff' * 20  # the first block
    path.write_bytes(content)
  with pytest.raises(UsageError, match=r'candidates\.\w+: cannot be read as CSV'):
    tables.read_candidates(path)


def test_findings_may_be_none(tmp_path):
  path = fake_data.write_findings(tmp_path / 'annotations.csv', [])
  table = tables.read_findings(path)
  assert len(table) == 0
  assert table.xyz_mm.shape == (0, 3)
  assert table.groups() == {}


def test_missing_file(tmp_path):
  assert download_lib.find_file(tmp_path, 'candidates.csv') is None
  with pytest.raises(
    UsageError, match=r'candidates\.csv .* is missing; --luna_dir must'
  ):
    download_lib.require_file(tmp_path, 'candidates.csv')


def test_groups_keep_the_order_of_the_file():
  rows = [(name, 0, 0, 0, 0) for name in 'babcab']
  groups = table_of(rows).groups()
  assert {name: part.tolist() for name, part in groups.items()} == {
    'a': [1, 4],
    'b': [0, 2, 5],
    'c': [3],
  }


def test_finds_scans(tmp_path):
  for name in (
    'subset0/b.mhd',
    'subset3/deeper/a.mhd',
    'subset10/x.mhd',
    'other/y.mhd',
  ):
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / name).touch()
  (tmp_path / 'subset0' / 'b.raw').touch()
  (tmp_path / 'subset4').touch()
  assert download_lib.find_scans(tmp_path) == {
    'a': download_lib.ScanFile('a', 3, tmp_path / 'subset3/deeper/a.mhd'),
    'b': download_lib.ScanFile('b', 0, tmp_path / 'subset0/b.mhd'),
  }


def test_no_download(tmp_path):
  with pytest.raises(UsageError, match='absent: no such folder; --luna_dir must be'):
    download_lib.find_scans(tmp_path / 'absent')


def test_no_scan(tmp_path):
  (tmp_path / 'subset0').mkdir()
  with pytest.raises(UsageError, match=r'no scan in it; expected subset0\.\.subset9'):
    download_lib.find_scans(tmp_path)


def test_scan_twice(tmp_path):
  for folder in ('subset1', 'subset7'):
    (tmp_path / folder).mkdir()
    (tmp_path / folder / '1.2.3.mhd').touch()
  with pytest.raises(UsageError, match=r'1\.2\.3 is on disk twice: .*subset1.*subset7'):
    download_lib.find_scans(tmp_path)


def match(points, nodules, excluded=()):
  rows = [('scan', *point, 0) for point in points]
  return matching.match_findings(
    table_of(rows), table_of(list(nodules)), table_of(list(excluded))
  )


def test_a_hit_is_strictly_within_the_radius():
  nodule = ('scan', 10.0, 0.0, 0.0, 6.0)
  found = match(
    [(13.0, 0, 0), (12.999, 0, 0), (10, 0, -3.0), (10, 0, -2.999)], [nodule]
  )
  assert found.nodule_id.tolist() == [-1, 0, -1, 0]
  assert found.diameter_mm.tolist() == [0, 6, 0, 6]


def test_a_negative_diameter_is_ten_mm():
  grey = ('scan', 0.0, 0.0, 0.0, -1.0)
  found = match([(4.999, 0, 0), (5.0, 0, 0)], [], [grey])
  assert found.excluded.tolist() == [True, False]


def test_a_diameter_of_zero_is_hit_by_nothing():
  found = match([(0, 0, 0)], [('scan', 0.0, 0.0, 0.0, 0.0)])
  assert found.nodule_id.tolist() == [-1]


def test_nodules_come_before_excluded_findings():
  nodule = ('scan', 0.0, 0.0, 0.0, 4.0)
  grey = ('scan', 0.0, 0.0, 0.0, -1.0)
  found = match([(1.0, 0, 0), (3.0, 0, 0)], [nodule], [grey])
  assert found.nodule_id.tolist() == [0, -1]
  assert found.excluded.tolist() == [False, True]


def test_the_nearest_of_several_nodules_counts():
  nodules = [
    ('scan', 0.0, 0.0, 0.0, 30.0),
    ('scan', 8.0, 0.0, 0.0, 2.0),
    ('scan', 9.0, 0.0, 0.0, 10.0),
  ]
  # At 6.5 the second is nearer than the third, but its radius is too small.
  found = match([(4.0, 0, 0), (6.5, 0, 0), (7.5, 0, 0)], nodules)
  assert found.nodule_id.tolist() == [0, 2, 1]
  assert found.diameter_mm.tolist() == [30, 10, 2]


def test_findings_of_other_scans_do_not_count():
  found = match([(0, 0, 0)], [('another', 0.0, 0.0, 0.0, 9.0)])
  assert found.nodule_id.tolist() == [-1]


# On a coarse lattice distances of exactly a radius are common.
lattice = st.integers(-4, 4).map(float)
finding_rows = st.lists(
  st.tuples(
    st.sampled_from(['a', 'b', 'c']),
    lattice,
    lattice,
    lattice,
    st.sampled_from([-1.0, 0.0, 2.0, 4.0, 6.0, 7.5]),
  ),
  max_size=8,
)


@hypothesis.given(
  rows=st.lists(
    st.tuples(st.sampled_from(['a', 'b', 'd']), lattice, lattice, lattice, st.just(0)),
    max_size=12,
  ),
  nodules=finding_rows,
  excluded=finding_rows,
)
def test_match_findings_as_a_plain_loop(rows, nodules, excluded):
  found = matching.match_findings(table_of(rows), table_of(nodules), table_of(excluded))
  for i, (name, *point, _) in enumerate(rows):
    nodule = oracles.nearest_hit(name, point, nodules)
    in_excluded = oracles.nearest_hit(name, point, excluded) >= 0
    assert found.nodule_id[i] == nodule
    assert found.diameter_mm[i] == (nodules[nodule][4] if nodule >= 0 else 0)
    assert found.excluded[i] == (in_excluded and nodule < 0)


def test_nodule_id_is_the_row_of_the_file():
  nodules = table_of(
    [('other', 0, 0, 0, 5), ('scan', 0, 0, 0, 5), ('scan', 50, 0, 0, 5)]
  )
  found = matching.match_findings(
    table_of([('scan', 50, 0, 0, 1), ('scan', 0, 0, 0, 1)]), nodules, nodules[[]]
  )
  assert found.nodule_id.tolist() == [2, 1]


def test_real_lists(real_data):
  folder = real_data / 'luna16'
  assert len(tables.read_candidates(folder / 'candidates.csv')) == 935
  nodules = tables.read_findings(folder / 'annotations.csv')
  excluded = tables.read_findings(folder / 'annotations_excluded.csv')
  assert len(nodules) == 1186
  assert len(nodules.groups()) == 601
  assert len(excluded) == 35192
  assert int((excluded.values < 0).sum()) == 30513
