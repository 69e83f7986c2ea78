import json
import os
import pathlib
import re
import shutil

import fake_data
import oracles
import pytest

from luna_tfds import JobError
from luna_tfds import UsageError
from luna_tfds import tfrecord
from luna_tfds import verification


@pytest.fixture
def copy(data_dir, tmp_path):
  """A copy of a dataset that a test may damage."""
  folder = tmp_path / '1.0.0'
  shutil.copytree(oracles.dataset_folder(data_dir), folder)
  return folder


def shard_of(folder, split, index=0):
  return sorted(folder.glob(f'*-{split}.tfrecord-*'))[index]


def edit_metadata(folder, change):
  path = folder / 'metadata.json'
  fields = json.loads(path.read_text())
  change(fields)
  path.write_text(json.dumps(fields))


def leave_version_1_0_0(folder):
  """Leaves what release 1.0.0 stored."""

  def change(fields):
    del fields['shard_sha256'], fields['shard_keys_sha256']

  edit_metadata(folder, change)
  (folder / 'record_index.json').unlink()


def problem_of(folder):
  with pytest.raises(JobError) as caught:
    verification.verify(folder)
  assert '\n' not in str(caught.value)
  assert str(caught.value).startswith(f'{folder} is damaged: ')
  return str(caught.value)


def test_a_whole_dataset_passes(data_dir, download):
  done = []
  lines = verification.verify(
    oracles.dataset_folder(data_dir), lambda *numbers: done.append(numbers)
  )
  assert f': {len(download.candidates)} records in 10 shards, ' in lines[0]
  assert 'SHA-256 of every shard, keys as planned: correct' in lines[-1]
  assert done == [(number, 10) for number in range(11)]


def test_a_dataset_of_version_1_0_0_passes(copy):
  leave_version_1_0_0(copy)
  assert 'has no SHA-256' in verification.verify(copy)[-1]


def test_the_article_passes(extract, tmp_path, out):
  folder = tmp_path / 'article'
  fake_data.write_article(folder)
  shutil.copy(folder / 'valdatalabels.txt', folder / 'testdatalabels.txt')
  assert extract(folder, out, '--config=article') == 0
  lines = verification.verify(oracles.dataset_folder(out, 'article'))
  assert ': 12 records in 3 shards' in lines[0]


def test_a_dataset_without_unreadable_scans_passes(extract, small, out):
  for name in ('1.2.826.0.1', '1.2.826.0.8'):
    fake_data.truncate(small.paths[name].with_suffix('.raw'), 2)
  flags = ['--config=axial_50px_all', '--max_failed_scans=2']
  assert extract(small.folder, out, *flags) == 0
  verification.verify(oracles.dataset_folder(out))


@pytest.mark.parametrize('content', [None, 'nodule\nnon_nodule\n', 'x'])
def test_a_lost_or_changed_file_of_class_names(content, copy):
  path = copy / 'label.labels.txt'
  path.unlink()
  if content:
    path.write_text(content)
  assert 'label.labels.txt is missing or damaged' in problem_of(copy)


def test_any_flipped_byte_is_found(copy):
  path = shard_of(copy, 'test')
  content = path.read_bytes()
  for position in (0, 9, 200, len(content) // 2, len(content) - 1):
    damaged = bytearray(content)
    damaged[position] ^= 16
    path.write_bytes(damaged)
    assert f'{path.name}: record ' in problem_of(copy)


def test_other_records_with_valid_checksums_are_found(copy):
  path = shard_of(copy, 'test')
  kept = list(tfrecord.read_tfrecords(path))
  voxel = kept[0].index(b'image') + 100
  changed = kept[0][:voxel] + bytes([kept[0][voxel] ^ 1]) + kept[0][voxel + 1 :]
  tfrecord.write_tfrecords(path, [changed, *kept[1:]])
  assert f'{path.name}: its SHA-256 is not that of metadata.json' in problem_of(copy)


@pytest.mark.parametrize('with_checksums', [True, False])
def test_a_missing_and_an_additional_shard(with_checksums, copy):
  if not with_checksums:
    leave_version_1_0_0(copy)
  path = shard_of(copy, 'train', 3)
  other = path.with_name(path.name.replace('00003-of', '00009-of'))
  path.rename(other)
  line = problem_of(copy)
  assert f'{path.name} is missing' in line
  assert f'{other.name} is not a shard of the metadata' in line


def test_records_of_another_shard(copy):
  leave_version_1_0_0(copy)
  target = shard_of(copy, 'test')
  shutil.copy(shard_of(copy, 'validation'), target)
  line = problem_of(copy)
  assert f'{target.name} contains records of subsets [8]' in line
  assert 'are stored twice in the dataset' in line


def test_a_lost_record(copy):
  path = shard_of(copy, 'test')
  kept = list(tfrecord.read_tfrecords(path))
  tfrecord.write_tfrecords(path, kept[:-1])
  line = problem_of(copy)
  assert re.search(rf'{path.name} contains {len(kept) - 1} records, dataset_info', line)
  assert 'the keys of its records are not those of the plan' in line


def test_a_wrong_record_index(copy):
  path = copy / 'record_index.json'
  indexes = json.loads(path.read_text())
  indexes['test'][0]['offsets'][-1] += 1
  path.write_text(json.dumps(indexes))
  name = shard_of(copy, 'test').name
  expected = (
    f'{copy} is damaged: {name}: record_index.json does not describe its records'
  )
  assert problem_of(copy).startswith(expected)


def test_a_missing_record_index(copy):
  (copy / 'record_index.json').unlink()
  assert 'record_index.json is missing' in problem_of(copy)
  assert verification.check_files(copy)


def test_keys_of_another_plan(copy):
  def change(fields):
    fields['shard_keys_sha256']['test'][0] = 'f' * 64

  edit_metadata(copy, change)
  assert 'are not those of the plan' in problem_of(copy)


def test_class_counts_of_another_plan(copy):
  edit_metadata(copy, lambda f: f['shard_label_counts']['test'][0].reverse())
  assert 'records of each class' in problem_of(copy)


def test_something_else_than_records(copy):
  path = shard_of(copy, 'test')
  tfrecord.write_tfrecords(path, [b'no example'])
  assert f'{path}: record 0 (from 0) cannot be parsed' in problem_of(copy)


@pytest.mark.parametrize('name', ['dataset_info.json', 'metadata.json'])
@pytest.mark.parametrize('content', [None, '{'])
def test_no_dataset(name, content, copy):
  (copy / name).unlink() if content is None else (copy / name).write_text(content)
  with pytest.raises(UsageError, match=r'1\.0\.0: .*luna16-extract'):
    verification.verify(copy)


def test_damaged_metadata_can_be_repaired(copy):
  (copy / 'metadata.json').write_text('{')
  expected = 'run luna16-extract with the flags of the first run to repair it'
  with pytest.raises(UsageError, match=expected):
    verification.verify(copy)


@pytest.mark.parametrize(
  'name', ['dataset_info.json', 'features.json', 'label.labels.txt', 'metadata.json']
)
def test_a_named_pipe_is_not_waited_for(name, copy):
  (copy / name).unlink()
  os.mkfifo(copy / name)
  with pytest.raises(UsageError, match=r'1\.0\.0: '):
    verification.verify(copy)


def test_sizes_are_listed_in_bytes(copy):
  path = shard_of(copy, 'test')
  num_bytes = path.stat().st_size
  fake_data.truncate(path, 3)
  assert (
    f'test has {num_bytes - 3} bytes, dataset_info.json lists {num_bytes};'
    in problem_of(copy)
  )


def test_verification_loads_no_tensorflow(fresh_python, data_dir):
  code = """
import json, pathlib, sys
from luna_tfds import verification
verification.verify(pathlib.Path(sys.argv[1]))
print(json.dumps(sorted({'tensorflow', 'apache_beam', 'SimpleITK'} & set(sys.modules))))
"""
  folder = pathlib.Path(oracles.dataset_folder(data_dir))
  assert fresh_python(code, folder) == []
