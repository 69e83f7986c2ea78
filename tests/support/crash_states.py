"""What a disk can contain after a program was killed, or the power failed, at any moment.

    with file_operations.record(folder) as recording:
      program()
    for state in crash_states.all_states(recording):
      state.write_to(folder)
      program()  # must end as if nothing had happened

When a program is killed, what it wrote stays. After a power failure, contents that were
not flushed (`fsync` of the file) may be lost, cut or zero, although the name of the file
is there. Names that were made, changed or deleted after the last `fsync` of their folder
may be as before: all of them, those of one folder, or the last few, because a file system
with a journal keeps their order. A rename is atomic.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
import dataclasses
import enum
import pathlib
import shutil

from file_operations import ROOT
from file_operations import Disk
from file_operations import Flush
from file_operations import Operation
from file_operations import Recording
from file_operations import SetNames
from file_operations import Tree
from file_operations import Truncate
from file_operations import Write


class Damage(enum.Enum):
  """What happened to contents that were not flushed."""

  NONE = 'kept'
  LOST = 'lost'  # the contents are those of the last flush
  CUT = 'cut'  # the first half of the bytes was written
  ZEROS = 'zeros'  # the file has its new size, but the new bytes are zero


@dataclasses.dataclass(frozen=True)
class State:
  """What a disk can contain after a crash.

  Attributes:
    text: how it came about, for messages.
    count: the number of operations before the crash.
    tree: the files.
  """

  text: str
  count: int
  tree: Tree

  def write_to(self, folder: pathlib.Path) -> None:
    """Makes the contents of a folder those of this state."""
    for path in folder.iterdir():
      if path.is_dir():
        shutil.rmtree(path)
      else:
        path.unlink()
    for name, content in self.tree.items():
      if content is None:
        (folder / name).mkdir()
      else:
        (folder / name).write_bytes(content)


def all_states(recording: Recording) -> Iterator[State]:
  """Yields each state of the disk at each crash; the same state can occur often."""
  for count in range(len(recording.operations) + 1):
    done = recording.operations[:count]
    last = f'after operation {count}' + (f', {done[-1].text}' if done else '')
    damages = tuple(Damage) if _unflushed_bytes(done) else (Damage.NONE,)
    for names_text, lost in _lost_names(done):
      for damage in damages:
        disk = _disk(recording, done, lost, damage)
        text = f'{last}; {names_text}; unflushed contents {damage.value}'
        yield State(text, count, disk.tree())


def distinct(states: Iterable[State], ignored_contents: str = '') -> list[State]:
  """Returns one of each group of states with the same files.

  Args:
    states: the states.
    ignored_contents: part of the names of files whose contents make no difference.
  """
  found: dict[tuple[tuple[str, bytes | None], ...], State] = {}
  for state in states:
    key = tuple(
      (
        name,
        b'' if content and ignored_contents and ignored_contents in name else content,
      )
      for name, content in state.tree.items()
    )
    found.setdefault(key, state)
  return list(found.values())


def _unflushed_names(operations: Sequence[Operation]) -> list[int]:
  """Returns which operations changed names whose folders were not all flushed since."""
  waiting: dict[int, set[int]] = {}
  for number, operation in enumerate(operations):
    if isinstance(operation, SetNames):
      waiting[number] = {folder for folder, _, _ in operation.names}
    elif isinstance(operation, Flush):
      for folders in waiting.values():
        folders.discard(operation.node)
  return [number for number, folders in waiting.items() if folders]


def _unflushed_bytes(operations: Sequence[Operation]) -> dict[int, int]:
  """Returns the bytes written to each file since its last flush; not if there are none."""
  found: dict[int, int] = {}
  for operation in operations:
    if isinstance(operation, Flush):
      found.pop(operation.node, None)
    elif isinstance(operation, Write):
      found[operation.file] = found.get(operation.file, 0) + len(operation.data)
    elif isinstance(operation, Truncate):
      found.setdefault(operation.file, 0)
  return found


def _lost_names(operations: Sequence[Operation]) -> list[tuple[str, frozenset[int]]]:
  """Returns sets of changes of names that a power failure can undo, described."""
  pending = _unflushed_names(operations)
  found = [('names kept', frozenset[int]())]
  found += [
    (f'the last {k} changes of names lost', frozenset(pending[-k:]))
    for k in range(1, len(pending) + 1)
  ]
  of_folder: dict[int, set[int]] = {}
  for number in pending:
    for folder, _, _ in operations[number].names:
      of_folder.setdefault(folder, set()).add(number)
  if len(of_folder) > 1:
    found += [
      (
        'changes of names in one folder lost: ' + operations[min(lost)].text + ' ...',
        frozenset(lost),
      )
      for lost in of_folder.values()
    ]
  return found


def _disk(
  recording: Recording,
  done: Sequence[Operation],
  lost: frozenset[int],
  damage: Damage,
) -> Disk:
  """Returns the disk after a crash."""
  last_flush = {o.node: n for n, o in enumerate(done) if isinstance(o, Flush)}
  left = {file: count // 2 for file, count in _unflushed_bytes(done).items()}
  disk = recording.start.copy()
  for number, operation in enumerate(done):
    if isinstance(operation, SetNames) and operation.new_folder is not None:
      disk.names[operation.new_folder] = {}  # it is empty, or has no name, if lost
    if number in lost or isinstance(operation, Flush):
      continue
    if isinstance(operation, SetNames):
      disk.apply(operation)
      continue
    if number < last_flush.get(operation.file, -1) or damage is Damage.NONE:
      disk.apply(operation)
    elif damage is Damage.ZEROS:
      if isinstance(operation, Write):
        operation = dataclasses.replace(operation, data=bytes(len(operation.data)))
      disk.apply(operation)
    elif damage is Damage.CUT:
      if isinstance(operation, Write):
        data = operation.data[: left[operation.file]]
        left[operation.file] -= len(data)
        operation = dataclasses.replace(operation, data=data)
      disk.apply(operation)
  return disk


def unflushed_folders(recording: Recording) -> list[str]:
  """Returns flushes in folders that a power failure can make disappear themselves.

  What was flushed in them is then lost with them.
  """
  found = []
  for count, operation in enumerate(recording.operations, 1):
    if isinstance(operation, Flush):
      before = recording.operations[:count]
      pending = [before[i] for i in _unflushed_names(before)]
      made = {o.new_folder for o in pending if isinstance(o, SetNames)}
      if _folders_of(operation.node, recording.disk_after(count)) & made:
        found.append(operation.text)
  return found


def _folders_of(node: int, disk: Disk) -> set[int]:
  """Returns the folders that contain a file or folder, and itself."""
  found: set[int] = set()
  while node != ROOT:
    found.add(node)
    holders = [f for f, names in disk.names.items() if node in names.values()]
    if not holders:
      return set()  # deleted in the meantime
    node = holders[0]
  return found
