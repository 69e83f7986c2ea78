import dataclasses
import json
import pathlib
import shutil

import fake_source
import numpy as np
import oracles
import pytest

from luna_tfds import record_index
from luna_tfds import records
from luna_tfds import splits
from luna_tfds import stored_metadata
from luna_tfds.errors import JobError
from luna_tfds.errors import UsageError
from trainer.data import dataset as dataset_lib

COLUMNS = ('label', 'candidate_id', 'subset', 'seriesuid')


def read(dataset, split):
  return fake_source.read_columns(dataset.open_split(split), COLUMNS)


@pytest.mark.parametrize(
  'split',
  ['train', 'test', 'train[:37%]', 'train[5:17]+test[-3:]', 'train[1shard:3shard]'],
)
def test_label_counts_are_those_of_the_records(dataset, split):
  source = dataset.open_split(split)
  stored = read(dataset, split)
  assert source.num_records == len(stored['label'])
  assert source.label_counts == tuple(np.bincount(stored['label'], minlength=2))
  assert source.nodule_fraction == pytest.approx(stored['label'].mean())
  keys = set(zip(stored['seriesuid'], stored['candidate_id']))
  assert len(keys) == source.num_records
  assert source.num_bytes == source.num_records * records.record_bytes((50, 50, 1))


def test_slices_that_meet_make_up_the_split(dataset):
  parts = [read(dataset, s)['candidate_id'] for s in ('train[:40%]', 'train[40%:]')]
  whole = read(dataset, 'train')['candidate_id']
  np.testing.assert_array_equal(np.concatenate(parts), whole)


@pytest.mark.parametrize('fold', [0, 4])
def test_splits_of_a_fold_hold_their_subsets(dataset, fold):
  names = splits.fold_splits({'shard_subsets': dataset.metadata.shard_subsets}, fold)
  subsets = {name: set(read(dataset, split)['subset']) for name, split in names.items()}
  assert subsets['test'] == {fold}
  assert subsets['validation'] == {(fold - 1) % 10}
  assert subsets['train'] == set(range(10)) - subsets['test'] - subsets['validation']


def test_labels_are_counted_by_reading_them_where_there_is_no_metadata(dataset):
  without = dataclasses.replace(dataset, metadata=stored_metadata.StoredMetadata())
  source, expected = without.open_split('train'), dataset.open_split('train')
  assert source.label_counts == expected.label_counts
  assert (source.fingerprint, bool(expected.fingerprint)) == ('', True)


def test_an_index_of_another_dataset_is_refused(data_dir, tmp_path):
  folder = tmp_path / '1.0.0'
  shutil.copytree(oracles.dataset_folder(data_dir), folder)
  path = folder / 'record_index.json'
  fields = json.loads(path.read_text())
  fields['train'].pop()
  path.write_text(json.dumps(fields))
  with pytest.raises(UsageError, match=r'record_index\.json: .* of other lengths than'):
    dataset_lib.open_dataset('', str(folder))


@pytest.mark.parametrize('split', ['training', 'train[', 'train[2x:]', ''])
def test_an_unknown_split_is_refused(dataset, split):
  with pytest.raises(UsageError, match=r'has no split .*; it has train, validation'):
    dataset.open_split(split)


def test_an_empty_split_is_refused(dataset):
  with pytest.raises(UsageError, match='is empty'):
    dataset.open_split('train[:0]')


def test_a_dataset_opens_by_its_name_its_config_and_its_folder(data_dir, dataset):
  folder = str(dataset.builder.data_path)
  for name in ('luna16_patches/axial_50px_all', 'axial_50px_all', folder):
    opened = dataset_lib.open_dataset(str(data_dir), name)
    assert pathlib.Path(opened.builder.data_path) == pathlib.Path(folder)
    assert opened.metadata == dataset.metadata
    assert opened.name == 'luna16_patches/axial_50px_all/1.0.0'
  opened = dataset_lib.open_dataset('', folder)
  assert opened.open_split('train') == dataset.open_split('train')


def test_metadata_says_how_patches_were_cut(dataset):
  assert dataset.metadata.patch.shape_zyx == (1, 50, 50)
  assert dataset.metadata.patch.spacing_mm is None
  assert dataset.image_shape == (50, 50, 1)
  assert dataset.split_names == ('train', 'validation', 'test')
  assert sum(dataset.shard_lengths('train')) == dataset.open_split('train').num_records


def test_only_a_config_without_sampling_holds_all_candidates(data_dir, dataset):
  assert dataset.holds_all_candidates
  sampled = dataset_lib.open_dataset(str(data_dir), 'axial_50px')
  assert not sampled.holds_all_candidates
  assert not dataset_lib.open_dataset('', str(sampled.folder)).holds_all_candidates
  assert dataset_lib.open_dataset('', str(dataset.folder)).holds_all_candidates


@pytest.mark.parametrize('name', ['axial_50px_all', 'axial_50px'])
def test_the_name_tells_of_all_candidates_where_the_metadata_do_not(data_dir, name):
  opened = dataset_lib.open_dataset(str(data_dir), name)
  metadata = dataclasses.replace(opened.metadata, selection=None)
  opened = dataclasses.replace(opened, metadata=metadata)
  assert opened.holds_all_candidates == (name == 'axial_50px_all')


@pytest.mark.parametrize(
  ('split', 'expected'),
  [
    ('train', True),
    ('train[:5]', True),
    ('train+test', True),
    ('trian', False),
    ('trian[:5]', False),
    ('train[50shard:]', False),
    ('', False),
  ],
)
def test_has_split(dataset, split, expected):
  assert dataset.has_split(split) == expected


def test_a_dataset_that_was_never_extracted_is_refused(tmp_path):
  with pytest.raises(
    UsageError, match=r'make it with luna16-extract .*--config=cube_48mm'
  ):
    dataset_lib.open_dataset(str(tmp_path), 'cube_48mm')


@pytest.mark.parametrize(
  ('misspelt', 'meant'),
  [('axial_50', 'axial_50px'), ('luna16_patches/axial_64x', 'axial_64px')],
)
def test_a_misspelt_config_gets_a_suggestion(misspelt, meant, tmp_path):
  folder = tmp_path / 'luna16_patches' / 'axial_64px' / '1.0.0'  # a custom config
  folder.mkdir(parents=True)
  (folder / 'dataset_info.json').write_text('{}')
  with pytest.raises(UsageError, match=rf'did you mean {meant}\?'):
    dataset_lib.find_folder(str(tmp_path), misspelt)


def test_the_last_version_is_found(tmp_path):
  folder = tmp_path / 'luna16_patches' / 'cube_48mm'
  for name in ('1.9.0', '1.10.0', '2.0.0.incomplete'):
    (folder / name).mkdir(parents=True)
    (folder / name / 'dataset_info.json').write_text('{}')
  found = dataset_lib.find_folder(str(tmp_path), 'cube_48mm')
  assert found == folder / '1.10.0'
  found = dataset_lib.find_folder(str(tmp_path), 'luna16_patches/cube_48mm:1.9.0')
  assert found == folder / '1.9.0'


def test_a_folder_without_a_dataset_is_refused(tmp_path):
  with pytest.raises(UsageError, match=f'{tmp_path}: no dataset in it'):
    dataset_lib.open_dataset('', str(tmp_path))


@pytest.mark.parametrize('text', ['{', '[]', '{"patch": {"shape": 3}}'])
def test_a_damaged_metadata_file_is_refused(dataset, tmp_path, text):
  folder = tmp_path / 'axial_50px_all' / '1.0.0'
  shutil.copytree(dataset.builder.data_path, folder)
  (folder / 'metadata.json').write_text(text)
  with pytest.raises(UsageError, match=r'metadata\.json: cannot be read: '):
    dataset_lib.open_dataset('', str(folder))


@pytest.mark.parametrize('name', ['dataset_info.json', 'features.json'])
@pytest.mark.parametrize('text', ['', '{', '[]', '\x00\x01'])
def test_a_damaged_file_of_tfds_is_refused(dataset, tmp_path, name, text):
  folder = tmp_path / 'luna16_patches' / 'axial_50px_all' / '1.0.0'
  shutil.copytree(dataset.builder.data_path, folder)
  (folder / name).write_text(text)
  for data_dir, dataset_name in (('', str(folder)), (str(tmp_path), 'axial_50px_all')):
    with pytest.raises(UsageError, match=f'{name}: cannot be read: .*luna16-extract'):
      dataset_lib.open_dataset(data_dir, dataset_name)


@pytest.mark.parametrize(
  ('name', 'text'),
  [
    ('dataset_info.json', '{"splits": 3}'),
    ('dataset_info.json', '{"unknown": 3}'),
    ('features.json', '{"pythonClassName": "no.such.Class"}'),
  ],
)
def test_a_file_of_tfds_with_other_content_is_refused(dataset, tmp_path, name, text):
  folder = tmp_path / 'axial_50px_all' / '1.0.0'
  shutil.copytree(dataset.builder.data_path, folder)
  (folder / name).write_text(text)
  with pytest.raises(UsageError, match=f'{folder}: .* cannot be read'):
    dataset_lib.open_dataset('', str(folder))


@pytest.mark.parametrize(
  ('before', 'after', 'split'),
  [
    ('"filepathTemplate": "{DATASET}-', '"filepathTemplate": "-{DATASET}-', 'train'),
    ('"name": "train"', '"name": "%s%n"', '%s%n'),
  ],
  ids=['file', 'split'],
)
def test_names_that_no_dataset_has_are_refused(before, after, split, dataset, tmp_path):
  folder = tmp_path / 'axial_50px_all' / '1.0.0'
  shutil.copytree(dataset.builder.data_path, folder)
  path = folder / 'dataset_info.json'
  text = path.read_text()
  assert before in text
  path.write_text(text.replace(before, after))
  (folder / record_index.RECORD_INDEX).unlink()  # it has the names, too
  opened = dataset_lib.open_dataset('', str(folder))
  with pytest.raises(
    UsageError, match=r'dataset_info\.json is damaged: .*; run luna16'
  ):
    opened.open_split(split)


@pytest.fixture
def without_index(data_dir, tmp_path):
  """The folder of a dataset as release 1.0.0 wrote it: without an index of the records."""
  from_folder = data_dir / 'luna16_patches' / 'axial_50px_all' / '1.0.0'
  folder = shutil.copytree(from_folder, tmp_path / 'axial_50px_all' / '1.0.0')
  (folder / record_index.RECORD_INDEX).unlink()
  return folder


def test_labels_are_counted_by_reading_without_an_index(without_index, opened_dataset):
  copy = dataset_lib.open_dataset('', str(without_index))
  counts = copy.open_split('train[1:9]').label_counts
  assert counts == opened_dataset.open_split('train[1:9]').label_counts


@pytest.mark.parametrize('keep', ['damaged', 'fewer'])
def test_a_damaged_shard_is_named_when_labels_are_counted(without_index, keep):
  path = min(without_index.glob('*-train.tfrecord-*'))
  content = path.read_bytes()
  if keep == 'damaged':
    path.write_bytes(content[:100] + bytes([content[100] ^ 1]) + content[101:])
  else:
    path.write_bytes(b'')
  copy = dataset_lib.open_dataset('', str(without_index))
  problem = (
    'cannot be read: record 0 ' if keep == 'damaged' else 'holds 0 records where'
  )
  with pytest.raises(JobError, match=f'{path}: {problem}'):
    copy.open_split('train[:3]')
