import fake_job
import pytest

from beam_jobs import disk_job_folder
from beam_jobs import plan as plan_lib
from luna_tfds import JobError
from luna_tfds import UsageError
from luna_tfds.files import atomic_files

CONFIG = fake_job.CONFIG


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


def test_enough_free_space_is_no_error(folder):
  folder.check_free_space(1)
  with pytest.raises(
    OSError, match=r'space: 1e\+06 TB and a reserve of 67.1 MB needed, .*B free;'
  ):
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
