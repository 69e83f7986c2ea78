import csv
import dataclasses
import json
import pathlib

from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st
import numpy as np
import pytest
from sklearn import metrics as sklearn_metrics

from model.metrics import froc
from model.metrics import froc_matching
from model.metrics.froc_matching import MISSED
from model.metrics.resampling import Resampling

_GOLDEN = pathlib.Path(__file__).parents[4] / 'shared' / 'data' / 'froc'


def make_entries(scans, *rows):
  """Entries from (scan, score, is_nodule)."""
  rows = np.array(rows, float).reshape(-1, 3)
  return froc_matching.Entries(
    rows[:, 0].astype(int), rows[:, 1], rows[:, 2] == 1, scans
  )


def random_entries(scans, seed):
  rng = np.random.default_rng(seed)
  size = 12 * scans
  is_nodule = rng.random(size) < 0.2
  score = np.round(rng.random(size) * 0.7 + 0.3 * is_nodule, 2)
  score[is_nodule & (rng.random(size) < 0.2)] = MISSED
  # The last scan has no entry.
  scan = rng.integers(scans - 1, size=size)
  return froc_matching.Entries(scan, score, is_nodule, scans)


def test_curve_and_cpm_of_a_case_made_by_hand():
  entries = make_entries(
    4, (0, 0.9, 1), (0, 0.8, 0), (1, 0.7, 1), (1, 0.6, 0), (2, MISSED, 1)
  )
  curve = froc.froc_curve(entries)
  np.testing.assert_allclose(curve.fps_per_scan, [0, 0, 0.25, 0.25, 0.5])
  np.testing.assert_allclose(curve.sensitivity, [0, 1 / 3, 1 / 3, 2 / 3, 2 / 3])
  np.testing.assert_array_equal(curve.threshold, [np.inf, 0.9, 0.8, 0.7, 0.6])
  assert curve.cpm == pytest.approx((1 / 3 + 6 * 2 / 3) / 7)


def test_missed_nodule_lowers_the_sensitivity():
  assert froc.froc_curve(make_entries(1, (0, 0.7, 1), (0, MISSED, 1))).cpm == 0.5


def test_scans_without_entries_lower_the_false_positives_per_scan():
  rows = (0, 0.7, 1), (0, 0.8, 0)
  one, four = (froc.froc_curve(make_entries(scans, *rows)) for scans in (1, 4))
  np.testing.assert_array_equal(one.fps_per_scan, [0, 1, 1])
  np.testing.assert_array_equal(four.fps_per_scan, [0, 0.25, 0.25])


def test_no_false_positive_and_no_mark():
  perfect = froc.froc_curve(make_entries(2, (0, 0.9, 1), (1, 0.8, 1)))
  np.testing.assert_array_equal(perfect.fps_per_scan, 0)
  assert perfect.cpm == 1
  assert froc.froc_curve(make_entries(2, (0, MISSED, 1))).cpm == 0


def test_sensitivity_needs_a_nodule_and_a_band_needs_resamples():
  with pytest.raises(ValueError, match='no nodule'):
    froc.froc_curve(make_entries(1, (0, 0.5, 0)))
  with pytest.raises(ValueError, match='resamples must be 1 or more'):
    froc.confidence_band(make_entries(1, (0, 0.5, 1)), Resampling(resamples=0))


def curve_by_scikit_learn(rows, scans):
  """The official script's formulas: scikit-learn's ROC curve, scaled."""
  marked = [(is_nodule, score) for _, score, is_nodule in rows if score > MISSED]
  detected = sum(is_nodule for is_nodule, _ in marked)
  nodules = sum(is_nodule for _, _, is_nodule in rows)
  fpr, tpr, thresholds = sklearn_metrics.roc_curve(*zip(*marked))
  return fpr * (len(marked) - detected) / scans, tpr * detected / nodules, thresholds


_SCANS = 3
_ENTRY = st.tuples(
  st.integers(0, _SCANS - 1),
  st.one_of(st.integers(0, 10).map(float), st.floats(0, 1)),
  st.booleans(),
)


@given(st.lists(_ENTRY, max_size=60), st.integers(0, 3))
@settings(max_examples=200, deadline=None)
def test_curve_equals_scikit_learns(rows, missed):
  # Scikit-learn's curve is undefined without one of each.
  rows = [*rows, (0, 0.5, True), (1, 0.25, False), *[(2, MISSED, True)] * missed]
  curve = froc.froc_curve(make_entries(_SCANS, *rows))
  fps_per_scan, sensitivity, thresholds = curve_by_scikit_learn(rows, _SCANS)
  np.testing.assert_array_equal(curve.fps_per_scan, fps_per_scan)
  np.testing.assert_array_equal(curve.sensitivity, sensitivity)
  np.testing.assert_array_equal(curve.threshold, thresholds)


def test_resampled_sensitivity_equals_that_of_explicit_resamples():
  entries = random_entries(scans=10, seed=1)
  fps_per_scan = np.linspace(0.125, 8, 200)
  found = froc.resampled_sensitivity(entries, fps_per_scan, Resampling(40, seed=5))
  assert found.shape == (40, 200)
  rng = np.random.default_rng(5)
  for row in found:
    rows = np.concatenate(
      [np.flatnonzero(entries.scan == scan) for scan in rng.integers(10, size=10)]
    )
    drawn = froc_matching.Entries(
      entries.scan[rows], entries.score[rows], entries.is_nodule[rows], 10
    )
    curve = froc.froc_curve(drawn)
    np.testing.assert_allclose(row, curve.sensitivity_at(fps_per_scan), rtol=1e-12)
    marked = drawn.score > MISSED
    fpr, tpr, _ = sklearn_metrics.roc_curve(
      drawn.is_nodule[marked], drawn.score[marked], drop_intermediate=False
    )
    detected = drawn.is_nodule[marked].sum()
    np.testing.assert_array_equal(
      row,
      np.interp(
        fps_per_scan,
        fpr * (marked.sum() - detected) / 10,
        tpr * detected / drawn.is_nodule.sum(),
      ),
    )


def test_band_has_the_order_statistics_of_the_official_script():
  entries = random_entries(scans=30, seed=2)
  resampling = Resampling(200, seed=3)
  band = froc.confidence_band(entries, resampling)
  sensitivity = froc.resampled_sensitivity(
    entries, np.array(froc.FPS_PER_SCAN), resampling
  )
  ordered = np.sort(sensitivity, axis=0)
  np.testing.assert_allclose(band.at_points.mean, sensitivity.mean(axis=0))
  np.testing.assert_array_equal(band.at_points.lower, ordered[5])
  np.testing.assert_array_equal(band.at_points.upper, ordered[195])
  cpm = band.cpm.interval
  assert cpm.lower < froc.froc_curve(entries).cpm < cpm.upper
  # The curve of the band has the points too.
  np.testing.assert_array_equal(band.at_points.fps_per_scan, froc.FPS_PER_SCAN)
  np.testing.assert_array_equal(band.curve.fps_per_scan[::32], froc.FPS_PER_SCAN)
  np.testing.assert_array_equal(band.curve.upper[::32], band.at_points.upper)


def test_seed_determines_the_band():
  entries = random_entries(scans=30, seed=2)
  first, second, other = (
    froc.confidence_band(entries, Resampling(50, seed)) for seed in (3, 3, 4)
  )
  np.testing.assert_array_equal(first.curve.lower, second.curve.lower)
  assert first.cpm == second.cpm
  assert first.cpm != other.cpm


def test_resamples_without_nodules_are_left_out():
  entries = make_entries(2, (0, 0.9, 1), (1, 0.5, 0))
  drawn = froc.resampled_sensitivity(entries, np.ones(1), Resampling(50))
  assert 0 < np.isnan(drawn).sum() < 50
  assert froc.confidence_band(entries, Resampling(50)).cpm.mean == 1


def test_band_is_nan_if_no_resample_has_a_nodule():
  # Among a thousand scans the only nodule is drawn in few resamples.
  entries = make_entries(1000, (0, 0.9, 1))
  seed = next(
    s for s in range(99) if np.random.default_rng(s).integers(1000, size=1000).min() > 0
  )
  band = froc.confidence_band(entries, Resampling(1, seed))
  fields = band.to_json()
  assert list(fields) == [
    'sensitivity_mean',
    'sensitivity_lower',
    'sensitivity_upper',
    'cpm_mean',
    'cpm_lower',
    'cpm_upper',
  ]
  for value in fields.values():
    assert np.isnan(value).all()
  assert len(fields['sensitivity_lower']) == 7


@pytest.mark.skipif(
  not _GOLDEN.is_dir(), reason='the golden case of the official script is not here'
)
def test_golden_case_of_the_official_script():
  seriesuids = (_GOLDEN / 'seriesuids.csv').read_text().split()
  scan_of = {uid: number for number, uid in enumerate(seriesuids)}

  def read_points(name, column):
    with (_GOLDEN / f'{name}.csv').open(newline='') as file:
      rows = [row for row in csv.DictReader(file) if row['seriesuid'] in scan_of]
    scan = np.array([scan_of[row['seriesuid']] for row in rows])
    xyz_mm = [[float(row[f'coord{axis}']) for axis in 'XYZ'] for row in rows]
    return scan, np.array(xyz_mm), np.array([float(row[column]) for row in rows])

  def read_findings(name):
    scan, xyz_mm, diameter = read_points(name, 'diameter_mm')
    radius = np.where(diameter < 0, 10, diameter) / 2
    return froc_matching.Findings(scan, xyz_mm, radius)

  matched = froc_matching.match_marks(
    froc_matching.Marks(*read_points('submission', 'probability')),
    read_findings('annotations'),
    read_findings('annotations_excluded'),
    len(seriesuids),
  )
  curve = froc.froc_curve(matched.entries)
  expected = json.loads((_GOLDEN / 'expected.json').read_text())
  # The script prints 9 digits.
  sensitivity = np.round(curve.sensitivity_at(froc.FPS_PER_SCAN), 9)
  assert sensitivity.tolist() == expected['sensitivity']
  assert curve.cpm == pytest.approx(expected['cpm'], abs=1e-9)
  for name in expected.keys() & dataclasses.asdict(matched.counts).keys():
    assert getattr(matched.counts, name) == expected[name], name


def test_detector_does_not_differ_from_itself():
  entries = random_entries(20, seed=1)
  found = froc.paired_cpm_difference(entries, entries, Resampling(resamples=30))
  assert (found.value, found.interval.to_json(), found.p_value) == (0, [0, 0], 1)


def test_cpm_of_both_detectors_is_computed_in_the_same_resamples():
  scans, resampling = 15, Resampling(resamples=40, seed=3)
  a, b = random_entries(scans, seed=4), random_entries(scans, seed=5)
  rng = np.random.default_rng(resampling.seed)
  expected = []
  for _ in range(resampling.resamples):
    drawn = rng.integers(scans, size=scans)
    # A scan that is drawn twice is two scans.
    cpms = [
      froc.froc_curve(
        make_entries(
          scans,
          *(
            (number, score, is_nodule)
            for number, scan in enumerate(drawn)
            for score, is_nodule in zip(
              e.score[e.scan == scan], e.is_nodule[e.scan == scan]
            )
          ),
        )
      ).cpm
      for e in (a, b)
    ]
    expected.append(cpms[0] - cpms[1])
  found = froc.paired_cpm_difference(a, b, resampling)
  assert found.value == froc.froc_curve(a).cpm - froc.froc_curve(b).cpm
  np.testing.assert_allclose(
    found.interval.to_json(), np.quantile(expected, [0.025, 0.975]), atol=1e-9
  )
  below = np.sum(np.array(expected) <= 1e-12)
  above = np.sum(np.array(expected) >= -1e-12)
  assert found.p_value == pytest.approx(min(1, 2 * (min(below, above) + 1) / 41))


def test_detectors_on_different_scans_are_not_compared():
  with pytest.raises(ValueError, match='same scans'):
    froc.paired_cpm_difference(
      random_entries(5, 0), random_entries(6, 0), Resampling(resamples=1)
    )
