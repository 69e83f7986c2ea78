import hypothesis
from hypothesis import strategies as st
import numpy as np
import oracles

from luna_tfds import matching
from luna_tfds import tables


def table_of(rows):
  """Returns a table of findings from rows (seriesuid, x, y, z, diameter_mm)."""
  names = np.empty(len(rows), object)
  names[:] = [row[0] for row in rows]
  numbers = np.array([row[1:] for row in rows], np.float64).reshape(-1, 4)
  return tables.PointTable(
    seriesuids=names,
    xyz_mm=numbers[:, :3],
    values=numbers[:, 3],
    rows=np.arange(len(rows)),
    value_column='diameter_mm',
  )


def match(points, nodules, excluded=()):
  """Matches points of one scan with findings (seriesuid, x, y, z, diameter_mm)."""
  rows = [('scan', *point, 0) for point in points]
  return matching.match_findings(
    table_of(rows), table_of(list(nodules)), table_of(list(excluded))
  )


def test_a_hit_is_strictly_nearer_than_the_radius():
  nodule = ('scan', 10.0, 0.0, 0.0, 6.0)
  matches = match(
    [(13.0, 0, 0), (12.999, 0, 0), (10, 0, -3.0), (10, 0, -2.999)], [nodule]
  )
  assert matches.nodule_id.tolist() == [-1, 0, -1, 0]
  assert matches.diameter_mm.tolist() == [0, 6, 0, 6]


def test_a_negative_diameter_is_ten_mm():
  finding = ('scan', 0.0, 0.0, 0.0, -1.0)
  matches = match([(4.999, 0, 0), (5.0, 0, 0)], [], [finding])
  assert matches.excluded.tolist() == [True, False]


def test_a_finding_of_diameter_zero_is_never_hit():
  matches = match([(0, 0, 0)], [('scan', 0.0, 0.0, 0.0, 0.0)])
  assert matches.nodule_id.tolist() == [-1]


def test_nodules_are_matched_before_excluded_findings():
  nodule = ('scan', 0.0, 0.0, 0.0, 4.0)
  finding = ('scan', 0.0, 0.0, 0.0, -1.0)
  matches = match([(1.0, 0, 0), (3.0, 0, 0)], [nodule], [finding])
  assert matches.nodule_id.tolist() == [0, -1]
  assert matches.excluded.tolist() == [False, True]


def test_the_nearest_of_several_nodules_counts():
  nodules = [
    ('scan', 0.0, 0.0, 0.0, 30.0),
    ('scan', 8.0, 0.0, 0.0, 2.0),
    ('scan', 9.0, 0.0, 0.0, 10.0),
  ]
  # At 6.5 the second is nearer than the third, but its radius is too small.
  matches = match([(4.0, 0, 0), (6.5, 0, 0), (7.5, 0, 0)], nodules)
  assert matches.nodule_id.tolist() == [0, 2, 1]
  assert matches.diameter_mm.tolist() == [30, 10, 2]


def test_findings_of_other_scans_do_not_count():
  matches = match([(0, 0, 0)], [('another', 0.0, 0.0, 0.0, 9.0)])
  assert matches.nodule_id.tolist() == [-1]


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
def test_matches_equal_those_of_a_plain_loop(rows, nodules, excluded):
  matches = matching.match_findings(
    table_of(rows), table_of(nodules), table_of(excluded)
  )
  for i, (name, *point, _) in enumerate(rows):
    nodule = oracles.nearest_hit(name, point, nodules)
    in_excluded = oracles.nearest_hit(name, point, excluded) >= 0
    assert matches.nodule_id[i] == nodule
    assert matches.diameter_mm[i] == (nodules[nodule][4] if nodule >= 0 else 0)
    assert matches.excluded[i] == (in_excluded and nodule < 0)


def test_nodule_id_is_the_row_of_the_file():
  nodules = table_of(
    [('other', 0, 0, 0, 5), ('scan', 0, 0, 0, 5), ('scan', 50, 0, 0, 5)]
  )
  matches = matching.match_findings(
    table_of([('scan', 50, 0, 0, 1), ('scan', 0, 0, 0, 1)]), nodules, nodules[[]]
  )
  assert matches.nodule_id.tolist() == [2, 1]


def test_types_of_the_arrays():
  # The fingerprint of a shard is computed from their bytes.
  matches = match([(0, 0, 0)], [('scan', 0.0, 0.0, 0.0, 4.0)])
  assert matches.nodule_id.dtype == np.int64
  assert matches.diameter_mm.dtype == np.float32
  assert matches.excluded.dtype == bool


def test_indexing_selects_matches():
  nodules = [('scan', 0.0, 0.0, 0.0, 4.0)]
  matches = match([(9, 0, 0), (0, 0, 0), (3, 0, 0)], nodules, [('scan', 3, 0, 0, 1)])
  picked = matches[[2, 1]]
  assert picked.nodule_id.tolist() == [-1, 0]
  assert picked.diameter_mm.tolist() == [0, 4]
  assert picked.excluded.tolist() == [True, False]


def test_radii_of_unknown_diameters_are_five_mm():
  assert matching.radii_mm(np.array([7.0, -1.0, 0.0])).tolist() == [3.5, 5, 0]
