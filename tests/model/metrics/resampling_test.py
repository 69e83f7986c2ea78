import numpy as np
import pytest

from model.metrics import resampling
from model.metrics.resampling import Resampling


def test_each_resample_draws_as_many_scans_as_there_are():
  drawn = list(resampling.draw_scan_weights(7, Resampling(resamples=50, seed=3)))
  assert len(drawn) == 50
  for weights in drawn:
    assert weights.shape == (7,)
    assert weights.sum() == 7
  # Drawn with replacement: a scan is left out with probability (6/7)^7 = 0.34.
  assert 0.25 < np.mean(np.array(drawn) == 0) < 0.43


def test_seed_determines_the_resamples():
  first, second, other = (
    np.array(list(resampling.draw_scan_weights(9, Resampling(20, seed))))
    for seed in (1, 1, 2)
  )
  np.testing.assert_array_equal(first, second)
  assert not np.array_equal(first, other)


def test_seeds_keep_their_resamples_across_versions():
  # Intervals that users have stored must be reproducible.
  drawn = list(resampling.draw_scan_weights(5, Resampling(2, seed=0)))
  np.testing.assert_array_equal(drawn, [[0, 2, 1, 1, 1], [4, 0, 0, 0, 1]])


def test_scans_are_numbered_in_sorted_order():
  scans = resampling.ScanIndex.from_ids(np.array(['b', 'a', 'c', 'b'], object))
  np.testing.assert_array_equal(scans.of_record, [1, 0, 2, 1])
  assert scans.num_scans == 3


def test_interval_holds_95_percent_of_the_values():
  values = np.random.default_rng(0).permutation(np.arange(1001.0))
  interval = resampling.percentile_interval(values)
  assert interval.to_json() == pytest.approx([25, 975])


def test_undefined_values_are_left_out_of_the_interval():
  interval = resampling.percentile_interval(np.array([np.nan, 2.0, np.inf, 2.0]))
  assert interval == resampling.Interval(2.0, 2.0)
  assert np.isnan(resampling.percentile_interval(np.full(3, np.nan)).to_json()).all()


@pytest.mark.parametrize('name', ['resamples', 'seed'])
def test_negative_settings_are_refused(name):
  with pytest.raises(ValueError, match=f'{name} must be 0 or more. Received: -1'):
    Resampling(**{name: -1})


def test_p_value_is_twice_the_share_of_the_smaller_side():
  differences = np.concatenate([np.full(90, 0.2), np.full(9, -0.1)])
  assert resampling.bootstrap_p_value(differences) == pytest.approx(2 * 10 / 100)
  assert resampling.bootstrap_p_value(-differences) == pytest.approx(2 * 10 / 100)
  assert resampling.bootstrap_p_value(np.ones(99)) == pytest.approx(0.02)


def test_p_value_without_a_difference_is_1_and_undefined_without_resamples():
  assert resampling.bootstrap_p_value(np.zeros(50)) == 1
  assert np.isnan(resampling.bootstrap_p_value(np.array([np.nan])))
  with_undefined = np.append(np.ones(99), np.nan)
  assert resampling.bootstrap_p_value(with_undefined) == pytest.approx(0.02)


def test_p_value_below_5_percent_belongs_to_an_interval_without_0():
  rng = np.random.default_rng(0)
  for mean in np.linspace(0, 4, 40):
    differences = rng.normal(mean, 1, 999)
    found = resampling.Difference.from_resamples(mean, differences)
    if found.p_value < 0.05:
      assert found.interval.lower > 0
    elif found.p_value > 0.055:
      assert found.interval.lower < 0


def test_progress_of_a_bootstrap_is_reported():
  reported = []
  with resampling.reported_to(lambda *counts: reported.append(counts)):
    drawn = list(resampling.draw_scan_weights(5, Resampling(3)))
  assert reported == [(0, 3), (1, 3), (2, 3), (3, 3)]
  np.testing.assert_array_equal(
    drawn, list(resampling.draw_scan_weights(5, Resampling(3)))
  )
  assert len(reported) == 4
