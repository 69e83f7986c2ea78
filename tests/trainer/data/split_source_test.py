import dataclasses
import pathlib

import numpy as np
import pytest

from luna_tfds import records
from luna_tfds import splits
from luna_tfds.errors import UsageError
from trainer.data import input_pipeline
from trainer.data import split_source

HEADER = 'seriesuid,candidate_id,label,probability\n'


@pytest.fixture(scope='module')
def builder(data_dir):
  return split_source.open_builder(str(data_dir), 'axial_50px_all')


def all_records(source):
  names = ('label', 'candidate_id', 'subset', 'seriesuid', 'excluded')
  batches = list(input_pipeline.evaluation_batches(source, names=names))
  return {name: np.concatenate([b[name] for b in batches]) for name in names}


@pytest.mark.parametrize(
  'split',
  ['train', 'test', 'train[:37%]', 'train[5:17]+test[-3:]', 'train[1shard:3shard]'],
)
def test_label_counts_are_those_of_the_records(builder, split):
  source = split_source.open_source(builder, split)
  stored = all_records(source)
  assert source.num_records == len(stored['label'])
  assert source.label_counts == tuple(np.bincount(stored['label'], minlength=2))
  assert source.prior == pytest.approx(stored['label'].mean())
  keys = set(zip(stored['seriesuid'], stored['candidate_id']))
  assert len(keys) == source.num_records


def test_slices_that_meet_make_up_the_split(builder):
  whole = all_records(split_source.open_source(builder, 'train'))['candidate_id']
  parts = [
    all_records(split_source.open_source(builder, split))['candidate_id']
    for split in ('train[:40%]', 'train[40%:]')
  ]
  np.testing.assert_array_equal(np.concatenate(parts), whole)


@pytest.mark.parametrize('fold', [0, 4])
def test_folds_hold_their_subsets(builder, fold):
  strings = splits.fold_splits(split_source.metadata(builder), fold)
  subsets = {
    name: set(all_records(split_source.open_source(builder, split))['subset'])
    for name, split in strings.items()
  }
  assert subsets['test'] == {fold}
  assert subsets['validation'] == {(fold - 1) % 10}
  assert subsets['train'] == set(range(10)) - subsets['test'] - subsets['validation']


def test_labels_are_read_where_there_is_no_metadata(builder, monkeypatch):
  expected = split_source.open_source(builder, 'train').label_counts
  monkeypatch.setattr(split_source, 'metadata', lambda unused: {})
  assert split_source.open_source(builder, 'train').label_counts == expected


@pytest.mark.parametrize('split', ['training', 'train[', 'train[2x:]', ''])
def test_unknown_splits_are_told(builder, split):
  with pytest.raises(UsageError, match=r'has no split .*; it has train, validation'):
    split_source.open_source(builder, split)


def test_empty_splits_are_told(builder):
  with pytest.raises(UsageError, match='is empty'):
    split_source.open_source(builder, 'train[:0]')


def test_datasets_open_by_name_config_and_folder(data_dir, builder):
  folder = str(builder.data_path)
  for dataset in ('luna16_patches/axial_50px_all', 'axial_50px_all', folder):
    opened = split_source.open_builder(str(data_dir), dataset)
    assert pathlib.Path(opened.data_path) == pathlib.Path(folder)
  source = split_source.open_source(split_source.open_builder('', folder), 'train')
  assert source == split_source.open_source(builder, 'train')


def test_a_dataset_that_is_not_there_is_told(tmp_path):
  with pytest.raises(
    UsageError, match=r'make it with luna16-extract .*--config=cube_48mm'
  ):
    split_source.open_builder(str(tmp_path), 'cube_48mm')


def test_kinds_are_counted(builder, tmp_path):
  source = split_source.open_source(builder, 'train')
  stored = all_records(source)
  negative = (stored['label'] == 0) & ~stored['excluded']
  assert stored['excluded'].any()
  counts = split_source.count_kinds(source, drop_excluded=True)
  assert counts[split_source.DROPPED] == stored['excluded'].sum()
  assert counts[split_source.NON_NODULE] == negative.sum()
  path = tmp_path / 'predictions.csv'
  chosen = np.flatnonzero(negative)[:7]
  rows = [
    f'{stored["seriesuid"][i].decode()},{stored["candidate_id"][i]},0,0.6\n'
    for i in chosen
  ]
  path.write_text(HEADER + ''.join(rows) + 'other,1,0,0.55\n')
  counts = split_source.count_kinds(source, True, str(path))
  assert counts[split_source.HARD_NEGATIVE] == 7
  assert counts[split_source.NON_NODULE] == negative.sum() - 7
  # A file written anew is read anew.
  path.write_text(HEADER + ''.join(rows[:3]) + 'other,1,0,0.55\n')
  assert (
    split_source.count_kinds(source, True, str(path))[split_source.HARD_NEGATIVE] == 3
  )


@pytest.mark.parametrize(
  ('probabilities', 'hard'),
  [
    # The hardest tenth.
    (np.arange(20) / 100, [18, 19]),
    # And those called nodules.
    ([0.6, 0.1, 0.7, 0.2, 0.3, 0.5, 0.9, 0.0, 0.1, 0.1, 0.2], [0, 2, 6]),
    # All alike: none is harder than another.
    ([0.2] * 5, [0, 1, 2, 3, 4]),
  ],
)
def test_hard_negatives_are_the_hardest_tenth_and_the_false_alarms(
  tmp_path, probabilities, hard
):
  path = tmp_path / 'predictions.csv'
  rows = [f'1.2,{k},0,{p}\n' for k, p in enumerate(probabilities)]
  path.write_text(HEADER + '1.2,99,1,0.999\n' + ''.join(rows))
  assert split_source.read_hard_negatives(str(path)) == [f'1.2/{k}' for k in hard]


@pytest.mark.parametrize(
  ('text', 'problem'),
  [
    ('seriesuid,candidate_id,label\n', 'no column probability'),
    ('', 'no column seriesuid'),
    (HEADER + '1.2,3,0,0.5\n1.2,x,0,0.5\n', 'line 3: .*x'),
    (HEADER + '1.2,3,0,1.5\n', 'line 2: label is 0 or 1'),
    (HEADER + '1.2,3,0,nan\n', 'line 2: label is 0 or 1'),
    (HEADER + '1.2,3,2,0.5\n', 'line 2: label is 0 or 1'),
    (HEADER + '1.2,3,0\n', 'line 2: '),
    (HEADER + '1.2,3,1,0.5\n', 'holds no non-nodule'),
    (None, 'cannot be read'),
  ],
)
def test_bad_predictions_are_told(tmp_path, text, problem):
  path = tmp_path / 'predictions.csv'
  if text is not None:
    path.write_text(text)
  with pytest.raises(UsageError, match=rf'predictions\.csv.*{problem}'):
    split_source.read_hard_negatives(str(path))


def test_sources_are_what_caches_need(builder):
  source = split_source.open_source(builder, 'train')
  assert hash(source) == hash(dataclasses.replace(source))
  assert source.num_bytes == source.num_records * records.record_bytes((50, 50, 1))
