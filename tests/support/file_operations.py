"""Records what a program does to the files of a folder.

    with file_operations.record(folder) as recording:
      program()

`record` wraps Python's file functions: `open`, and those of `os`. At its end it compares
the recorded operations with the files on the disk, so that an operation it does not know
is an error.
"""

from __future__ import annotations

import builtins
from collections.abc import Iterator
import contextlib
import dataclasses
import errno
import io
import os
import pathlib
import threading
from typing import Any
from unittest import mock

# The folder that is recorded. Files and folders are numbered in order of appearance.
ROOT = 0


@dataclasses.dataclass(frozen=True)
class SetNames:
  """Names that are given, or removed, in one atomic step.

  Attributes:
    text: the operation, for messages.
    names: for each name, its folder, the name, and the file or folder; None if removed.
    new_folder: the folder that the operation makes.
  """

  text: str
  names: tuple[tuple[int, str, int | None], ...]
  new_folder: int | None = None


@dataclasses.dataclass(frozen=True)
class Write:
  """Bytes written to a file."""

  text: str
  file: int
  offset: int
  data: bytes


@dataclasses.dataclass(frozen=True)
class Truncate:
  """A change of the size of a file."""

  text: str
  file: int
  size: int


@dataclasses.dataclass(frozen=True)
class Flush:
  """An `fsync` of a file or folder."""

  text: str
  node: int


Operation = SetNames | Write | Truncate | Flush


@dataclasses.dataclass
class Disk:
  """The state of a disk.

  Attributes:
    contents: bytes of each file.
    names: for each folder, the file or folder of each name.
  """

  contents: dict[int, bytes] = dataclasses.field(default_factory=dict)
  names: dict[int, dict[str, int]] = dataclasses.field(
    default_factory=lambda: {ROOT: {}}
  )

  def copy(self) -> Disk:
    """Returns a copy that can be changed."""
    names = {folder: dict(entries) for folder, entries in self.names.items()}
    return Disk(dict(self.contents), names)

  def apply(self, operation: Operation) -> None:
    """Applies an operation."""
    if isinstance(operation, SetNames):
      if operation.new_folder is not None:
        self.names.setdefault(operation.new_folder, {})
      for folder, name, node in operation.names:
        if node is None:
          self.names.setdefault(folder, {}).pop(name, None)
        else:
          self.names.setdefault(folder, {})[name] = node
    elif isinstance(operation, Write):
      old, start = self.contents.get(operation.file, b''), operation.offset
      data = operation.data
      self.contents[operation.file] = (
        old[:start].ljust(start, b'\0') + data + old[start + len(data) :]
      )
    elif isinstance(operation, Truncate):
      old, size = self.contents.get(operation.file, b''), operation.size
      self.contents[operation.file] = old[:size].ljust(size, b'\0')

  def tree(self, folder: int = ROOT, prefix: str = '') -> Tree:
    """Returns the files by their paths; the contents of a folder are None."""
    found: Tree = {}
    for name, node in sorted(self.names[folder].items()):
      if node in self.names:
        found[prefix + name] = None
        found.update(self.tree(node, f'{prefix}{name}/'))
      else:
        found[prefix + name] = self.contents.get(node, b'')
    return found


Tree = dict[str, bytes | None]


@dataclasses.dataclass
class Recording:
  """File operations of a program in a folder.

  Attributes:
    start: the disk before; everything in it was flushed.
    operations: what the program did.
  """

  start: Disk
  operations: list[Operation] = dataclasses.field(default_factory=list)

  def disk_after(self, count: int) -> Disk:
    """Returns the disk after some operations, without a power failure."""
    disk = self.start.copy()
    for operation in self.operations[:count]:
      disk.apply(operation)
    return disk


@contextlib.contextmanager
def record(folder: pathlib.Path, ignored: str = '') -> Iterator[Recording]:
  """Records the file operations of this process in a folder.

  `fsync` is recorded and not done, as it takes longer than everything else.

  Args:
    folder: the folder; what it contains counts as flushed.
    ignored: name of files and folders that are not recorded.

  Raises:
    AssertionError: a file was changed by an operation that is not recorded.
  """
  recorder = _Recorder(folder, ignored)
  with contextlib.ExitStack() as stack:
    for module, name, function in recorder.wrappers():
      stack.enter_context(mock.patch.object(module, name, function))
    yield recorder.recording
  found = recorder.disk.tree()
  on_disk = read_tree(folder, ignored)
  different = [
    name
    for name in sorted(found.keys() | on_disk.keys())
    if found.get(name, 'missing') != on_disk.get(name, 'missing')
  ]
  assert not different, f'changed by operations that were not recorded: {different}'


def read_tree(folder: pathlib.Path, ignored: str = '') -> Tree:
  """Reads the files of a folder, as `Disk.tree` returns them."""
  return {
    str(path.relative_to(folder)): None if path.is_dir() else path.read_bytes()
    for path in sorted(folder.rglob('*'))
    if ignored not in path.relative_to(folder).parts
  }


class _RecordedFile(io.FileIO):
  """A file open for writing."""

  def __init__(self, path: Any, mode: str, recorder: _Recorder, node: int):
    super().__init__(path, mode)
    self._recorder = recorder
    self._node = node

  def write(self, data: Any) -> int:
    with self._recorder.lock:
      count = super().write(data)
      written = bytes(memoryview(data).cast('B')[:count])
      self._recorder.add_write(self._node, self.tell() - count, written)
    return count

  def truncate(self, size: int | None = None) -> int:
    with self._recorder.lock:
      new_size = super().truncate(size)
      self._recorder.add_truncate(self._node, new_size)
    return new_size


class _Recorder:
  """Wraps the file functions of Python, and follows the state of the disk."""

  def __init__(self, folder: pathlib.Path, ignored: str):
    self.lock = threading.RLock()
    self._root = os.path.realpath(folder)
    self._ignored = ignored
    self._inodes: dict[int, int] = {os.stat(folder).st_ino: ROOT}
    self._num_nodes = 1
    self.disk = Disk()
    for name, content in read_tree(folder, ignored).items():
      parent, last = self._split(os.path.join(self._root, name))
      node = self._new_node(os.path.join(self._root, name))
      self.disk.names[parent][last] = node
      if content is None:
        self.disk.names[node] = {}
      else:
        self.disk.contents[node] = content
    self.recording = Recording(self.disk.copy())
    self._open, self._os = builtins.open, {n: getattr(os, n) for n in dir(os)}

  def wrappers(self) -> list[tuple[Any, str, Any]]:
    """Returns the functions to replace: (module, name, replacement)."""
    return [
      (builtins, 'open', self.open),
      (io, 'open', self.open),
      (os, 'open', self.os_open),
      (os, 'sendfile', self._no_sendfile),
      (os, 'fsync', self.fsync),
      (os, 'fdatasync', self.fsync),
      (os, 'mkdir', self.mkdir),
      (os, 'link', self.link),
      *((os, name, self._renaming(name)) for name in ('rename', 'replace')),
      *((os, name, self._removing(name)) for name in ('unlink', 'remove', 'rmdir')),
    ]

  def open(self, file: Any, mode: str = 'r', *arguments: Any, **named: Any) -> Any:
    """Opens a file; one that can be written is recorded."""
    where = self._find(file)
    if where is None or not set(mode) & set('wax+'):
      return self._open(file, mode, *arguments, **named)
    names = ('buffering', 'encoding', 'errors', 'newline')
    options = dict(zip(names, arguments)) | named
    with self.lock:
      is_new = not os.path.exists(file)
      raw_mode = mode.replace('b', '').replace('t', '')
      raw = _RecordedFile(file, raw_mode, self, 0)
      if is_new:
        raw._node = self._add_new_name(file, where)
      else:
        raw._node = self.disk.names[where[0]][where[1]]
        if 'w' in mode:
          self.add_truncate(raw._node, 0)
    if 'b' in mode and options.get('buffering') == 0:
      return raw
    buffered = io.BufferedRandom(raw) if '+' in mode else io.BufferedWriter(raw)
    if 'b' in mode:
      return buffered
    text = {name: options.get(name) for name in names[1:]}
    return io.TextIOWrapper(buffered, **text)

  def os_open(self, path: Any, flags: int, *arguments: Any, **named: Any) -> int:
    """Opens a file; writing through this function is not recorded."""
    assert not flags & (os.O_WRONLY | os.O_RDWR) or self._find(path) is None, path
    descriptor: int = self._os['open'](path, flags, *arguments, **named)
    return descriptor

  def fsync(self, descriptor: int) -> None:
    """Records that a file or folder is flushed."""
    with self.lock:
      node = self._inodes.get(os.fstat(descriptor).st_ino)
      if node is not None:
        self._add(Flush(f'flush {self._text(node)}', node))

  def mkdir(self, path: Any, *arguments: Any, **named: Any) -> None:
    """Makes a folder."""
    with self.lock:
      self._os['mkdir'](path, *arguments, **named)
      where = self._find(path)
      if where is not None:
        self._add_new_name(path, where, is_folder=True)

  def link(self, source: Any, target: Any) -> None:
    """Gives a file a second name."""
    with self.lock:
      self._os['link'](source, target)
      old, new = self._find(source), self._find(target)
      if new is not None:
        assert old is not None, source
        node = self.disk.names[old[0]][old[1]]
        self._add(SetNames(f'link {self._text(node)} {new[1]}', ((*new, node),)))

  def _renaming(self, function: str) -> Any:
    def rename(source: Any, target: Any) -> None:
      with self.lock:
        self._os[function](source, target)
        old, new = self._find(source), self._find(target)
        assert (old is None) == (new is None), (source, target)
        if old is not None and new is not None:
          node = self.disk.names[old[0]][old[1]]
          text = f'rename {self._text(node)} {new[1]}'
          self._add(SetNames(text, ((*old, None), (*new, node))))

    return rename

  def _removing(self, function: str) -> Any:
    def remove(path: Any, *, dir_fd: int | None = None) -> None:
      with self.lock:
        where = self._find(path, dir_fd)
        self._os[function](path, dir_fd=dir_fd)
        if where is not None:
          text = f'{function} {self._text(where[0])}/{where[1]}'
          self._add(SetNames(text, ((*where, None),)))

    return remove

  def _no_sendfile(self, *unused: Any) -> int:
    raise OSError(errno.ENOTSUP, 'not recorded')  # `shutil` then reads and writes

  def add_write(self, node: int, offset: int, data: bytes) -> None:
    """Records bytes; those of one file that follow each other are one operation."""
    last = self.recording.operations[-1] if self.recording.operations else None
    if (
      isinstance(last, Write)
      and last.file == node
      and offset == last.offset + len(last.data)
    ):
      self.recording.operations.pop()
      offset, data = last.offset, last.data + data
    self._add(Write(f'write {self._text(node)}', node, offset, data))

  def add_truncate(self, node: int, size: int) -> None:
    """Records a new size."""
    if len(self.disk.contents.get(node, b'')) != size:
      self._add(Truncate(f'truncate {self._text(node)}', node, size))

  def _add_new_name(
    self, path: Any, where: tuple[int, str], is_folder: bool = False
  ) -> int:
    node = self._new_node(path)
    text = f'{"mkdir" if is_folder else "create"} {self._text(where[0])}/{where[1]}'
    self._add(SetNames(text, ((*where, node),), node if is_folder else None))
    return node

  def _add(self, operation: Operation) -> None:
    self.recording.operations.append(operation)
    self.disk.apply(operation)

  def _new_node(self, path: Any) -> int:
    node = self._num_nodes
    self._num_nodes += 1
    self._inodes[os.stat(path).st_ino] = node
    return node

  def _find(self, path: Any, dir_fd: int | None = None) -> tuple[int, str] | None:
    """Returns the folder and the name of a path; None if it is not recorded."""
    if dir_fd is not None:
      folder = self._inodes.get(os.fstat(dir_fd).st_ino)
      return None if folder is None else (folder, os.fspath(path))
    if isinstance(path, int):
      return None
    parent, name = os.path.split(os.path.abspath(os.fsdecode(path)))
    return self._split(os.path.join(os.path.realpath(parent), name))

  def _split(self, path: str) -> tuple[int, str] | None:
    relative = os.path.relpath(path, self._root).split(os.sep)
    if relative[0] in (os.pardir, os.curdir) or self._ignored in relative:
      return None
    folder = ROOT
    for name in relative[:-1]:
      if name not in self.disk.names[folder]:
        return None
      folder = self.disk.names[folder][name]
    return folder, relative[-1]

  def _text(self, node: int) -> str:
    for folder, names in self.disk.names.items():
      for name, of_name in names.items():
        if of_name == node:
          return name if folder == ROOT else f'{self._text(folder)}/{name}'
    return '.' if node == ROOT else 'a deleted file'
