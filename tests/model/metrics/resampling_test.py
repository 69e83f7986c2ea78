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


def test_progress_of_a_bootstrap_is_reported():
  reported = []
  with resampling.reported_to(lambda *counts: reported.append(counts)):
    drawn = list(resampling.draw_scan_weights(5, Resampling(3)))
  assert reported == [(0, 3), (1, 3), (2, 3), (3, 3)]
  np.testing.assert_array_equal(
    drawn, list(resampling.draw_scan_weights(5, Resampling(3)))
  )
  assert len(reported) == 4
