import fake_scores
import numpy as np
import pytest

from model.metrics.resampling import Interval
from model.metrics.resampling import Resampling
from trainer.evaluation import subgroups

NO_INTERVALS = Resampling(resamples=0)

THIN = {'scan': 'a', 'thickness_mm': 0.7, 'subset': 3}
THICK = {'scan': 'b', 'thickness_mm': 1.25, 'subset': 4, 'label': 1}


@pytest.fixture
def records():
  return fake_scores.make_records(
    [
      # Two records on one small nodule; one is predicted to be a nodule.
      {**THIN, 'label': 1, 'probability': 0.9, 'nodule_id': 0, 'diameter_mm': 4.9},
      {**THIN, 'label': 1, 'probability': 0.2, 'nodule_id': 0, 'diameter_mm': 4.9},
      {**THIN, 'label': 1, 'probability': 0.1, 'nodule_id': 1, 'diameter_mm': 3.0},
      {**THIN, 'label': 0, 'probability': 0.8},
      {**THICK, 'probability': 0.7, 'nodule_id': 2, 'diameter_mm': 5.0},
      {**THICK, 'probability': 0.6, 'nodule_id': 3, 'diameter_mm': 12.0},
      # A nodule that annotations.csv does not list.
      {**THICK, 'probability': 0.6},
    ]
  )


def test_rows_by_diameter(records):
  rows = subgroups.by_diameter(records, records.probability >= 0.5, NO_INTERVALS)
  small, middle, large = rows
  assert (small.bin.name, small.records, small.nodules) == ('3 to 5 mm', 3, 2)
  assert small.recall == pytest.approx(1 / 3)
  assert small.nodule_recall == 0.5
  assert small.mean_probability == pytest.approx(0.4)
  assert (middle.bin.name, middle.records) == ('5 to 10 mm', 1)
  assert (large.bin.name, large.records) == ('10 mm and over', 1)
  assert small.to_json() == {
    'bin': '3 to 5 mm',
    'from_mm': 3.0,
    'below_mm': 5.0,
    'records': 3,
    'nodules': 2,
    'recall': small.recall,
    'mean_probability': small.mean_probability,
    'nodule_recall': 0.5,
  }


def test_rows_by_slice_thickness(records):
  rows = subgroups.by_slice_thickness(records, records.probability >= 0.5, NO_INTERVALS)
  thin, thick = rows
  assert (thin.name, thin.metrics.records, thin.scans) == ('below 1 mm', 4, 1)
  assert thin.metrics.recall == pytest.approx(1 / 3)
  assert thin.metrics.specificity == 0
  assert (thick.name, thick.metrics.nodules) == ('1 to 1.5 mm', 3)
  assert np.isnan(thick.metrics.specificity)
  assert thin.to_json().items() >= {'bin': 'below 1 mm', 'records': 4}.items()
  assert list(thick.to_json())[-5:] == list(subgroups.GROUP_METRICS)


def test_rows_by_subset(records):
  rows = subgroups.by_subset(records, records.probability >= 0.5, NO_INTERVALS)
  assert [(row.group, row.name) for row in rows] == [(3, '3'), (4, '4')]
  assert [row.to_json()['subset'] for row in rows] == [3, 4]
  assert [row.metrics.records for row in rows] == [4, 3]


@pytest.mark.parametrize(
  ('thickness_mm', 'name'),
  [
    (0.625, 'below 1 mm'),
    (1.0, '1 to 1.5 mm'),
    (1.5, '1.5 to 2 mm'),
    (2.0, '2 mm and over'),
    # Nearest float32 numbers, just below and above the bound.
    (np.nextafter(np.float32(1.5), np.float32(0)), '1.5 to 2 mm'),
    (np.nextafter(np.float32(2.0), np.float32(3)), '2 mm and over'),
  ],
)
def test_a_bin_holds_its_lower_bound(thickness_mm, name):
  records = fake_scores.make_records([{'scan': 'a', 'thickness_mm': thickness_mm}])
  (row,) = subgroups.by_slice_thickness(records, np.array([True]), NO_INTERVALS)
  assert row.name == name


def test_unknown_values_are_left_out():
  records = fake_scores.make_records([{'label': 1, 'probability': 0.9}, {}])
  predicted = records.probability > 0.6
  resampling = Resampling(resamples=10)
  assert subgroups.by_diameter(records, predicted, resampling) == []
  assert subgroups.by_slice_thickness(records, predicted, resampling) == []
  assert subgroups.by_subset(records, predicted, resampling) == []


def test_intervals_come_from_the_scans_of_the_group():
  found_in_a = [
    {'scan': scan, 'label': 1, 'probability': p, 'nodule_id': k, 'diameter_mm': 4.0}
    for k, (scan, p) in enumerate([('a', 0.9), ('a', 0.9), ('b', 0.1)])
  ]
  # Another bin, whose scans must not be drawn.
  other = [{'scan': 'c', 'label': 1, 'nodule_id': 9, 'diameter_mm': 20.0}]
  records = fake_scores.make_records([*found_in_a, *other])
  rows = subgroups.by_diameter(
    records, records.probability >= 0.8, Resampling(resamples=100)
  )
  assert rows[0].recall == pytest.approx(2 / 3)
  # A resample holds a twice, b twice, or both.
  assert rows[0].intervals['recall'] == Interval(0, 1)
  assert rows[0].to_json()['intervals']['nodule_recall'] == [0, 1]
  # All resamples of a single scan are equal.
  assert rows[1].intervals['recall'] == Interval(0, 0)


def test_group_rows_have_an_interval_of_each_metric():
  records = fake_scores.random_records(0, thickness_mm=1.0, subset=2)
  predicted = records.probability > 0.5
  for rows in (
    subgroups.by_subset(records, predicted, Resampling(resamples=20)),
    subgroups.by_slice_thickness(records, predicted, Resampling(resamples=20)),
  ):
    (row,) = rows
    assert set(row.intervals) == set(subgroups.GROUP_METRICS)
    for name, interval in row.intervals.items():
      assert interval.lower < row.metrics.value(name) < interval.upper
