import os
import pickle

import fake_data
import fake_job
import pytest

from beam_jobs import disk_job_folder
from beam_jobs import plan as plan_lib
from beam_jobs import shard_result
from beam_jobs import shard_writer
from luna_tfds import JobError
from luna_tfds import UsageError
from luna_tfds.files import atomic_files

CONFIG = fake_job.CONFIG


def test_result_is_restored_from_json(one_shard, folder):
  _, result = fake_job.write_shard(one_shard, folder)
  failed = shard_result.FailedScan('1.2.3', 7, 'truncated')
  result.stats.failed.append(failed)
  again = shard_result.ShardResult.from_json(result.to_json())
  assert again == result
  assert again.stats.failed == [failed]


def test_results_of_finished_shards_are_stored(one_shard, folder):
  plan = plan_lib.make_plan(one_shard.folder, CONFIG)
  (shard,) = plan.shards
  assert folder.result(shard, plan) is None
  _, result = fake_job.write_shard(one_shard, folder)
  assert folder.result(shard, plan) == result
  assert folder.finished_fingerprints() == {shard.fingerprint}


@pytest.mark.parametrize(
  'damage',
  [
    'truncated',
    'deleted',
    'invalid_json',
    'old_format',
    'invalidated',
    'modified_scan',
  ],
)
def test_damaged_or_outdated_shards_have_no_result(damage, one_shard, folder):
  plan = plan_lib.make_plan(one_shard.folder, CONFIG)
  shard, _ = fake_job.write_shard(one_shard, folder)
  if damage == 'truncated':
    fake_data.truncate(folder.partial_path(shard.fingerprint), 1)
  elif damage == 'deleted':
    folder.partial_path(shard.fingerprint).unlink()
  elif damage == 'invalid_json':
    (folder.state_dir / f'{shard.fingerprint}.json').write_text('{')
  elif damage == 'old_format':
    (folder.state_dir / f'{shard.fingerprint}.json').write_text('{"num_bytes": 1}')
  elif damage == 'invalidated':
    folder.invalidate(shard)
  else:
    os.utime(one_shard.paths['1.2.826.0.1'].with_suffix('.raw'), ns=(1, 1))
  assert folder.result(shard, plan) is None


def test_shard_specs_reach_the_workers(one_shard, folder):
  plan = plan_lib.make_plan(one_shard.folder, CONFIG)
  folder.clean(plan)
  (shard,) = plan.shards
  name = pickle.loads(pickle.dumps(folder)).write_shard_spec(shard)
  loaded = folder.read_shard_spec(name)
  assert loaded.fingerprint == shard.fingerprint
  result = shard_writer.write_shard(loaded, CONFIG.spec, 0, folder)
  assert shard_writer.write_shard(shard, CONFIG.spec, 0, folder) == result
  # A runner may process the shard again.
  assert folder.read_shard_spec(name).fingerprint == shard.fingerprint


def test_clean_keeps_only_finished_shards_of_the_plan(one_shard, folder):
  shard, _ = fake_job.write_shard(one_shard, folder)
  (folder.incomplete / 'stale.part').write_bytes(b'x')
  for path in (
    folder.partial_path(shard.fingerprint),
    folder.state_dir / f'{shard.fingerprint}.json',
  ):
    # As left by a killed worker.
    atomic_files.atomic_write(path).__enter__().write_bytes(b'x')
  (folder.state_dir / 'stale.json').write_text('{}')
  folder.clean(plan_lib.make_plan(one_shard.folder, CONFIG))
  assert [path.name for path in folder.incomplete.iterdir()] == [
    f'{shard.fingerprint}.part'
  ]
  assert sorted(path.name for path in folder.state_dir.iterdir()) == sorted(
    [f'{shard.fingerprint}.json']
  )


def test_a_second_job_is_excluded(folder):
  with pytest.raises(JobError, match='another job is writing'), folder.locked():
    raise AssertionError('two jobs at once')


def test_a_folder_that_cannot_be_written(tmp_path):
  (tmp_path / 'file').touch()
  folder = disk_job_folder.DiskJobFolder(tmp_path / 'file' / '1.0.0')
  with (
    pytest.raises(UsageError, match=r'cannot be written.* give a writable --data_dir'),
    folder.locked(),
  ):
    raise AssertionError('locked a folder that cannot exist')


def test_progress_is_the_number_of_scans(one_shard, folder):
  folder.record_progress('first', 2)
  folder.record_progress('second', 1)
  folder.record_progress('first', 3)
  assert folder.num_scans_in_progress() == 6
  assert folder.finished_fingerprints() == set()
  shard, _ = fake_job.write_shard(one_shard, folder)
  assert folder.num_scans_in_progress() == 0
  assert folder.finished_fingerprints() == {shard.fingerprint}


def test_a_result_that_is_being_written_is_not_finished(folder):
  path = folder.state_dir / '0123456789abcdef.json'
  with atomic_files.atomic_write(path) as temporary:
    temporary.write_text('{}')
    assert folder.finished_fingerprints() == set()
  assert folder.finished_fingerprints() == {'0123456789abcdef'}


def test_errors_of_workers_are_recorded(one_shard, folder):
  (shard,) = plan_lib.make_plan(one_shard.folder, CONFIG).shards
  assert folder.recorded_error(shard) is None
  folder.record_error(shard.fingerprint, UsageError('a.jpg: no image'))
  error = folder.recorded_error(shard)
  assert isinstance(error, UsageError)
  assert str(error) == 'a.jpg: no image'
  folder.record_error(shard.fingerprint, OSError('the disk is full'))
  error = folder.recorded_error(shard)
  assert isinstance(error, JobError)
  assert str(error).startswith('the disk is full; finished shards are kept in ')


def test_errors_that_cannot_be_recorded_are_ignored(tmp_path):
  folder = disk_job_folder.DiskJobFolder(tmp_path / 'absent' / '1.0.0')
  folder.record_error('0123456789abcdef', OSError('the disk is full'))
  assert list(tmp_path.rglob('*.json')) == []


def test_enough_free_space_is_no_error(folder):
  folder.check_free_space(1)
  with pytest.raises(OSError, match='not enough disk space: 1e\\+09 GB needed'):
    folder.check_free_space(10**18)


@pytest.mark.parametrize('existing', [False, True])
def test_finalize_publishes_shards_and_metadata(existing, one_shard, folder):
  plan = plan_lib.make_plan(one_shard.folder, CONFIG)
  shard, result = fake_job.write_shard(one_shard, folder)
  content = folder.partial_path(shard.fingerprint).read_bytes()
  if existing:
    folder.final.mkdir()
    (folder.final / 'old').touch()

  def write_metadata(path):
    (path / 'metadata.json').write_text('{}')

  folder.finalize(plan, write_metadata)
  assert sorted(path.name for path in folder.final.parent.iterdir()) == [
    '1.0.0',
    '1.0.0.lock',
  ]
  name = 'luna16_patches-train.tfrecord-00000-of-00001'
  assert {path.name for path in folder.final.iterdir()} == {name, 'metadata.json'}
  assert (folder.final / name).read_bytes() == content
  assert len(content) == result.num_bytes
