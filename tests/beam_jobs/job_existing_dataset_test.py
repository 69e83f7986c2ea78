"""Jobs that find a dataset, and jobs that are rejected: what they leave on the disk."""

import fcntl

import fake_data
import fake_job
import oracles

from beam_jobs import disk_job_folder

ALL = '--config=axial_50px_all'


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
  assert oracles.files_of(oracles.dataset_folder(out)) == fake_job.uninterrupted(
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
    fake_job.fail_after(patch, 2)
    assert extract(small.folder, out, ALL, '--overwrite') == 1
  assert oracles.files_of(oracles.dataset_folder(out)) == before


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


def test_a_second_job_on_the_same_dataset(extract, small, out, failure):
  path = oracles.dataset_folder(out).with_name('1.0.0.lock')
  path.parent.mkdir(parents=True)
  with path.open('a') as lock:
    fcntl.flock(lock, fcntl.LOCK_EX)
    assert extract(small.folder, out, ALL) == 1
    assert 'another job is writing' in failure()
  assert extract(small.folder, out, ALL) == 0
