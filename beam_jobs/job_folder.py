"""The working folder of a job: finished shards, a lock, and the way to the dataset.

    <config>/1.0.0.incomplete/   the shards, each under its fingerprint; becomes 1.0.0
    <config>/1.0.0.job/          a lock, and for each finished shard what was written

A file is written under another name, flushed to disk and renamed, so that what has its
name is whole. A shard whose result is recorded is finished, and its fingerprint tells
whether it is still wanted: that is all a rerun needs to know.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
import contextlib
import dataclasses
import fcntl
import json
import os
import pathlib
import pickle
import shutil
from typing import Any

from beam_jobs import plan as plan_lib
from luna_tfds import records
from luna_tfds.errors import JobError
from luna_tfds.errors import UsageError

# Left free beside what the dataset takes.
_SPARE_BYTES = 64 * 2**20


@dataclasses.dataclass(frozen=True)
class JobFolder:
  """Where a job keeps what it has done; small and picklable, so workers carry it.

  Attributes:
    final: the dataset's folder, which appears when all is done.
  """

  final: pathlib.Path

  @property
  def incomplete(self) -> pathlib.Path:
    """Holds the shards until the dataset is complete."""
    return self.final.with_name(self.final.name + '.incomplete')

  @property
  def book(self) -> pathlib.Path:
    """Holds the lock and the results of finished shards."""
    return self.final.with_name(self.final.name + '.job')

  def part(self, shard: plan_lib.Shard) -> pathlib.Path:
    """Where a finished shard lies until all are finished."""
    return self.incomplete / f'{shard.fingerprint}.part'

  def store(self, shard: plan_lib.Shard) -> str:
    """Puts a shard's orders where every worker finds them; returns their name.

    So that the pipeline carries names: the runner would hold several copies of the
    orders themselves, half a gigabyte for all candidates of LUNA16.
    """
    with self.writing(self._orders(shard.fingerprint)) as path:
      path.write_bytes(pickle.dumps(shard))
    return shard.fingerprint

  def load(self, name: str) -> plan_lib.Shard:
    """Returns the shard that `store` stored under a name."""
    return pickle.loads(self._orders(name).read_bytes())

  def _orders(self, name: str) -> pathlib.Path:
    return self.book / f'{name}.orders'

  def _result(self, shard: plan_lib.Shard) -> pathlib.Path:
    return self.book / f'{shard.fingerprint}.json'

  def _progress(self, fingerprint: str) -> pathlib.Path:
    return self.book / f'{fingerprint}.scans'

  @contextlib.contextmanager
  def locked(self) -> Iterator[None]:
    """Keeps a second job out for the time of a `with` block.

    Raises:
      UsageError: the folder cannot be written.
      JobError: another job is writing the same dataset.
    """
    try:
      self.book.mkdir(parents=True, exist_ok=True)
      lock = open(self.book / 'lock', 'a')  # noqa: SIM115, held until the block ends
    except OSError as error:
      raise UsageError(
        f'{self.final.parent}: cannot be written: {error.strerror}; give a --data_dir '
        'that can'
      ) from error
    with lock:
      try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
      except BlockingIOError:
        raise JobError(
          f'another job is writing {self.final}; wait for it, or stop it'
        ) from None
      yield

  def clean(self, plan: plan_lib.Plan) -> None:
    """Deletes whatever the plan does not want: half-written files and stale parts."""
    self.incomplete.mkdir(exist_ok=True)
    wanted = {self.part(s) for s in plan.shards} | {
      self._result(s) for s in plan.shards
    }
    if self._finalizing().is_file() and (
      self._finalizing().read_text() == plan.fingerprint
    ):
      wanted |= {self._named(shard, plan) for shard in plan.shards}
      wanted.add(self._finalizing())
    for path in [*self.incomplete.iterdir(), *self.book.iterdir()]:
      if path not in wanted and path.name != 'lock':
        shutil.rmtree(path) if path.is_dir() else path.unlink()

  def result(self, shard: plan_lib.Shard, plan: plan_lib.Plan) -> dict[str, Any] | None:
    """Returns what `finish_shard` recorded if the shard is finished and still good."""
    try:
      fields = json.loads(self._result(shard).read_text())
    except (OSError, json.JSONDecodeError):
      return None
    if fields.pop('inputs') != _modified(shard):
      return None
    for path in (self.part(shard), self._named(shard, plan)):
      if path.is_file() and path.stat().st_size == fields['num_bytes']:
        return fields
    return None

  def forget(self, shard: plan_lib.Shard) -> None:
    """Makes a shard unfinished: it will be written anew."""
    self._result(shard).unlink(missing_ok=True)

  def finish_shard(self, shard: plan_lib.Shard, result: dict[str, Any]) -> None:
    """Records that a shard is finished: its part is in place."""
    fields = {**result, 'inputs': _modified(shard)}
    with self.writing(self._result(shard)) as path:
      path.write_text(json.dumps(fields))
    self._progress(shard.fingerprint).unlink(missing_ok=True)
    self._orders(shard.fingerprint).unlink(missing_ok=True)

  @contextlib.contextmanager
  def writing(self, path: pathlib.Path) -> Iterator[pathlib.Path]:
    """Yields a temporary name; what is written there appears at `path` whole."""
    temporary = path.with_name(f'{path.name}.{os.getpid()}.tmp')
    try:
      yield temporary
      os.replace(temporary, path)
    finally:
      temporary.unlink(missing_ok=True)

  def note_progress(self, fingerprint: str, scans: int) -> None:
    """Tells whoever watches that `scans` more scans of a shard are done."""
    with open(self._progress(fingerprint), 'ab') as file:
      file.write(b'.' * scans)

  def note_problem(self, fingerprint: str, error: Exception) -> None:
    """Leaves word of why a shard could not be written."""
    with contextlib.suppress(OSError):  # on a full disk there may be no room for it
      self._problem(fingerprint).write_text(
        json.dumps({'usage': isinstance(error, UsageError), 'text': str(error)})
      )

  def problem(self, shard: plan_lib.Shard) -> Exception | None:
    """Returns why a shard could not be written, if a worker left word."""
    try:
      fields = json.loads(self._problem(shard.fingerprint).read_text())
    except (OSError, json.JSONDecodeError):
      return None
    if fields['usage']:
      return UsageError(fields['text'])
    return JobError(
      f'{fields["text"]}; finished shards are kept in {self.incomplete}: run the same '
      'command again to go on'
    )

  def _problem(self, fingerprint: str) -> pathlib.Path:
    return self.book / f'{fingerprint}.problem'

  def scans_in_progress(self) -> int:
    """Scans done of shards that are not finished."""
    total = 0
    for path in self.book.glob('*.scans'):
      with contextlib.suppress(FileNotFoundError):  # finished just now
        total += path.stat().st_size
    return total

  def finished(self) -> set[str]:
    """The fingerprints of finished shards."""
    return {path.stem for path in self.book.glob('*.json')}

  def check_room(self, num_bytes: int) -> None:
    """Raises OSError if the disk has no room for `num_bytes` more."""
    free = shutil.disk_usage(self.final.parent).free
    if free < num_bytes + _SPARE_BYTES:
      raise OSError(
        f'{self.final.parent}: {num_bytes / 1e9:.3g} GB are needed but only '
        f'{free / 1e9:.3g} GB are free; make room and run the same command again'
      )

  def finalize(
    self,
    plan: plan_lib.Plan,
    write_metadata: Callable[[pathlib.Path], None],
    overwrite: bool,
  ) -> None:
    """Gives the shards their final names, adds the metadata, and shows the dataset.

    May be cut short anywhere: a rerun finds the shards under either name.

    Args:
      plan: all its shards are finished.
      write_metadata: writes the metadata files into a folder that holds the shards.
      overwrite: whether a dataset that is there is replaced.
    """
    with self.writing(self._finalizing()) as path:
      path.write_text(plan.fingerprint)
    for shard in plan.shards:
      if self.part(shard).is_file():
        os.replace(self.part(shard), self._named(shard, plan))
    write_metadata(self.incomplete)
    if overwrite and self.final.exists():
      old = self.book / 'replaced'
      os.replace(self.final, old)
      os.replace(self.incomplete, self.final)
      shutil.rmtree(old)
    else:
      os.replace(self.incomplete, self.final)
    shutil.rmtree(self.book)

  def _finalizing(self) -> pathlib.Path:
    return self.book / 'finalizing'

  def _named(self, shard: plan_lib.Shard, plan: plan_lib.Plan) -> pathlib.Path:
    """The shard's name in the dataset, as TFDS wants it."""
    num_shards = len(plan.of_split(shard.split))
    return self.incomplete / records.shard_name(shard.split, shard.index, num_shards)


def _modified(shard: plan_lib.Shard) -> list[Any]:
  """When the inputs were last changed; a rerun does not trust what is older."""
  return [_stamp(path) for path in plan_lib.input_files(shard)]


def _stamp(path: pathlib.Path) -> int:
  try:
    return path.stat().st_mtime_ns
  except OSError:
    return -1
