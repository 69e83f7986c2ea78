import dataclasses

import fake_source
import numpy as np
import pytest

from luna_tfds import records
from luna_tfds import tfrecord
from trainer import config as config_lib
from trainer.data import summary
from trainer.data.balance import plan_balance
from trainer.data.split_source import ShardSlice


def write_spacings(folder, spacings_xyz_mm):
  """Records of subset 3, alternately non-nodules and nodules."""
  split = fake_source.write_split(folder, 1, 0, shards=1)
  path = folder / 'spacings-train.tfrecord-00000-of-00001'
  encoder = records.RecordEncoder(fake_source.SHAPE)
  tfrecord.write_tfrecords(
    path,
    [
      encoder.encode(
        records.Record(
          np.zeros(fake_source.SHAPE, np.int16),
          number % 2,
          '1.2',
          number,
          subset=3,
          spacing_xyz_mm=spacing,
        )
      )
      for number, spacing in enumerate(spacings_xyz_mm)
    ],
  )
  count = len(spacings_xyz_mm)
  return dataclasses.replace(
    split.source,
    slices=(ShardSlice(str(path), 0, count),),
    label_counts=(count - count // 2, count // 2),
  )


def rows_of(text, title):
  """The rows (name, negative, positive) below a title."""
  lines = text.splitlines()
  start = next(k for k, line in enumerate(lines) if line.split()[0:2] == title.split())
  rows = []
  for line in lines[start + 1 :]:
    if line.split()[-1] == 'positive':
      break
    name, *counts = line.split()
    rows.append((name, *map(int, counts)))
  return rows


def test_the_first_line_counts_the_records(with_excluded):
  first = summary.describe(with_excluded.source).splitlines()[0]
  assert first == (
    'train: 360 records (4, 4, 1), 60 nodule candidates (16.67%), 72 excluded, 0 MB in 4 files'
  )


def test_one_record_is_in_the_singular(tmp_path):
  source = fake_source.write_split(tmp_path, 0, 1, shards=1).source
  first = summary.describe(source).splitlines()[0]
  assert first.startswith('train: 1 record (4, 4, 1), 1 nodule candidate (100.00%)')
  assert first.endswith('in 1 file')


def test_records_are_counted_by_subset_and_spacing(tmp_path):
  spacings = [(0.5, 0.5, 1.0), (0.6, 0.6, 2.5), (1.0, 1.0, 1.0), (1.0, 1.0, 1.0)]
  text = summary.describe(write_spacings(tmp_path, spacings))
  assert rows_of(text, 'subset negative') == [('3', 2, 2)]
  assert rows_of(text, 'pixel mm') == [
    ('0.50-0.60', 1, 0),
    # 0.6 begins the second of five ranges.
    ('0.60-0.70', 0, 1),
    ('0.70-0.80', 0, 0),
    ('0.80-0.90', 0, 0),
    ('0.90-1.00', 1, 1),
  ]
  assert sum(row[1] + row[2] for row in rows_of(text, 'slice mm')) == 4


def test_equal_and_unknown_spacings(tmp_path):
  spacings = [(0.7, 0.7, 1.25), (0.7, 0.7, 1.25), (np.nan,) * 3]
  text = summary.describe(write_spacings(tmp_path, spacings))
  assert rows_of(text, 'pixel mm') == [('0.70-0.70', 1, 1), ('unknown', 1, 0)]
  assert rows_of(text, 'slice mm') == [('1.25-1.25', 1, 1), ('unknown', 1, 0)]


@pytest.mark.parametrize('name', ['memory', 'streams'])
def test_rate_is_measured(small_split, name):
  config = fake_source.input_config(**fake_source.STREAM_FIELDS[name])
  balance = plan_balance(small_split.source, config)
  assert summary.measure_rate(config, balance, 0.05) > 0


def test_examples_are_the_same_records_before_and_after(small_split):
  config = fake_source.input_config(
    augment=config_lib.AugmentConfig(contrast_brightness=0.2)
  )
  balance = plan_balance(small_split.source, config)
  examples = summary.draw_examples(config, balance, 5)
  assert examples.stored.shape == examples.augmented.shape == (5, 4, 4, 1)
  numbers = examples.stored[:, 0, 0, 0]
  np.testing.assert_array_equal(examples.labels, small_split.labels[numbers])
  # Each pixel holds the number of the record, in 0..360 HU: at most 20 % of the 1,360 HU
  # above air and of 700 HU away.
  difference = np.abs(examples.augmented - examples.stored)
  assert 0 < difference.max() <= 0.2 * (1360 + 700)
  # Without augmentation the records are as they are stored.
  plain = dataclasses.replace(config, augment=config_lib.AUGMENTATIONS['none'])
  same = summary.draw_examples(plain, balance, 5)
  np.testing.assert_array_equal(same.augmented, examples.stored)
