"""Fake splits that the tests of this package share."""

import fake_source
import pytest

# Numbers of the records of `with_excluded` that hit an excluded finding.
EXCLUDED = frozenset(range(0, 360, 5))


@pytest.fixture(scope='session')
def small_split(tmp_path_factory):
  """300 non-nodules and 60 nodules in 4 shards."""
  return fake_source.write_split(tmp_path_factory.mktemp('small'), 300, 60)


@pytest.fixture(scope='session')
def large_split(tmp_path_factory):
  """3,000 non-nodules and 600 nodules in 7 shards: more than a budget of 1 MB."""
  return fake_source.write_split(tmp_path_factory.mktemp('large'), 3000, 600, shards=7)


@pytest.fixture(scope='session')
def split_for(small_split, large_split):
  """Returns a function: the split with which a way to make batches is tested."""

  def choose(name):
    from_files = 'memory_budget_mb' in fake_source.STREAM_FIELDS[name]
    return large_split if from_files else small_split

  return choose


@pytest.fixture(scope='session')
def excluded_numbers():
  """Numbers of the records of `with_excluded` that hit an excluded finding."""
  return EXCLUDED


@pytest.fixture(scope='session')
def with_excluded(tmp_path_factory):
  """300 non-nodules and 60 nodules, of which every fifth is excluded."""
  folder = tmp_path_factory.mktemp('excluded')
  return fake_source.write_split(folder, 300, 60, excluded=EXCLUDED)


@pytest.fixture(scope='session')
def dataset(data_dir):
  """The opened dataset `axial_50px_all`."""
  from trainer.data import dataset as dataset_lib

  return dataset_lib.open_dataset(str(data_dir), 'axial_50px_all')
