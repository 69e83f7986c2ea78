"""Fixtures of the tests of the builder."""

import fake_data
import pytest


@pytest.fixture
def small(tmp_path):
  """A download of three scans, one of each split."""
  scans = [fake_data.make_scan(seed, seed) for seed in (0, 8, 9)]
  return fake_data.write_download(tmp_path / 'luna16', scans)
