"""Jobs that failed, and continue when the same command runs again."""

import os

import fake_data
import fake_job
import numpy as np
import oracles
import pytest

from beam_jobs import shard_writer

ALL = '--config=axial_50px_all'


@pytest.mark.parametrize('after', [0, 1, 3])
def test_a_failed_job_is_resumed(
  after, extract, small, out, tmp_path, monkeypatch, failure
):
  with monkeypatch.context() as patch:
    fake_job.fail_after(patch, after)
    assert extract(small.folder, out, ALL) == 1
  line = failure()
  assert 'disk error' in line
  assert ('finished shards are kept' in line) == (after > 0)
  assert len(fake_job.part_times(oracles.incomplete_folder(out))) == after
  written = []
  write_shard = shard_writer.write_shard

  def watch(*arguments):
    written.append(arguments[0].fingerprint)
    return write_shard(*arguments)

  finished = {
    name.removesuffix('.part')
    for name in fake_job.part_times(oracles.incomplete_folder(out))
  }
  with monkeypatch.context() as patch:
    patch.setattr(shard_writer, 'write_shard', watch)
    assert extract(small.folder, out, ALL) == 0
  assert len(written) == 4 - after
  assert not finished & set(written)
  assert oracles.files_of(oracles.dataset_folder(out)) == fake_job.uninterrupted(
    extract, small, tmp_path
  )


def test_finished_shards_are_not_written_again(extract, small, out, monkeypatch):
  with monkeypatch.context() as patch:
    fake_job.fail_after(patch, 2)
    assert extract(small.folder, out, ALL) == 1
  before = fake_job.part_times(oracles.incomplete_folder(out))
  with monkeypatch.context() as patch:
    fake_job.fail_after(patch, 1)
    assert extract(small.folder, out, ALL) == 1
  after = fake_job.part_times(oracles.incomplete_folder(out))
  assert len(before) == 2
  assert len(after) == 3
  assert before.items() <= after.items()


def test_changed_candidates_are_extracted_again(
  extract, small, out, tmp_path, monkeypatch, failure
):
  with monkeypatch.context() as patch:
    fake_job.fail_after(patch, 3)
    assert extract(small.folder, out, ALL) == 1
  rows = list(small.candidates)
  row = next(i for i, r in enumerate(rows) if r[0] == '1.2.826.0.0' and r[4] == 0)
  rows[row] = (*rows[row][:4], 1)
  fake_data.write_candidates(small.folder / 'candidates.csv', rows)
  assert extract(small.folder, out, ALL) == 0
  assert oracles.files_of(oracles.dataset_folder(out)) == fake_job.uninterrupted(
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
    fake_job.fail_after(patch, 3)
    assert extract(small.folder, out, ALL) == 1
  # Size and header are the same, so the plan does not change.
  for path in small.paths.values():
    data_file = path.with_suffix('.raw')
    voxels = np.frombuffer(data_file.read_bytes(), np.int16)
    data_file.write_bytes(voxels[::-1].tobytes())
  assert extract(small.folder, out, ALL) == 0
  assert oracles.files_of(oracles.dataset_folder(out)) == fake_job.uninterrupted(
    extract, small, tmp_path
  )


def test_a_flipped_byte_in_a_finished_shard_is_found_on_resume(
  extract, small, out, tmp_path, monkeypatch
):
  with monkeypatch.context() as patch:
    fake_job.fail_after(patch, 3)
    assert extract(small.folder, out, ALL) == 1
  for path in oracles.incomplete_folder(out).glob('*.part'):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
  assert extract(small.folder, out, ALL) == 0
  assert oracles.files_of(oracles.dataset_folder(out)) == fake_job.uninterrupted(
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
    fake_job.fail_after(patch, 0)  # no shard may be written again
    assert extract(small.folder, out, ALL) == 0
  assert oracles.files_of(oracles.dataset_folder(out)) == fake_job.uninterrupted(
    extract, small, tmp_path
  )


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
