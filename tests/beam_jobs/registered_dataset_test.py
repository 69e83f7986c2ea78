"""What a rerun of the command does with a dataset that is registered already."""

import json
import os

import fake_data
import oracles
import pytest
import tensorflow_datasets as tfds

from beam_jobs import registered_dataset
from beam_jobs import shard_writer
from luna_tfds import Builder

ALL = '--config=axial_50px_all'


@pytest.fixture
def written(monkeypatch):
  """The splits and indices of the shards that are written from here on."""
  write_shard = shard_writer.write_shard
  found = []

  def watch(shard, *arguments):
    found.append((shard.split, shard.index))
    return write_shard(shard, *arguments)

  monkeypatch.setattr(shard_writer, 'write_shard', watch)
  return found


@pytest.fixture
def dataset(extract, small, out, capfd):
  """The folder of a registered dataset."""
  assert extract(small.folder, out, ALL) == 0
  capfd.readouterr()
  return oracles.dataset_folder(out)


def shard_of(dataset, split):
  return sorted(dataset.glob(f'*-{split}.tfrecord-*'))[0]


def flip_voxels(path):
  """Changes a voxel and keeps size and times, as a restored backup may."""
  status = path.stat()
  content = bytearray(path.read_bytes())
  content[::2] = bytes(byte ^ 1 for byte in content[::2])
  path.write_bytes(content)
  os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def delete(path):
  path.unlink()


def shorten(path):
  fake_data.truncate(path, 3)


def flip_byte(path):
  content = bytearray(path.read_bytes())
  content[len(content) // 2] ^= 1
  path.write_bytes(content)


@pytest.mark.parametrize('damage', [delete, shorten, flip_byte])
def test_a_damaged_shard_is_repaired(
  damage, extract, small, out, dataset, written, capfd
):
  before = oracles.files_of(dataset)
  damage(shard_of(dataset, 'test'))
  assert extract(small.folder, out, ALL) == 0
  assert written == [('test', 0)]
  assert oracles.files_of(dataset) == before
  assert 'files are missing or damaged; 1 shard to write' in capfd.readouterr().err
  assert [path.name for path in dataset.parent.iterdir()] == ['1.0.0']


@pytest.mark.parametrize(
  ('name', 'damage'),
  [
    ('metadata.json', shorten),
    ('metadata.json', delete),
    ('dataset_info.json', delete),
    ('dataset_info.json', shorten),
    ('features.json', shorten),
    ('features.json', delete),
    ('record_index.json', shorten),
    ('record_index.json', delete),
  ],
)
def test_damaged_metadata_are_repaired(
  name, damage, extract, small, out, dataset, written
):
  before = oracles.files_of(dataset)
  damage(dataset / name)
  assert extract(small.folder, out, ALL) == 0
  assert written == []
  assert oracles.files_of(dataset) == before


@pytest.mark.parametrize('name', ['metadata.json', 'features.json'])
def test_a_named_pipe_is_replaced(name, extract, small, out, dataset, written):
  before = oracles.files_of(dataset)
  (dataset / name).unlink()
  os.mkfifo(dataset / name)
  assert extract(small.folder, out, ALL) == 0
  assert written == []
  assert oracles.files_of(dataset) == before


@pytest.mark.parametrize('content', ['[]', 'null', '{}', '{"shard_sha256": 3}'])
def test_metadata_without_their_fields_are_repaired(
  content, extract, small, out, dataset, written
):
  before = oracles.files_of(dataset)
  (dataset / 'metadata.json').write_text(content)
  assert extract(small.folder, out, ALL) == 0
  assert written == []
  assert oracles.files_of(dataset) == before


@pytest.mark.parametrize('content', ['', '[]', '{}', 'null'])
def test_lost_results_of_the_shards_are_restored(
  content, extract, small, out, dataset, written
):
  before = oracles.files_of(dataset)
  (dataset / 'shard_results.json').write_text(content)
  flip_byte(shard_of(dataset, 'test'))
  assert extract(small.folder, out, ALL) == 0
  assert len(written) == 4
  assert oracles.files_of(dataset) == before


@pytest.mark.parametrize(
  ('name', 'value'),
  [
    ('split', {}),
    ('index', '0'),
    ('num_bytes', None),
    ('inputs', []),
    ('inputs', [{'seriesuid': 1, 'fingerprint': '', 'files': []}]),
    ('record_index', {'num_records': float('inf')}),
  ],
)
def test_results_of_another_type_are_restored(
  name, value, extract, small, out, dataset
):
  before = oracles.files_of(dataset)
  path = dataset / 'shard_results.json'
  fields = json.loads(path.read_text())
  fields[1][name] = value
  path.write_text(json.dumps(fields))
  flip_byte(shard_of(dataset, 'test'))
  code = extract(small.folder, out, ALL)
  if (name, value) == ('inputs', []):  # of another job
    assert code == 2
  else:
    assert code == 0
    assert oracles.files_of(dataset) == before


@pytest.mark.parametrize('content', ['', '{}', 'null'])
def test_a_damaged_dataset_info_is_repaired(content, extract, small, out, dataset):
  before = oracles.files_of(dataset)
  (dataset / 'dataset_info.json').write_text(content)
  assert extract(small.folder, out, ALL) == 0
  assert oracles.files_of(dataset) == before


def test_overwrite_writes_every_shard_again(extract, small, out, dataset, written):
  before = oracles.files_of(dataset)
  flip_voxels(small.paths['1.2.826.0.9'].with_suffix('.raw'))
  assert extract(small.folder, out, ALL, '--overwrite') == 0
  assert len(written) == 4
  after = oracles.files_of(dataset)
  assert {name for name in before if before[name] != after[name]} == {
    shard_of(dataset, 'test').name,
    'metadata.json',
    'shard_results.json',
  }
  found = oracles.records_by_key(oracles.read_dataset(dataset))
  expected = oracles.expected_of(small, range(len(small.candidates)), (1, 50, 50))
  for key, record in found.items():
    oracles.assert_same_record(record, expected[key])


def test_force_redownload_writes_every_shard_again(small, out, dataset, written):
  flip_voxels(small.paths['1.2.826.0.9'].with_suffix('.raw'))
  before = oracles.files_of(dataset)
  builder = Builder(config='axial_50px_all', data_dir=str(out))
  builder.download_and_prepare(
    download_config=tfds.download.DownloadConfig(
      manual_dir=str(small.folder),
      download_mode=tfds.download.GenerateMode.FORCE_REDOWNLOAD,
    )
  )
  assert len(written) == 4
  assert oracles.files_of(dataset) != before


def test_an_interrupted_overwrite_is_resumed(
  extract, small, out, dataset, monkeypatch, failure
):
  write_shard = shard_writer.write_shard
  written = []

  def fail_after(count):
    def write(shard, *arguments):
      if len(written) == count:
        raise OSError('disk error')
      written.append((shard.split, shard.index))
      return write_shard(shard, *arguments)

    return write

  for count in (2, 4):
    monkeypatch.setattr(shard_writer, 'write_shard', fail_after(count))
    assert extract(small.folder, out, ALL, '--overwrite') == int(count == 2)
  assert sorted(written) == [('test', 0), ('train', 0), ('train', 1), ('validation', 0)]


def test_shards_of_an_interrupted_repair_are_not_reused_by_overwrite(
  extract, small, out, dataset, written, monkeypatch
):
  shard_of(dataset, 'test').unlink()
  with monkeypatch.context() as patch:
    patch.setattr(shard_writer, 'write_shard', lambda *a: 1 / 0)
    assert extract(small.folder, out, ALL) == 1
  assert extract(small.folder, out, ALL, '--overwrite') == 0
  assert len(written) == 4


def test_a_modified_scan_needs_overwrite(extract, small, out, dataset, failure):
  before = oracles.files_of(dataset)
  path = small.paths['1.2.826.0.8'].with_suffix('.raw')
  flip_byte(path)
  assert extract(small.folder, out, ALL) == 2
  line = failure()
  assert f'{dataset} is older than the input file {path.name}' in line
  assert 'give --overwrite' in line
  assert oracles.files_of(dataset) == before
  assert [path.name for path in dataset.parent.iterdir()] == ['1.0.0']
  assert extract(small.folder, out, ALL, '--overwrite') == 0


# Scans that could not be read.


@pytest.fixture
def broken(small):
  """The data file of a scan that is truncated, and its contents."""
  path = small.paths['1.2.826.0.8'].with_suffix('.raw')
  content = path.read_bytes()
  fake_data.truncate(path, 2)
  return path, content


def test_a_repaired_scan_is_added(extract, small, out, tmp_path, broken, written):
  path, content = broken
  assert extract(small.folder, out, ALL, '--max_failed_scans=1') == 0
  assert oracles.dataset_folder(out).joinpath('failed_scans.csv').exists()
  path.write_bytes(content)
  del written[:]
  assert extract(small.folder, out, ALL) == 0
  assert written == [('validation', 0)]
  assert extract(small.folder, tmp_path / 'undisturbed', ALL) == 0
  assert oracles.files_of(oracles.dataset_folder(out)) == oracles.files_of(
    oracles.dataset_folder(tmp_path / 'undisturbed')
  )


def test_a_scan_that_still_fails_leaves_the_dataset(
  extract, small, out, broken, written, capfd
):
  flags = [ALL, '--max_failed_scans=1']
  assert extract(small.folder, out, *flags) == 0
  dataset = oracles.dataset_folder(out)
  before = {path.name: path.stat().st_mtime_ns for path in dataset.iterdir()}
  del written[:]
  capfd.readouterr()
  assert extract(small.folder, out, *flags) == 0
  assert written == [('validation', 0)]
  err = capfd.readouterr().err
  assert f'nothing changed: {dataset}' in err
  assert 'wrote' not in err
  assert '1 scan could not be read, see ' in err
  assert {path.name: path.stat().st_mtime_ns for path in dataset.iterdir()} == before
  assert [path.name for path in dataset.parent.iterdir()] == ['1.0.0']


def test_a_stricter_limit_reports_the_missing_scans(
  extract, small, out, broken, failure
):
  assert extract(small.folder, out, ALL, '--max_failed_scans=1') == 0
  before = oracles.files_of(oracles.dataset_folder(out))
  assert extract(small.folder, out, ALL) == 1
  line = failure()
  assert '1 scan cannot be read' in line
  assert 'more than --max_failed_scans=0' in line
  assert oracles.files_of(oracles.dataset_folder(out)) == before


def test_other_changes_beside_a_repaired_scan_need_overwrite(
  extract, small, out, broken, failure
):
  assert extract(small.folder, out, ALL, '--max_failed_scans=1') == 0
  path, content = broken
  path.write_bytes(content)
  flip_byte(small.paths['1.2.826.0.1'].with_suffix('.raw'))
  assert extract(small.folder, out, ALL) == 2
  assert 'is older than the input file 1.2.826.0.1.raw' in failure()


# Datasets of release 1.0.0.


@pytest.fixture
def old_dataset(dataset):
  """A dataset without the files and keys that were added later."""
  for name in ('shard_results.json', 'record_index.json'):
    (dataset / name).unlink()
  path = dataset / 'metadata.json'
  fields = json.loads(path.read_text())
  del fields['shard_sha256'], fields['shard_keys_sha256']
  path.write_text(json.dumps(fields))
  return dataset


def test_an_old_dataset_is_complete(extract, small, out, old_dataset, written, capfd):
  before = oracles.files_of(old_dataset)
  assert extract(small.folder, out, ALL) == 0
  assert 'already complete' in capfd.readouterr().err
  assert written == []
  assert oracles.files_of(old_dataset) == before


def test_a_damaged_old_dataset_is_written_again(
  extract, small, out, old_dataset, written
):
  shorten(shard_of(old_dataset, 'test'))
  assert extract(small.folder, out, ALL) == 0
  assert len(written) == 4
  found = oracles.records_by_key(oracles.read_dataset(old_dataset))
  assert len(found) == len(small.candidates)


@pytest.mark.parametrize(
  ('content', 'expected'),
  [
    ('{"fingerprint": "abc"}', 'abc'),
    ('{"fingerprint": "abc", "patch": 5}', 'abc'),
    ('{}', None),
    ('{', None),
    ('[]', None),
    (None, None),
  ],
)
def test_fingerprint_of_a_dataset_with_damaged_metadata(content, expected, tmp_path):
  if content is not None:
    (tmp_path / 'metadata.json').write_text(content)
  assert registered_dataset.read(tmp_path).fingerprint == expected
