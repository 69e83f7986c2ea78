import fake_source
import numpy as np
import pytest

from luna_tfds.errors import UsageError
from trainer.data import sampling_classes
from trainer.data import split_index
from trainer.data.sampling_classes import SamplingClasses

HEADER = 'seriesuid,candidate_id,label,probability\n'


@pytest.fixture
def split(tmp_path):
  """6 non-nodules and 3 nodules in one shard, the scan 1.2.0; 0, 4 and 8 excluded."""
  return fake_source.write_split(tmp_path, 6, 3, shards=1, excluded=(0, 4, 8))


def classes_of(config, source):
  classes = SamplingClasses.from_config(config)
  return classes.of_records(split_index.with_index(source))


def write_predictions(path, numbers):
  rows = [f'1.2.0,{n},0,0.6\n' for n in numbers]
  path.write_text(HEADER + ''.join(rows) + 'other,1,0,0.55\n')
  return str(path)


def test_classes_are_the_labels_by_default(split):
  of_records = classes_of(fake_source.input_config(), split.source)
  assert of_records.dtype == np.int8
  np.testing.assert_array_equal(of_records, split.labels)
  counts = sampling_classes.count_classes(of_records)
  assert counts == sampling_classes.ClassCounts(non_nodule=6, nodule=3)


def test_excluded_records_are_dropped_and_hard_ones_marked(split, tmp_path):
  candidates = [n for n in range(9) if not split.labels[n] and n not in (0, 4, 8)]
  hard = candidates[:2]
  # A nodule and an excluded record stay what they are, even if listed as hard.
  nodule = next(n for n in range(9) if split.labels[n] and n not in (0, 4, 8))
  path = write_predictions(tmp_path / 'predictions.csv', [*hard, nodule, 0])
  config = fake_source.input_config(drop_excluded=True, hard_negatives=path)
  of_records = classes_of(config, split.source)
  expected = split.labels.copy()
  expected[hard] = sampling_classes.HARD_NEGATIVE
  expected[[0, 4, 8]] = sampling_classes.DROPPED
  np.testing.assert_array_equal(of_records, expected)
  counts = sampling_classes.count_classes(of_records)
  assert (counts.hard_negative, counts.dropped) == (2, 3)
  assert counts.negatives == len(candidates)
  assert counts.nodule == 6 - len(candidates)


def test_excluded_records_of_an_extracted_dataset_are_counted(dataset):
  source = dataset.open_split('train')
  stored = fake_source.read_columns(source, ('label', 'excluded'))
  assert stored['excluded'].any()
  config = fake_source.input_config(drop_excluded=True)
  counts = sampling_classes.count_classes(classes_of(config, source))
  assert counts.dropped == stored['excluded'].sum()
  assert counts.non_nodule == ((stored['label'] == 0) & ~stored['excluded']).sum()


def test_a_file_that_was_written_anew_is_read_anew(split, tmp_path):
  numbers = [n for n in range(9) if not split.labels[n]]
  path = tmp_path / 'predictions.csv'
  config = fake_source.input_config(hard_negatives=str(path))
  for hard in (numbers[:4], numbers[:1]):
    write_predictions(path, hard)
    assert (
      classes_of(config, split.source) == sampling_classes.HARD_NEGATIVE
    ).sum() == len(hard)


def test_hard_negatives_that_are_not_in_the_split_are_refused(split, tmp_path):
  path = write_predictions(tmp_path / 'predictions.csv', [])
  config = fake_source.input_config(hard_negatives=path)
  with pytest.raises(UsageError, match=r'predictions\.csv: none of its hard'):
    classes_of(config, split.source)
