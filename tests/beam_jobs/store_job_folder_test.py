"""The job whose dataset is in a store, here in the memory of this process."""

import contextlib
import os

import fake_data
from fake_store import contents
import pytest

from beam_jobs import disk_job_folder
from beam_jobs import job_folders
from beam_jobs import plan as plan_lib
from beam_jobs import shard_writer
from beam_jobs import store_job_folder
from luna_tfds import CONFIGS
from luna_tfds.files import store_path
from luna_tfds.files import store_requests

CONFIG = 'axial_50px_all'
DATASET = f'luna16_patches/{CONFIG}/1.0.0'


@pytest.fixture
def root(memory_url):
  return store_path.as_path(memory_url)


@pytest.fixture
def dataset(root):
  return root / DATASET


@pytest.fixture
def two_scans(tmp_path):
  """A download of two scans, hence two shards."""
  scans = [fake_data.make_scan(seed, seed) for seed in (0, 8)]
  return fake_data.write_download(tmp_path / 'luna16', scans)


@pytest.fixture
def run(extract, root):
  """Runs the job on a download."""

  def run(download, *flags, data_dir=root):
    return extract(download.folder, data_dir, f'--config={CONFIG}', *flags)

  return run


def test_the_dataset_is_that_of_a_local_job(run, two_scans, root, out):
  assert run(two_scans) == 0
  assert run(two_scans, data_dir=out) == 0
  assert contents(root) == contents(out)


@pytest.mark.slow
def test_a_complete_dataset_is_kept(run, two_scans, root, capfd):
  assert run(two_scans) == 0
  before = contents(root)
  capfd.readouterr()
  assert run(two_scans) == 0
  assert f'already complete: {root}' in capfd.readouterr().err
  assert contents(root) == before


@pytest.mark.slow
@pytest.mark.parametrize('name', ['metadata.json', 'dataset_info.json'])
def test_missing_metadata_are_written_again(run, two_scans, root, dataset, name):
  assert run(two_scans) == 0
  before = contents(root)
  (dataset / name).unlink()
  assert run(two_scans) == 0
  assert contents(root) == before


@pytest.mark.parametrize('flags', [(), ('--overwrite',)])
def test_a_damaged_info_is_written_again(run, two_scans, root, dataset, flags):
  assert run(two_scans) == 0
  before = contents(root)
  info = dataset / 'dataset_info.json'
  info.write_bytes(info.read_bytes()[:-100])
  assert run(two_scans, *flags) == 0
  assert contents(root) == before


def test_a_scan_repaired_without_a_change_of_size(run, tmp_path, root):
  scans = [fake_data.make_scan(0, 0, compressed=True), fake_data.make_scan(8, 8)]
  download = fake_data.write_download(tmp_path / 'luna16', scans)
  data_file = download.paths['1.2.826.0.0'].with_suffix('.zraw')
  data = data_file.read_bytes()
  data_file.write_bytes(data[:30] + bytes([data[30] ^ 1]) + data[31:])
  assert run(download, '--max_failed_scans=1') == 0
  assert f'{DATASET}/failed_scans.csv' in contents(root)
  data_file.write_bytes(data)
  assert run(download) == 0
  repaired = contents(root)
  root.rmtree()
  assert run(download) == 0
  assert contents(root) == repaired


@pytest.mark.slow
def test_a_damaged_shard_is_written_again(run, two_scans, root, dataset, capfd):
  assert run(two_scans) == 0
  before = contents(root)
  (shard,) = dataset.glob('*train.tfrecord-*')
  shard.write_bytes(shard.read_bytes()[:-1] + b'x')
  assert run(two_scans) == 0
  assert '1 shard to write' in capfd.readouterr().err
  assert contents(root) == before


@pytest.mark.slow
def test_other_inputs_need_overwrite(run, two_scans, root, dataset, failure):
  assert run(two_scans) == 0
  fake_data.edit_header(two_scans.paths['1.2.826.0.0'], 'AnatomicalOrientation', 'RAI')
  before = contents(root)
  assert run(two_scans) == 2
  assert 'give --overwrite' in failure()
  assert contents(root) == before
  (dataset / 'an_old_file').write_bytes(b'')
  assert run(two_scans, '--overwrite') == 0
  after = contents(root)
  assert after.keys() == before.keys()
  assert after != before


@pytest.mark.slow
def test_a_failed_scan_is_listed(run, two_scans, root, dataset, failure):
  path = two_scans.paths['1.2.826.0.0']
  data = path.with_suffix('.raw').read_bytes()
  fake_data.truncate(path.with_suffix('.raw'), 10)
  assert run(two_scans) == 1
  assert '1 scan cannot be read' in failure()
  assert not dataset.exists()
  assert run(two_scans, '--max_failed_scans=1') == 0
  assert b'truncated' in (dataset / 'failed_scans.csv').read_bytes()
  path.with_suffix('.raw').write_bytes(data)
  assert run(two_scans) == 0
  assert not (dataset / 'failed_scans.csv').exists()


class Killed(BaseException):
  """Stands for SIGKILL: no handler of the project runs."""


def before_each_write(monkeypatch, function):
  """Calls a function before each request that writes or deletes an object."""
  call = store_requests.call

  def observed(scheme, url, request):
    names = request.__code__.co_names
    if {'pipe_file', 'put_file', 'cp_file', 'rm_file', 'rm'} & set(names):
      function(url)
    return call(scheme, url, request)

  monkeypatch.setattr(store_path.store_requests, 'call', observed)


def kill_at(monkeypatch, number):
  """Ends this process, as it were, instead of its write number `number`, from 0."""
  writes = []

  def kill(url):
    if len(writes) >= number:
      raise Killed
    writes.append(url)

  before_each_write(monkeypatch, kill)
  return writes


@pytest.mark.slow
@pytest.mark.parametrize('former', [None, 'other scans', 'other voxels'])
def test_a_job_killed_at_any_write_is_continued(
  run, two_scans, tmp_path, root, dataset, monkeypatch, former
):
  other = two_scans
  if former == 'other scans':
    other = fake_data.write_download(tmp_path / 'other', [fake_data.make_scan(3, 3)])
  data_files = [path.with_suffix('.raw') for path in two_scans.paths.values()]
  voxels = {path: path.read_bytes() for path in data_files}
  flags = ('--overwrite',) if former else ()

  def write_voxels(is_reversed):
    for path, data in voxels.items():
      path.write_bytes(data[::-1] if is_reversed else data)
      os.utime(path, (1.0, 2.0 if is_reversed else 1.0))  # shard_results.json has it

  def start():
    root.rmtree()
    if former:
      write_voxels(former == 'other voxels')
      assert run(other) == 0
    write_voxels(False)

  start()
  assert run(two_scans, *flags) == 0
  expected = contents(root)
  for number in range(1000):
    start()
    old = contents(dataset)
    with monkeypatch.context() as patch:
      writes = kill_at(patch, number)
      with contextlib.suppress(Killed):
        # Beam reports what ends a worker as an error of its own.
        if run(two_scans, *flags) == 0:
          break
    # A reader finds the old dataset, none, or the new one.
    if (dataset / 'dataset_info.json').exists():
      assert contents(dataset) in (
        old,
        {
          key.removeprefix(f'{DATASET}/'): value
          for key, value in expected.items()
          if key.startswith(f'{DATASET}/')
        },
      )
    assert run(two_scans, *flags) == 0
    assert contents(root) == expected
  assert number > 10
  assert len(writes) == number


def make_plan(download):
  return plan_lib.make_plan(download.folder, CONFIGS[CONFIG])


def write_shards(folder, plan):
  config = CONFIGS[CONFIG]
  for shard in plan.shards:
    shard_writer.write_shard(shard, config.spec, config.seed, folder)


def test_a_job_with_the_same_plan_may_finish_first(
  run, two_scans, root, capfd, monkeypatch
):
  """Another job starts and ends while this one writes its last shard."""
  verified = store_job_folder.StoreJobFolder.result
  others = []

  def result(folder, shard, plan=None):
    if plan and not others and folder.finished_fingerprints():
      others.append(1)
      assert run(two_scans) == 0
    return verified(folder, shard, plan)

  monkeypatch.setattr(store_job_folder.StoreJobFolder, 'result', result)
  assert run(two_scans) == 0
  assert others
  assert 'another job has completed it' in capfd.readouterr().err
  monkeypatch.undo()
  before = contents(root)
  assert not [key for key in before if '.job' in key or '.incomplete' in key]
  assert run(two_scans) == 0
  assert contents(root) == before


@pytest.mark.slow
def test_a_job_with_the_same_plan_may_finish_before_any_write(
  run, two_scans, root, monkeypatch
):
  """Another job starts and ends just before one of the writes of this one."""
  assert run(two_scans) == 0
  expected = contents(root)
  for number in range(1000):
    root.rmtree()
    writes = []

    def run_other(url, number=number, writes=writes):
      writes.append(url)
      if len(writes) == number + 1:
        monkeypatch.undo()
        assert run(two_scans) == 0

    before_each_write(monkeypatch, run_other)
    assert run(two_scans) == 0, writes[number:]
    monkeypatch.undo()
    assert contents(root) == expected, writes[number:]
    if len(writes) <= number:
      break
  assert number > 10


def test_a_job_with_another_plan_takes_over(two_scans, tmp_path, dataset):
  other = fake_data.write_download(tmp_path / 'other', [fake_data.make_scan(3, 3)])
  first, second = make_plan(two_scans), make_plan(other)
  folder = job_folders.job_folder(dataset)
  with folder.locked(), folder.locked():
    folder.clean(first)
    write_shards(folder, first)
    folder.check_plan(first)
    folder.clean(second)
    assert not folder.finished_fingerprints()
    with pytest.raises(
      store_job_folder.JobError, match='another job with other inputs'
    ):
      folder.finalize(first, lambda path: None)
    folder.check_plan(second)
  assert not dataset.exists()


@pytest.mark.parametrize('file', ['metadata.json', 'shard_results.json'])
def test_a_job_that_was_replaced_publishes_no_mixture(
  run, two_scans, tmp_path, root, dataset, monkeypatch, file
):
  """A job with another plan starts and ends while this one writes a metadata file."""
  scans = [fake_data.make_scan(seed, seed) for seed in (1, 8)]
  other = fake_data.write_download(tmp_path / 'other', scans)
  assert run(other) == 0
  expected = contents(root)
  root.rmtree()
  copy_file = store_job_folder.atomic_files.copy_file
  others = []

  def copy_file_late(source, target):
    if source.name == file and not others:
      others.append(1)
      assert run(other) == 0
    copy_file(source, target)

  monkeypatch.setattr(store_job_folder.atomic_files, 'copy_file', copy_file_late)
  assert run(two_scans) == 1
  assert others
  assert not (dataset / 'dataset_info.json').exists()
  assert run(other) == 0
  assert contents(root) == expected


def test_a_job_that_was_replaced_leaves_the_dataset_of_the_other(
  run, two_scans, tmp_path, root, monkeypatch
):
  """A job with another plan starts and ends just before this one writes the last file."""
  scans = [fake_data.make_scan(seed, seed) for seed in (1, 8)]
  other = fake_data.write_download(tmp_path / 'other', scans)
  create = store_path.StorePath.create
  datasets = []

  def create_late(path, data):
    if not datasets:
      datasets.append(None)
      assert run(other) == 0
      datasets[0] = contents(root)
    create(path, data)

  monkeypatch.setattr(store_path.StorePath, 'create', create_late)
  assert run(two_scans) == 1
  assert contents(root) == datasets[0]


def test_the_info_of_a_job_that_was_replaced_is_replaced(
  run, two_scans, root, dataset, monkeypatch
):
  """The other one writes its dataset_info.json just before this one does."""
  assert run(two_scans) == 0
  expected = contents(root)
  root.rmtree()
  create = store_path.StorePath.create

  def create_late(path, data):
    path.write_bytes(data.replace(b'luna16', b'LUNA16'))
    (dataset / 'metadata.json').write_bytes(b'{}')
    create(path, data)

  with monkeypatch.context() as patch:
    patch.setattr(store_path.StorePath, 'create', create_late)
    assert run(two_scans) == 0
  info = f'{DATASET}/dataset_info.json'
  assert contents(root)[info] == expected[info]


def test_a_second_attempt_at_a_shard_changes_nothing(two_scans, root, dataset):
  plan = make_plan(two_scans)
  folder = job_folders.job_folder(dataset)
  folder.clean(plan)
  write_shards(folder, plan)
  before = contents(root)
  write_shards(folder, plan)
  assert contents(root) == before


def test_a_folder_on_disk_is_a_plain_job_folder(tmp_path):
  assert type(job_folders.job_folder(tmp_path)) is disk_job_folder.DiskJobFolder
