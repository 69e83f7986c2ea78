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
  assert str(error) == 'the disk is full; run the same command again'


def test_errors_that_cannot_be_recorded_are_ignored(tmp_path):
  folder = disk_job_folder.DiskJobFolder(tmp_path / 'absent' / '1.0.0')
  folder.record_error('0123456789abcdef', OSError('the disk is full'))
  assert list(tmp_path.rglob('*.json')) == []
