"""Paths in object stores: `s3://bucket/key`, `gs://bucket/key` and other fsspec URLs.

A `StorePath` is a `pathlib.Path` whose methods ask a store instead of the local file
system. So code that is given a path works with both. What a store does not have is left
out or replaced:

- There are no folders. A folder exists if an object is in it; making one does nothing.
- An object is written by one request, complete or not at all, and never changed in place.
- There is no rename and no lock. `copy_to` copies within the store.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
import concurrent.futures
import errno
import fnmatch
import io
import os
import pathlib
import stat as stat_lib
from typing import IO, Any, NoReturn, TypeVar

from luna_tfds.files import store_requests
from luna_tfds.files import store_urls
from luna_tfds.files.store_objects import ObjectStat
from luna_tfds.files.store_objects import open_object
from luna_tfds.files.store_requests import StoreError

_Item = TypeVar('_Item')
_T = TypeVar('_T')

# fsspec's stores that write an object only if there is none of its name.
_CREATING_SCHEMES = (*store_urls.BUCKET_SCHEMES, 'memory')

# The largest object that S3 accepts in one request.
_MAX_PUT_BYTES = 5 * 2**30

_READ_BUFFER_BYTES = 2**20


class StorePath(pathlib.PosixPath):
  """An object in a store, or a prefix of objects.

  It has the methods of `pathlib.Path` that this project uses; the others of them raise
  `io.UnsupportedOperation`. `os.fspath` raises TypeError, so that no library takes it for
  the name of a local file.
  """

  # Stored as the local path `/s3:/bucket/key`, so that the rules of `pathlib` for parts,
  # parents and suffixes hold.

  def __str__(self) -> str:
    scheme, parts = self._scheme_and_parts()
    return f'{scheme}://{"/".join(parts)}' if scheme else '/'.join(parts)

  def __repr__(self) -> str:
    return f'StorePath({str(self)!r})'

  def __fspath__(self) -> str:
    raise TypeError(f'{self} is not a local file')

  def __reduce__(self) -> tuple[Any, ...]:
    return as_path, (str(self),)

  def __hash__(self) -> int:
    return hash(self.parts)

  def __eq__(self, other: object) -> bool:
    return isinstance(other, StorePath) and self.parts == other.parts

  def _scheme_and_parts(self) -> tuple[str, Sequence[str]]:
    parts = self.parts
    if len(parts) > 1 and parts[0] == '/':
      return parts[1].removesuffix(':'), parts[2:]
    return '', parts

  # What a path in a store has in place of a link, a home or a working folder.

  def absolute(self) -> StorePath:
    """Returns the path itself."""
    return self

  def expanduser(self) -> StorePath:
    """Returns the path itself."""
    return self

  def resolve(self, strict: bool = False) -> StorePath:
    """Returns the path itself: there are no links."""
    return self

  def is_symlink(self) -> bool:
    """Returns False: there are no links."""
    return False

  # Reading.

  def stat(self, *, follow_symlinks: bool = True) -> Any:
    """Returns an `ObjectStat`.

    Raises:
      FileNotFoundError: there is neither an object nor a folder of this name.
      OSError: the store cannot be read.
    """
    info = self._call(lambda store: store.info(str(self)))
    return ObjectStat.from_info(info)

  def exists(self, **unused: Any) -> bool:
    """Returns whether there is an object or a folder of this name."""
    try:
      self.stat()
    except FileNotFoundError:
      return False
    return True

  def is_file(self, **unused: Any) -> bool:
    """Returns whether there is an object of this name."""
    try:
      return stat_lib.S_ISREG(self.stat().st_mode)
    except FileNotFoundError:
      return False

  def is_dir(self, **unused: Any) -> bool:
    """Returns whether there are objects in a folder of this name."""
    try:
      return stat_lib.S_ISDIR(self.stat().st_mode)
    except FileNotFoundError:
      return False

  def list_objects(self) -> dict[StorePath, ObjectStat]:
    """Returns the objects of a folder, without those of its subfolders, sorted.

    One request returns up to 1,000 of them. A folder that does not exist is empty.
    """
    return {
      path: state for path, state in self._list() if stat_lib.S_ISREG(state.st_mode)
    }

  def iterdir(self) -> Generator[StorePath, None, None]:
    """Yields the objects and folders of a folder, sorted; none if there is no folder."""
    for path, _ in self._list():
      yield path

  def _list(self) -> list[tuple[StorePath, ObjectStat]]:
    try:
      infos = self._call(lambda store: store.ls(str(self), detail=True))
    except (FileNotFoundError, NotADirectoryError):
      return []
    found = {}
    for info in infos:
      # What is listed of an object is the object itself; and a folder may contain an
      # empty object of its own name, as made by the console of S3.
      if name := self._name_below(info['name']):
        found[self / name] = ObjectStat.from_info(info)
    return sorted(found.items())

  def _name_below(self, name: str) -> str:
    """Returns what follows after this path in a name that the store listed, or ''."""
    # The same path, as the store writes it. Private, but fsspec's public functions that
    # do the same make another instance of the store.
    own = self._call(lambda store: store._strip_protocol(str(self)))  # noqa: SLF001
    own = own.rstrip('/')
    return name[len(own) + 1 :].rstrip('/') if name.startswith(f'{own}/') else ''

  def glob(self, pattern: str, **unused: Any) -> Iterator[StorePath]:  # type: ignore[override]
    """Yields the objects and folders that match a pattern, without `**`, sorted."""
    first, _, rest = pattern.partition('/')
    for path in self.iterdir():
      if fnmatch.fnmatchcase(path.name, first):
        if rest:
          yield from path.glob(rest)
        else:
          yield path

  def rglob(self, pattern: str, **unused: Any) -> Iterator[StorePath]:  # type: ignore[override]
    """Yields the objects at any depth whose name matches a pattern, sorted."""
    try:
      names = self._call(lambda store: store.find(str(self)))
    except FileNotFoundError:
      return
    for name in sorted(map(self._name_below, names)):
      if name and fnmatch.fnmatchcase(name.rpartition('/')[2], pattern):
        yield self / name

  def read_bytes(self) -> bytes:
    """Returns the contents of an object."""
    return bytes(self._call(lambda store: store.cat_file(str(self))))

  def read_text(
    self,
    encoding: str | None = None,
    errors: str | None = None,
    newline: str | None = None,
  ) -> str:
    """Returns the contents of an object as text."""
    with self.open(encoding=encoding, errors=errors, newline=newline) as file:
      return str(file.read())

  def read_range(self, start: int, stop: int | None) -> bytes:
    """Returns the bytes from `start` to `stop`, or to the end if `stop` is None.

    They are fewer if the object ends before `stop`; `start` must be inside.

    Raises:
      OSError: they cannot be read.
    """
    if stop is not None and stop <= start:
      return b''
    return bytes(
      self._call(lambda store: store.cat_file(str(self), start=start, end=stop))
    )

  def read_start(self, num_bytes: int) -> bytes:
    """Returns the first bytes of an object, by one request; fewer if it is shorter.

    Raises:
      OSError: they cannot be read.
    """
    try:
      return self.read_range(0, num_bytes)
    except StoreError:
      if self.stat().st_size:
        raise
      return b''  # an empty object has no range

  def read_ranges(self, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
    """Returns the bytes of several (start, stop), with several requests in flight.

    Raises:
      OSError: a range cannot be read, or the object ends before it.
    """
    found: dict[int, bytes] = {}

    def read_missing(store: Any) -> None:
      """Requests the ranges that no earlier attempt has read."""
      missing = [k for k, (start, stop) in enumerate(ranges) if k not in found]
      blocks = store.cat_ranges(
        [str(self)] * len(missing),
        [ranges[k][0] for k in missing],
        [ranges[k][1] for k in missing],
        batch_size=store_requests.MAX_IN_FLIGHT,
        on_error='return',
      )
      failed = None
      for k, block in zip(missing, blocks, strict=True):
        if isinstance(block, BaseException):
          failed = block
        else:
          found[k] = bytes(block)
      if failed is not None:
        raise failed

    self._call(read_missing)
    for k, (start, stop) in enumerate(ranges):
      if len(found[k]) != stop - start:
        raise StoreError(errno.EIO, f'ends before byte {stop}', str(self))
    return [found[k] for k in range(len(ranges))]

  def open(  # type: ignore[override]
    self,
    mode: str = 'r',
    buffering: int = -1,
    encoding: str | None = None,
    errors: str | None = None,
    newline: str | None = None,
  ) -> IO[Any]:
    """Opens an object for reading; `atomic_files` writes.

    Raises:
      io.UnsupportedOperation: `mode` is not 'r' or 'rb'.
      OSError: there is no such object, or it cannot be read.
    """
    if mode not in ('r', 'rb'):
      raise io.UnsupportedOperation(f'{self}: cannot be opened with mode {mode!r}')
    state = self.stat()
    if stat_lib.S_ISDIR(state.st_mode):
      raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(self))
    size = buffering if buffering > 1 else _READ_BUFFER_BYTES
    file = open_object(self.read_range, state.st_size, size, str(self))
    if mode == 'rb':
      return file
    return io.TextIOWrapper(file, encoding or 'utf-8', errors, newline)

  # Writing.

  def write_bytes(self, data: Any) -> int:
    """Writes an object, complete or not at all; replaces it if it is there."""
    self._call(lambda store: store.pipe_file(str(self), bytes(data)))
    return len(data)

  def create(self, data: bytes) -> None:
    """Writes an object if there is none of this name; the store decides that.

    A store that cannot, i.e. other than S3 and Google Cloud Storage, replaces it.

    Raises:
      FileExistsError: there is one; an earlier attempt may have written it.
    """
    if self._scheme_and_parts()[0] in _CREATING_SCHEMES:
      try:
        self._call(lambda store: store.pipe_file(str(self), data, mode='create'))
        return
      except StoreError as error:
        # Servers that resemble S3 may refuse the condition, or not say which one failed.
        if error.errno == errno.EINVAL and self.exists():
          reason = 'there is such an object already'
          raise FileExistsError(errno.EEXIST, reason, str(self)) from error
        if error.errno != errno.ENOSYS:
          raise
    self.write_bytes(data)

  def upload(self, source: pathlib.Path) -> None:
    """Writes an object with the contents of a local file, complete or not at all."""
    # Otherwise s3fs would upload a large file in parts.
    one_request = {'chunksize': _MAX_PUT_BYTES} if self._is_s3 else {}
    self._call(
      lambda store: store.put_file(os.fspath(source), str(self), **one_request)
    )

  def download(self, target: pathlib.Path) -> None:
    """Copies an object to a local file."""
    self._call(lambda store: store.get_file(str(self), os.fspath(target)))

  def copy_to(self, target: StorePath) -> None:
    """Copies an object within the store; the bytes do not leave it."""
    self._call(lambda store: store.cp_file(str(self), str(target)))

  def mkdir(
    self, mode: int = 0o777, parents: bool = False, exist_ok: bool = False
  ) -> None:
    """Does nothing: a folder exists if an object is in it."""

  def rmdir(self) -> None:
    """Does nothing: a folder without objects does not exist."""

  def check_writable(self) -> None:
    """Writes an object into a folder and deletes it.

    Raises:
      OSError: the store cannot be written.
    """
    probe = self / '.luna16_write_test'
    probe.write_bytes(b'')
    probe.unlink(missing_ok=True)

  def unlink(self, missing_ok: bool = False) -> None:
    """Deletes an object."""
    try:
      self._call(lambda store: store.rm_file(str(self)))
    except FileNotFoundError:
      if not missing_ok:
        raise

  def rmtree(self) -> None:
    """Deletes all objects of a folder and its subfolders."""
    # Not by fsspec's `rm`, which takes `*`, `?` and `[` in a name for a pattern.
    map_files(lambda path: path.unlink(missing_ok=True), list(self.rglob('*')), self)

  @property
  def _is_s3(self) -> bool:
    return self._scheme_and_parts()[0] in ('s3', 's3a')

  def _call(self, request: Callable[[Any], _T]) -> _T:
    """Makes a request to the store; see `store_requests.call`."""
    return store_requests.call(self._scheme_and_parts()[0], str(self), request)


def _unsupported(name: str) -> Callable[..., NoReturn]:
  def method(self: StorePath, *args: Any, **kwargs: Any) -> NoReturn:
    raise io.UnsupportedOperation(f'{self}: an object store has no {name}')

  return method


# The other methods of `pathlib.Path` would use a local file.
_SUPPORTED = {*vars(StorePath), *dir(pathlib.PurePath)} | {'cwd', 'home'}
for _name in set(dir(pathlib.Path)) - _SUPPORTED:
  if not _name.startswith('_') or _name in ('__enter__', '__exit__'):
    setattr(StorePath, _name, _unsupported(_name))


def as_path(text: str | os.PathLike[str]) -> pathlib.Path:
  """Returns a `StorePath` for a URL, and a local path for anything else.

  Args:
    text: a URL or a local path; a `pathlib.Path` is returned as it is.

  Raises:
    UsageError: the URL is not one of a store, or contains a password.
  """
  if isinstance(text, pathlib.Path):
    return text
  text = os.fspath(text)
  url = store_urls.parse(text)
  return StorePath('/', f'{url.scheme}:', *url.parts) if url else pathlib.Path(text)


def map_files(
  function: Callable[[_Item], _T], items: Iterable[_Item], folder: pathlib.Path
) -> list[_T]:
  """Calls a function of files for each item; in a store, for several at the same time.

  Args:
    function: reads files of `folder`.
    items: its arguments.
    folder: a folder on a disk or in a store.

  Returns:
    The results, in the order of `items`.
  """
  if not isinstance(folder, StorePath):
    return [function(item) for item in items]
  with concurrent.futures.ThreadPoolExecutor(store_requests.MAX_IN_FLIGHT) as pool:
    return list(pool.map(function, items))


def store_path(url: str) -> StorePath:
  """Returns the path of a URL of a store.

  Raises:
    ValueError: it is none.
  """
  path = as_path(url)
  if not isinstance(path, StorePath):
    raise ValueError(f'not a URL: {url}')
  return path
