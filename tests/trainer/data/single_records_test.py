import fake_source
import numpy as np
import pytest
import tensorflow_datasets as tfds

import luna_tfds  # noqa: F401, registers the dataset
from luna_tfds.errors import UsageError
from trainer.data import single_records

SPLIT = 'validation+test'


@pytest.fixture(scope='module')
def source(opened_dataset):
  return opened_dataset.open_split(SPLIT)


@pytest.fixture(scope='module')
def keys(source):
  """`seriesuid/candidate_id` of each record, in stored order."""
  columns = fake_source.read_columns(source, ('seriesuid', 'candidate_id'))
  pairs = zip(columns['seriesuid'], columns['candidate_id'])
  return [f'{uid.decode()}/{number}' for uid, number in pairs]


def test_images_are_read_in_the_order_asked_for(source, keys, data_dir):
  stored = tfds.load(
    'luna16_patches/axial_50px_all', data_dir=str(data_dir), split=SPLIT
  )
  image_of = {
    f'{r["seriesuid"].decode()}/{r["candidate_id"]}': r['image']
    for r in tfds.as_numpy(stored)
  }
  positions = [len(keys) - 1, 0, 5, 5]
  images = single_records.read_images(source, positions)
  assert images.dtype == np.int16
  for image, position in zip(images, positions, strict=True):
    np.testing.assert_array_equal(image, image_of[keys[position]])


def test_a_record_is_found_by_position_and_by_key(source, keys):
  for position in (0, 9, len(keys) - 1):
    assert single_records.position_of(source, str(position)) == position
    assert single_records.position_of(source, keys[position]) == position


@pytest.mark.parametrize('record', ['{count}', '1.2.826.0.8/999', '-1', 'x', '²'])
def test_a_record_that_is_not_there_is_refused(record, source, keys):
  record = record.format(count=len(keys))
  with pytest.raises(UsageError, match=f'--record={record}: .*{SPLIT[:10]}'):
    single_records.position_of(source, record)
