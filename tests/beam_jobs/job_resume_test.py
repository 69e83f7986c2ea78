import fcntl
import os

import fake_data
import numpy as np
import oracles
import pytest

from beam_jobs import disk_job_folder
from beam_jobs import shard_writer
from luna_tfds import ScanError
from luna_tfds.scans import scan as scan_lib

ALL = '--config=axial_50px_all'


def incomplete(out):
  return oracles.dataset_folder(out).with_name('1.0.0.incomplete')


def uninterrupted(extract, download, tmp_path):
  """Returns the files of a dataset from a job without interruptions."""
  assert extract(download.folder, tmp_path / 'uninterrupted', ALL) == 0
  return oracles.files_of(oracles.dataset_folder(tmp_path / 'uninterrupted'))


def modification_times(folder):
  return {path.name: path.stat().st_mtime_ns for path in folder.glob('*.part')}


def test_an_unreadable_scan_fails_the_job(extract, small, out, failure):
  bad = '1.2.826.0.8'
  fake_data.truncate(small.paths[bad].with_suffix('.raw'), 2)
  assert extract(small.folder, out, ALL) == 1
  assert '1 scan cannot be read' in failure()
  assert not oracles.dataset_folder(out).exists()
  # The other scans were extracted.
  assert len(modification_times(incomplete(out))) == 4
  lost = sum(row[0] == bad for row in small.candidates)
  lines = (incomplete(out) / 'failed_scans.csv').read_text().splitlines()
  assert lines[0] == 'seriesuid,candidates_lost,reason'
  assert lines[1].startswith(f'{bad},{lost},')
  assert 'truncated' in lines[1]
  assert len(lines) == 2


def test_unreadable_scans_within_the_limit(extract, small, out, capfd):
  bad = '1.2.826.0.1'
  fake_data.truncate(small.paths[bad].with_suffix('.raw'), 2)
  assert extract(small.folder, out, ALL, '--max_failed_scans=1') == 0
  assert '1 scan could not be read, see ' in capfd.readouterr().err
  lines = (oracles.dataset_folder(out) / 'failed_scans.csv').read_text().splitlines()
  assert [line.split(',')[0] for line in lines[1:]] == [bad]
  rows = [i for i, row in enumerate(small.candidates) if row[0] != bad]
  expected = oracles.expected_of(small, rows, (1, 50, 50))
  found = oracles.records_by_key(oracles.read_dataset(oracles.dataset_folder(out)))
  assert found.keys() == expected.keys()
  for key, record in found.items():
    oracles.assert_same_record(record, expected[key])


def test_unreadable_scans_beyond_the_limit(extract, small, out, failure):
  for name in ('1.2.826.0.0', '1.2.826.0.9'):
    fake_data.truncate(small.paths[name].with_suffix('.raw'), 2)
  assert extract(small.folder, out, ALL, '--max_failed_scans=1') == 1
  assert '2 scans cannot be read' in failure()


def test_all_scans_are_unreadable(extract, small, out, failure):
  for path in small.paths.values():
    path.write_text('garbage')
  assert extract(small.folder, out, ALL, '--max_failed_scans=9') == 1
  assert 'no scan could be read' in failure()
  assert not oracles.dataset_folder(out).exists()


def test_fixed_scans_complete_the_dataset(extract, small, out, tmp_path):
  expected = uninterrupted(extract, small, tmp_path)
  data_file = small.paths['1.2.826.0.8'].with_suffix('.raw')
  content, status = data_file.read_bytes(), data_file.stat()
  times = (status.st_atime_ns, status.st_mtime_ns)
  fake_data.truncate(data_file, 2)
  assert extract(small.folder, out, ALL) == 1
  before = modification_times(incomplete(out))
  data_file.write_bytes(content)
  os.utime(data_file, ns=times)  # shard_results.json contains them
  published = []
  replace = os.replace

  def watch(source, target):
    if target.name.startswith('luna16_patches-'):
      published.append((source.name, source.stat().st_mtime_ns))
    replace(source, target)

  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(os, 'replace', watch)
    assert extract(small.folder, out, ALL) == 0
  assert len(published) == 4
  assert len(set(published) & set(before.items())) == 3
  assert oracles.files_of(oracles.dataset_folder(out)) == expected


def test_an_unreadable_scan_is_tried_again(extract, small, out, tmp_path, monkeypatch):
  open_scan = scan_lib.open_scan

  def fail(path):
    if path.stem == '1.2.826.0.1':
      raise ScanError(f'{path}: network error')
    return open_scan(path)

  with monkeypatch.context() as patch:
    patch.setattr(scan_lib, 'open_scan', fail)
    assert extract(small.folder, out, ALL) == 1
  # No file was modified in between.
  assert extract(small.folder, out, ALL) == 0
  assert oracles.files_of(oracles.dataset_folder(out)) == uninterrupted(
    extract, small, tmp_path
  )


def crash(monkeypatch, after):
  """Makes the job fail once `after` shards are written."""
  write_shard = shard_writer.write_shard
  written = []

  def fail(*arguments):
    if len(written) == after:
      raise OSError('disk error')
    written.append(arguments[0].fingerprint)
    return write_shard(*arguments)

  monkeypatch.setattr(shard_writer, 'write_shard', fail)


@pytest.mark.parametrize('after', [0, 1, 3])
def test_a_failed_job_is_resumed(
  after, extract, small, out, tmp_path, monkeypatch, failure
):
  with monkeypatch.context() as patch:
    crash(patch, after)
    assert extract(small.folder, out, ALL) == 1
  line = failure()
  assert 'disk error' in line
  assert ('finished shards are kept' in line) == (after > 0)
  assert len(modification_times(incomplete(out))) == after
  written = []
  write_shard = shard_writer.write_shard

  def watch(*arguments):
    written.append(arguments[0].fingerprint)
    return write_shard(*arguments)

  finished = {
    name.removesuffix('.part') for name in modification_times(incomplete(out))
  }
  with monkeypatch.context() as patch:
    patch.setattr(shard_writer, 'write_shard', watch)
    assert extract(small.folder, out, ALL) == 0
  assert len(written) == 4 - after
  assert not finished & set(written)
  assert oracles.files_of(oracles.dataset_folder(out)) == uninterrupted(
    extract, small, tmp_path
  )


def test_finished_shards_are_not_written_again(extract, small, out, monkeypatch):
  with monkeypatch.context() as patch:
    crash(patch, 2)
    assert extract(small.folder, out, ALL) == 1
  before = modification_times(incomplete(out))
  with monkeypatch.context() as patch:
    crash(patch, 1)
    assert extract(small.folder, out, ALL) == 1
  after = modification_times(incomplete(out))
  assert len(before) == 2
  assert len(after) == 3
  assert before.items() <= after.items()


def test_changed_candidates_are_extracted_again(
  extract, small, out, tmp_path, monkeypatch, failure
):
  with monkeypatch.context() as patch:
    crash(patch, 3)
    assert extract(small.folder, out, ALL) == 1
  rows = list(small.candidates)
  row = next(i for i, r in enumerate(rows) if r[0] == '1.2.826.0.0' and r[4] == 0)
  rows[row] = (*rows[row][:4], 1)
  fake_data.write_candidates(small.folder / 'candidates.csv', rows)
  assert extract(small.folder, out, ALL) == 0
  assert oracles.files_of(oracles.dataset_folder(out)) == uninterrupted(
    extract, small, tmp_path
  )
  labels = {
    k: r['label']
    for k, r in oracles.records_by_key(
      oracles.read_dataset(oracles.dataset_folder(out))
    ).items()
  }
  assert labels[f'1.2.826.0.0/{row}'] == 1


def test_changed_voxels_are_extracted_again(extract, small, out, tmp_path, monkeypatch):
  with monkeypatch.context() as patch:
    crash(patch, 3)
    assert extract(small.folder, out, ALL) == 1
  # Size and header are the same, so the plan does not change.
  for path in small.paths.values():
    data_file = path.with_suffix('.raw')
    voxels = np.frombuffer(data_file.read_bytes(), np.int16)
    data_file.write_bytes(voxels[::-1].tobytes())
  assert extract(small.folder, out, ALL) == 0
  assert oracles.files_of(oracles.dataset_folder(out)) == uninterrupted(
    extract, small, tmp_path
  )


@pytest.mark.parametrize(
  'name', ['finalizing', 'luna16_patches-train.tfrecord-00001-of-00002', '1.0.0']
)
def test_a_crash_while_the_dataset_is_published(
  name, extract, small, out, tmp_path, monkeypatch, failure
):
  replace = os.replace

  def fail(source, target):
    if target.name == name:
      raise OSError('power failure')
    replace(source, target)

  with monkeypatch.context() as patch:
    patch.setattr(os, 'replace', fail)
    assert extract(small.folder, out, ALL) == 1
  assert failure() == 'luna16-extract: error: power failure'
  assert not oracles.dataset_folder(out).exists()
  with monkeypatch.context() as patch:
    crash(patch, 0)  # no shard may be written again
    assert extract(small.folder, out, ALL) == 0
  assert oracles.files_of(oracles.dataset_folder(out)) == uninterrupted(
    extract, small, tmp_path
  )


def test_a_complete_dataset_is_not_changed(extract, small, out, capfd):
  assert extract(small.folder, out, ALL) == 0
  before = {p.name: p.stat().st_mtime_ns for p in oracles.dataset_folder(out).iterdir()}
  capfd.readouterr()
  assert extract(small.folder, out, ALL) == 0
  assert f'already complete: {oracles.dataset_folder(out)}' in capfd.readouterr().err
  assert {
    p.name: p.stat().st_mtime_ns for p in oracles.dataset_folder(out).iterdir()
  } == before
  assert [p.name for p in oracles.dataset_folder(out).parent.iterdir()] == ['1.0.0']


def test_other_inputs_need_overwrite(extract, small, out, tmp_path, failure):
  assert extract(small.folder, out, ALL) == 0
  before = oracles.files_of(oracles.dataset_folder(out))
  fake_data.write_candidates(small.folder / 'candidates.csv', small.candidates[:-3])
  assert extract(small.folder, out, ALL) == 2
  assert 'was made from other inputs; give --overwrite' in failure()
  assert oracles.files_of(oracles.dataset_folder(out)) == before
  assert extract(small.folder, out, ALL, '--overwrite') == 0
  assert oracles.files_of(oracles.dataset_folder(out)) == uninterrupted(
    extract, small, tmp_path
  )
  assert (
    len(oracles.records_by_key(oracles.read_dataset(oracles.dataset_folder(out))))
    == len(small.candidates) - 3
  )


def test_overwrite_keeps_the_old_dataset_until_the_new_one_is_complete(
  extract, small, out, monkeypatch
):
  assert extract(small.folder, out, ALL) == 0
  before = oracles.files_of(oracles.dataset_folder(out))
  fake_data.write_candidates(small.folder / 'candidates.csv', small.candidates[:-3])
  with monkeypatch.context() as patch:
    crash(patch, 2)
    assert extract(small.folder, out, ALL, '--overwrite') == 1
  assert oracles.files_of(oracles.dataset_folder(out)) == before


def test_a_second_job_on_the_same_dataset(extract, small, out, failure):
  path = oracles.dataset_folder(out).with_name('1.0.0.lock')
  path.parent.mkdir(parents=True)
  with path.open('a') as lock:
    fcntl.flock(lock, fcntl.LOCK_EX)
    assert extract(small.folder, out, ALL) == 1
    assert 'another job is writing' in failure()
  assert extract(small.folder, out, ALL) == 0


def test_a_shard_with_missing_records_is_not_registered(
  extract, small, out, monkeypatch, failure
):
  write_shard = shard_writer.write_shard

  def lose_one(shard, spec, seed, folder):
    (task,) = shard.tasks
    fields = ('candidate_ids', 'labels', 'centers_xyz_mm')
    shorter = type(task)(
      **{
        name: getattr(task, name)[:-1] if name in fields else getattr(task, name)
        for name in task.__dataclass_fields__
      }
    )
    fewer = type(shard)(
      shard.split,
      shard.index,
      shard.subset,
      (shorter,),
      shard.fingerprint,
      shard.task_fingerprints,
    )
    return write_shard(fewer, spec, seed, folder)

  monkeypatch.setattr(shard_writer, 'write_shard', lose_one)
  assert extract(small.folder, out, ALL) == 1
  assert 'were planned; the dataset is not registered' in failure()
  assert not oracles.dataset_folder(out).exists()


# Checks of the shards.


def test_a_flipped_byte_in_a_finished_shard_is_found_on_resume(
  extract, small, out, tmp_path, monkeypatch
):
  with monkeypatch.context() as patch:
    crash(patch, 3)
    assert extract(small.folder, out, ALL) == 1
  for path in incomplete(out).glob('*.part'):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
  assert extract(small.folder, out, ALL) == 0
  assert oracles.files_of(oracles.dataset_folder(out)) == uninterrupted(
    extract, small, tmp_path
  )


def test_a_flipped_byte_in_a_shard_is_not_registered(
  extract, small, out, monkeypatch, failure
):
  write_shard = shard_writer.write_shard

  def damage(shard, spec, seed, folder):
    result = write_shard(shard, spec, seed, folder)
    if shard.split == 'test':
      path = folder.partial_path(shard.fingerprint)
      content = bytearray(path.read_bytes())
      content[-1] ^= 1
      path.write_bytes(content)
    return result

  with monkeypatch.context() as patch:
    patch.setattr(shard_writer, 'write_shard', damage)
    assert extract(small.folder, out, ALL) == 1
  assert 'shard 0 of test is missing or damaged; finished shards are' in failure()
  assert not oracles.dataset_folder(out).exists()
  assert extract(small.folder, out, ALL) == 0


def modify(path):
  """Reverses the voxels; the size stays."""
  path.write_bytes(path.read_bytes()[::-1])


def test_a_scan_modified_while_it_is_read_is_a_failed_scan(
  extract, small, out, monkeypatch, failure
):
  open_scan = scan_lib.open_scan

  def open_and_modify(path):
    scan = open_scan(path)
    if path.stem == '1.2.826.0.1':
      modify(path.with_suffix('.raw'))
    return scan

  with monkeypatch.context() as patch:
    patch.setattr(scan_lib, 'open_scan', open_and_modify)
    assert extract(small.folder, out, ALL) == 1
  assert '1 scan cannot be read' in failure()
  line = (incomplete(out) / 'failed_scans.csv').read_text().splitlines()[1]
  assert line.startswith('1.2.826.0.1,')
  assert 'the scan was modified while it was read' in line
  assert extract(small.folder, out, ALL) == 0


def test_a_scan_modified_after_it_was_read_is_not_registered(
  extract, small, out, tmp_path, monkeypatch, failure
):
  write_shard = shard_writer.write_shard

  def write_and_modify(shard, *arguments):
    result = write_shard(shard, *arguments)
    if shard.split == 'test':
      modify(small.paths['1.2.826.0.9'].with_suffix('.raw'))
    return result

  with monkeypatch.context() as patch:
    patch.setattr(shard_writer, 'write_shard', write_and_modify)
    assert extract(small.folder, out, ALL) == 1
  assert 'its input file 1.2.826.0.9.raw was modified' in failure()
  assert extract(small.folder, out, ALL) == 0
  assert oracles.files_of(oracles.dataset_folder(out)) == uninterrupted(
    extract, small, tmp_path
  )


def test_a_header_modified_before_it_was_read_is_not_registered(
  extract, small, out, monkeypatch, failure
):
  write_shard = shard_writer.write_shard
  path = small.paths['1.2.826.0.9']

  def modify_and_write(shard, *arguments):
    if shard.split == 'test':
      fake_data.edit_header(path, 'ElementSpacing', '0.9 0.9 2')
    return write_shard(shard, *arguments)

  with monkeypatch.context() as patch:
    patch.setattr(shard_writer, 'write_shard', modify_and_write)
    assert extract(small.folder, out, ALL) == 1
  assert f'{path}: the scan was modified while the job ran; run the' in failure()
  assert extract(small.folder, out, ALL) == 0


# Rejected jobs.


def test_a_rejected_job_leaves_nothing(extract, small, out, monkeypatch, failure):
  def full(*arguments):
    raise OSError('not enough disk space')

  with monkeypatch.context() as patch:
    patch.setattr(disk_job_folder.DiskJobFolder, 'check_free_space', full)
    assert extract(small.folder, out, ALL) == 1
  assert 'not enough disk space' in failure()
  assert not out.exists()
  assert extract(small.folder, out, ALL, '--runner=NoSuchRunner') == 2
  assert not out.exists()


def test_a_rejected_job_leaves_only_the_dataset(extract, small, out, failure):
  assert extract(small.folder, out, ALL) == 0
  fake_data.write_candidates(small.folder / 'candidates.csv', small.candidates[:-3])
  assert extract(small.folder, out, ALL) == 2
  folder = oracles.dataset_folder(out).parent
  assert [path.name for path in folder.iterdir()] == ['1.0.0']


def test_a_crash_while_a_dataset_is_replaced_restores_it(
  extract, small, out, monkeypatch, failure
):
  assert extract(small.folder, out, ALL) == 0
  before = oracles.files_of(oracles.dataset_folder(out))
  replace = os.replace

  def fail(source, target):
    if source.name.endswith('.incomplete'):
      raise OSError('power failure')
    replace(source, target)

  with monkeypatch.context() as patch:
    patch.setattr(os, 'replace', fail)
    assert extract(small.folder, out, ALL, '--overwrite') == 1
  assert not oracles.dataset_folder(out).exists()
  fake_data.write_candidates(small.folder / 'candidates.csv', small.candidates[:-3])
  assert extract(small.folder, out, ALL) == 2  # the old dataset is there again
  assert oracles.files_of(oracles.dataset_folder(out)) == before


# Files on disk.


def test_nothing_is_renamed_before_it_is_on_disk(extract, small, out, monkeypatch):
  """Every file of the dataset, and its folder, is flushed before the last rename."""
  sync, replace = os.fsync, os.replace
  flushed, unflushed = set(), []

  def watch_sync(descriptor):
    status = os.fstat(descriptor)
    flushed.add((status.st_ino, status.st_mtime_ns))
    sync(descriptor)

  def watch_replace(source, target):
    if target == oracles.dataset_folder(out):
      unflushed.extend(
        path.name
        for path in [source, *source.iterdir()]
        if (path.stat().st_ino, path.stat().st_mtime_ns) not in flushed
      )
      flushed.clear()
    replace(source, target)

  monkeypatch.setattr(os, 'fsync', watch_sync)
  monkeypatch.setattr(os, 'replace', watch_replace)
  assert extract(small.folder, out, ALL) == 0
  assert unflushed == []
  # And the folder with the new name after it.
  parent = oracles.dataset_folder(out).parent.stat().st_ino
  assert parent in {inode for inode, _ in flushed}
