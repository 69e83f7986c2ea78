"""Fixtures of the tests of the job's parts."""

import fake_data
import pytest

from beam_jobs import disk_job_folder


@pytest.fixture
def one_shard(tmp_path):
  """A download of three scans of subset 0, hence one shard."""
  scans = [
    fake_data.make_scan(0),
    fake_data.make_scan(1, flips=(True, True, False)),
    fake_data.make_scan(2, compressed=True),
  ]
  return fake_data.write_download(tmp_path / 'luna16', scans)


@pytest.fixture
def folder(tmp_path):
  """A locked job folder."""
  folder = disk_job_folder.DiskJobFolder(tmp_path / 'data' / '1.0.0')
  with folder.locked():
    yield folder
