"""The job after a kill or a power failure at any of its file operations.

Every state that the disk can then have is restored, and the same command runs again. The
data folder must become that of an undisturbed job, byte for byte. Before that, a dataset
that has its final name must be complete: the old one or the new one.
"""

import dataclasses
import os
import shutil

import crash_states
import fake_data
import file_operations
import pytest

from luna_tfds.files import atomic_files

DATASET = 'data/luna16_patches/axial_50px_all/1.0.0/'
DEFAULT_CONFIG = 'data/luna16_patches/.config/metadata.json'


class Command:
  """An extraction command, and the folder that it changes."""

  def __init__(self, extract, folder, subsets):
    self._extract = extract
    scans = [fake_data.make_scan(s, s, shape_zyx=(4, 9, 8)) for s in subsets]
    self.download = fake_data.write_download(folder / 'luna16', scans)
    self.disk = folder / 'disk'
    self.disk.mkdir()

  def run(self, *flags):
    data_dir = self.disk / 'data'
    config = '--config=axial_50px_all'
    return self._extract(self.download.folder, data_dir, config, *flags)

  def tree(self):
    return file_operations.read_tree(self.disk)

  def data_file(self, seriesuid):
    return self.download.paths[seriesuid].with_suffix('.raw')


@pytest.fixture
def command_on(extract, tmp_path):
  """Returns a function: a `Command` on a new download with these subsets."""
  return lambda *subsets: Command(extract, tmp_path, subsets)


def registered(tree):
  """Returns the files that a reader of the dataset needs; empty if there is none."""
  files = {name: data for name, data in tree.items() if name.startswith(DATASET)}
  return {**files, DEFAULT_CONFIG: tree.get(DEFAULT_CONFIG)} if files else {}


@dataclasses.dataclass(frozen=True)
class Crashes:
  """What the disk can contain after crashes of a command.

  Attributes:
    before: files of the dataset that was there before; empty if there was none.
    expected: all files at the end of the undisturbed command.
    states: different states of the disk.
    unflushed: folders that can disappear with files in them that were flushed.
  """

  before: dict
  expected: dict
  states: list
  unflushed: list

  def damaged(self):
    """Returns the states in which a reader finds an incomplete dataset, or none."""
    after = registered(self.expected)
    found = []
    for state in self.states:
      dataset = registered(state.tree)
      if dataset not in (self.before, after, {}):
        found.append(state.text)
      if self.before and not dataset:
        moved = {n.replace('1.0.0.job/replaced/', '1.0.0/') for n in state.tree}
        if not moved >= self.before.keys():
          found.append(f'{state.text}: the old dataset is lost')
    return found

  def not_repaired(self, command, flags):
    """Returns the states after which the command has another result."""
    found = []
    for state in self.states:
      state.write_to(command.disk)
      if command.run(*flags) != 0 or command.tree() != self.expected:
        found.append(state.text)
    return found


def record_crashes(command, flags=()):
  before = registered(command.tree())
  with file_operations.record(command.disk) as recording:
    assert command.run(*flags) == 0
  every = list(crash_states.all_states(recording))
  # A rerun deletes temporary files without reading them.
  states = crash_states.distinct(every, ignored_contents='.writing-')
  print(
    f'{len(recording.operations)} file operations, {len(every)} crashes, '
    f'{len(states)} different states'
  )
  return Crashes(
    before, command.tree(), states, crash_states.unflushed_folders(recording)
  )


def check(command, flags=(), every=1):
  """Records a command, and runs it again after every n-th crash."""
  crashes = record_crashes(command, flags)
  assert registered(crashes.expected)
  assert crashes.unflushed == []
  assert crashes.damaged() == []
  tried = dataclasses.replace(crashes, states=crashes.states[::every])
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(os, 'fsync', lambda descriptor: None)
    assert tried.not_repaired(command, flags) == []
  print(f'states tried: {len(tried.states)}')


def test_some_crashes_of_a_small_job(command_on):
  check(command_on(0), every=5)


def test_files_that_are_not_flushed_are_found(command_on, monkeypatch):
  command = command_on(0)
  monkeypatch.setattr(atomic_files, '_flush', lambda path: None)
  assert record_crashes(command).damaged()


def test_a_dataset_that_is_not_moved_away_is_found(command_on, monkeypatch):
  command = command_on(0)
  assert command.run() == 0

  def delete_first(source, target):
    if source.is_dir() and source.name == '1.0.0':
      shutil.rmtree(source)
    else:
      rename(source, target)

  rename = atomic_files.rename
  monkeypatch.setattr(atomic_files, 'rename', delete_first)
  assert record_crashes(command, ['--overwrite']).damaged()


@pytest.mark.slow
def test_a_new_dataset(command_on):
  check(command_on(0, 8, 9))


@pytest.mark.slow
def test_a_dataset_that_is_overwritten(command_on):
  command = command_on(0, 8, 9)
  assert command.run() == 0
  # The new dataset differs from the old one.
  path = command.data_file('1.2.826.0.8')
  path.write_bytes(path.read_bytes()[::-1])
  check(command, ['--overwrite'])


@pytest.mark.slow
@pytest.mark.parametrize('damage', ['shard', 'metadata'])
def test_a_damaged_dataset_that_is_repaired(damage, command_on):
  command = command_on(0, 8, 9)
  assert command.run() == 0
  folder = command.disk / DATASET
  if damage == 'shard':
    fake_data.truncate(next(folder.glob('*-validation.tfrecord-*')), 1)
  else:
    (folder / 'dataset_info.json').unlink()
  check(command)


@pytest.mark.slow
def test_a_scan_that_is_repaired(command_on):
  command = command_on(0, 8, 9)
  path = command.data_file('1.2.826.0.8')
  content = path.read_bytes()
  fake_data.truncate(path, 2)
  assert command.run('--max_failed_scans=1') == 0
  path.write_bytes(content)
  check(command, ['--max_failed_scans=1'])
