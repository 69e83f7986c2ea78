"""Jobs whose dataset is not registered, as a check of the results fails."""

import fake_data
import fake_job
import oracles

from beam_jobs import shard_writer

ALL = '--config=axial_50px_all'


def modify(path):
  """Reverses the voxels; the size stays."""
  path.write_bytes(path.read_bytes()[::-1])


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
  assert oracles.files_of(oracles.dataset_folder(out)) == fake_job.uninterrupted(
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
