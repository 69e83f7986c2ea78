"""The model of a disk finds known mistakes, and does not report correct programs."""

import os
import pathlib
import shutil

import crash_states
import file_operations
import pytest

from luna_tfds.files import atomic_files


@pytest.fixture
def disk(tmp_path):
  """A folder that contains one file."""
  folder = tmp_path / 'disk'
  folder.mkdir()
  (folder / 'file').write_text('old contents')
  return folder


def recorded(program, disk):
  with file_operations.record(disk) as recording:
    program(disk)
  return recording


def trees(recording):
  return [s.tree for s in crash_states.distinct(crash_states.all_states(recording))]


def contents_of(name, recording):
  """Returns what a file can contain after a crash; None if it is not there."""
  return {tree.get(name) for tree in trees(recording)}


def test_a_write_in_place_can_be_lost_cut_or_zero(disk):
  recording = recorded(lambda d: (d / 'file').write_text('new!'), disk)
  assert contents_of('file', recording) == {
    b'old contents',
    b'',
    b'ne',
    b'new!',
    b'\0\0\0\0',
  }


def test_an_appended_row_can_be_lost_cut_or_zero(disk):
  def append(d):
    with (d / 'file').open('a') as file:
      file.write('row2')

  old = b'old contents'
  expected = {old, old + b'ro', old + b'row2', old + bytes(4)}
  assert contents_of('file', recorded(append, disk)) == expected


def test_a_rename_of_unflushed_contents_is_found(disk):
  def replace(d):
    (d / 'new').write_text('new!')
    os.replace(d / 'new', d / 'file')

  assert contents_of('file', recorded(replace, disk)) == {
    b'old contents',
    b'',
    b'ne',
    b'new!',
    b'\0\0\0\0',
  }


def test_an_atomic_write_has_two_outcomes(disk):
  recording = recorded(lambda d: atomic_files.write_text(d / 'file', 'new!'), disk)
  assert contents_of('file', recording) == {b'old contents', b'new!'}
  assert crash_states.unflushed_folders(recording) == []
  # After its end only the new one is possible.
  last = [
    state.tree['file']
    for state in crash_states.all_states(recording)
    if state.count == len(recording.operations)
  ]
  assert set(last) == {b'new!'}


def test_a_new_name_in_an_unflushed_folder_can_be_lost(disk):
  def rename(d):
    os.rename(d / 'file', d / 'other')

  recording = recorded(rename, disk)
  last = [s.tree for s in crash_states.all_states(recording) if s.count == 1]
  # Never both names and never none.
  assert {tuple(tree) for tree in last} == {('file',), ('other',)}


def test_names_are_lost_in_order_or_by_folder(disk):
  for name in 'ab':
    (disk / name).mkdir()

  def make(d):
    for name in ('a/1', 'b/2'):
      (d / name).write_text('')

  recording = recorded(make, disk)
  found = {tuple(n for n in tree if '/' in n) for tree in trees(recording)}
  assert found == {(), ('a/1',), ('b/2',), ('a/1', 'b/2')}


def test_a_flushed_file_disappears_with_its_unflushed_folder(disk):
  def make(d):
    (d / 'folder').mkdir()
    atomic_files.write_text(d / 'folder' / 'result', 'new!')

  recording = recorded(make, disk)
  assert crash_states.unflushed_folders(recording)
  last = [s.tree for s in crash_states.all_states(recording) if s.count > 5]
  assert {'folder/result' in tree for tree in last} == {True, False}


def test_flushed_folders_are_not_reported(disk):
  def make(d):
    atomic_files.make_folders(d / 'a' / 'b')
    atomic_files.write_text(d / 'a' / 'b' / 'result', 'new!')

  assert crash_states.unflushed_folders(recorded(make, disk)) == []


def test_a_deleted_folder_can_come_back(disk):
  (disk / 'folder').mkdir()
  (disk / 'folder' / 'inside').write_text('inside')
  recording = recorded(lambda d: shutil.rmtree(d / 'folder'), disk)
  found = {tuple(tree) for tree in trees(recording)}
  assert found == {
    ('file', 'folder', 'folder/inside'),
    ('file', 'folder'),
    ('file',),
  }


def test_a_link_keeps_the_contents_of_a_deleted_name(disk):
  def move(d):
    os.link(d / 'file', d / 'other')
    (d / 'file').unlink()

  for tree in trees(recorded(move, disk)):
    assert tree and set(tree.values()) == {b'old contents'}


def test_a_file_that_was_written_and_copied(disk):
  def copy(d):
    with (d / 'file').open('rb+') as file:
      file.seek(4)
      file.write(b'CONTENTS')
      file.truncate(8)
    shutil.copyfile(d / 'file', d / 'copy')

  recording = recorded(copy, disk)
  assert recording.disk_after(len(recording.operations)).tree() == {
    'copy': b'old CONT',
    'file': b'old CONT',
  }


def test_an_operation_that_is_not_recorded_is_an_error(disk):
  def write_elsewhere(d):
    import subprocess

    subprocess.run(['touch', str(d / 'unseen')], check=True)

  with pytest.raises(AssertionError, match='unseen'):
    recorded(write_elsewhere, disk)


def test_ignored_files(disk):
  with file_operations.record(disk, ignored='logs') as recording:
    (disk / 'logs').mkdir()
    (disk / 'logs' / 'a').touch()
    pathlib.Path(disk.parent / 'outside').touch()
  assert recording.operations == []


def test_a_state_is_written(disk):
  def make(d):
    (d / 'a').mkdir()
    (d / 'a' / 'b').write_text('b')

  recording = recorded(make, disk)
  for state in crash_states.distinct(crash_states.all_states(recording)):
    state.write_to(disk)
    assert file_operations.read_tree(disk) == state.tree


def test_states_that_differ_in_ignored_contents_are_one(disk):
  recording = recorded(lambda d: (d / 'temporary').write_text('text'), disk)
  states = list(crash_states.all_states(recording))
  assert len(crash_states.distinct(states)) == 5
  assert len(crash_states.distinct(states, ignored_contents='temp')) == 2
