"""A job whose dataset is on a disk.

    <config>/1.0.0.lock          held while a job runs
    <config>/1.0.0.incomplete/   shards named by fingerprint; becomes 1.0.0
    <config>/1.0.0.job/          state: the result of each finished shard

The lock excludes other jobs, and the dataset appears when its folder is renamed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
import contextlib
import dataclasses
import errno
import os
import pathlib
import shutil
from typing import ClassVar

from beam_jobs import plan as plan_lib
from beam_jobs.job_folder import JobFolder
from luna_tfds.errors import UsageError
from luna_tfds.files import atomic_files
from luna_tfds.files import file_lock
from luna_tfds.processes import cores

# What the system reports of a full disk: also a user's share of it may be full.
_FULL = (errno.ENOSPC, errno.EDQUOT)


@dataclasses.dataclass(frozen=True)
class DiskJobFolder(JobFolder):
  """The folders of a job on a disk.

  Attributes:
    final: the dataset's folder, which appears when the dataset is complete.
  """

  num_threads: ClassVar[int] = cores.num_usable_cores()
  progress_poll_secs: ClassVar[float] = 0.5

  @contextlib.contextmanager
  def locked(self) -> Iterator[None]:
    """Excludes other jobs on the same dataset for the duration of a `with` block.

    At the end it deletes its lock file, and folders that it made and that are empty: a
    job that is rejected leaves nothing behind.

    Raises:
      UsageError: the folder cannot be written.
      OSError: the disk is full.
      JobError: another job is writing the same dataset.
    """
    with contextlib.ExitStack() as stack:
      lock_path = self.final.with_name(self.final.name + '.lock')
      try:
        missing = [folder for folder in self.final.parents if not folder.exists()]
        stack.callback(_remove_empty, missing)
        stack.enter_context(file_lock.hold(lock_path, 'job', self.final))
        atomic_files.make_folders(self.state_dir)
      except OSError as error:
        if error.errno in _FULL:
          raise
        path = error.filename or self.final.parent
        raise UsageError(
          f'{path}: cannot be written: {error.strerror}; give a writable --data_dir'
        ) from error
      stack.callback(_remove_empty, [self.incomplete, self.state_dir])
      stack.callback(self._remove_shard_specs)
      self._restore_replaced()
      yield

  def has_dataset(self) -> bool:
    """Returns whether a dataset is there; its metadata may be damaged."""
    return self.final.exists()

  def clean(self, plan: plan_lib.Plan) -> None:
    """Deletes all files but finished shards of the plan and their results.

    They are unfinished files of killed workers, and shards of another plan.
    """
    atomic_files.make_folders(self.incomplete)
    atomic_files.make_folders(self.state_dir)
    kept = {self._overwriting_path}
    for shard in plan.shards:
      kept |= {
        self.partial_path(shard.fingerprint),
        self._result_path(shard.fingerprint),
      }
    if self._is_finalizing(plan):
      kept |= {self._final_shard_path(shard, plan) for shard in plan.shards}
      kept.add(self._finalizing_path)
    for path in [*self.incomplete.iterdir(), *self.state_dir.iterdir()]:
      if path not in kept:
        _remove(path)

  def remove_state(self) -> None:
    """Deletes everything but the dataset."""
    for folder in (self.incomplete, self.state_dir):
      _remove(folder)

  def free_bytes(self) -> int:
    """Returns the free disk space."""
    parent = next(folder for folder in self.final.parents if folder.is_dir())
    return shutil.disk_usage(parent).free

  # A worker appends a byte for each scan.

  def reset_progress(self, fingerprint: str) -> None:
    """Records that an attempt at a shard begins, or that the shard is finished."""
    self._progress_path(fingerprint).unlink(missing_ok=True)

  def record_progress(self, fingerprint: str, num_scans: int) -> None:
    """Records that `num_scans` more scans of a shard are done."""
    # On a full disk, writing the shard fails with a message that names the file.
    with (
      contextlib.suppress(OSError),
      open(self._progress_path(fingerprint), 'ab') as file,
    ):
      file.write(b'.' * num_scans)

  def num_scans_in_progress(self) -> int:
    """Returns the number of scans done of shards that are not finished."""
    total = 0
    for path in self.state_dir.glob('*.scans'):
      if self._result_path(path.stem).exists():  # another attempt at a finished shard
        continue
      with contextlib.suppress(FileNotFoundError):  # the shard has just been finished
        total += path.stat().st_size
    return total

  # The end of a job.

  def finalize(
    self, plan: plan_lib.Plan, write_metadata: Callable[[pathlib.Path], None]
  ) -> None:
    """Gives the shards their final names, adds the metadata, and publishes the dataset.

    A dataset that exists already is replaced. The job may be interrupted anywhere: a
    rerun finds the shards under either name, and the dataset that was to be replaced.

    Args:
      plan: all its shards are finished.
      write_metadata: writes the metadata files into a folder that contains the shards.
    """
    atomic_files.write_text(self._finalizing_path, plan.fingerprint)
    for shard in plan.shards:
      partial_path = self.partial_path(shard.fingerprint)
      if partial_path.is_file():
        os.replace(partial_path, self._final_shard_path(shard, plan))
    write_metadata(self.incomplete)
    atomic_files.flush_folder(self.incomplete)
    if self.final.exists():
      atomic_files.rename(self.final, self._replaced_path)
    atomic_files.rename(self.incomplete, self.final)
    # Workers of a killed job, or a second attempt at a shard, may still be writing.
    atomic_files.remove_temporaries(self.final)
    for path in self.final.glob('*.part'):
      path.unlink(missing_ok=True)
    _remove(self.state_dir)

  def check_plan(self, plan: plan_lib.Plan) -> None:
    """Does nothing: the lock excludes jobs with another plan."""

  def has_dataset_of(self, plan: plan_lib.Plan) -> bool:
    """Returns False: the lock excludes other jobs that could have written it."""
    return False

  def _remove_shard_specs(self) -> None:
    """Deletes the shard specs: the job has ended, and a rerun writes its own."""
    for path in self.state_dir.glob('*.spec'):
      path.unlink(missing_ok=True)

  def _restore_replaced(self) -> None:
    """Restores a dataset if a job was interrupted while it replaced the dataset."""
    if self._replaced_path.is_dir() and not self.final.exists():
      atomic_files.rename(self._replaced_path, self.final)

  def _is_finalizing(self, plan: plan_lib.Plan) -> bool:
    """Returns whether `finalize` of the same plan was interrupted."""
    path = self._finalizing_path
    return path.is_file() and path.read_text() == plan.fingerprint

  @property
  def _finalizing_path(self) -> pathlib.Path:
    return self.state_dir / 'finalizing'

  @property
  def _replaced_path(self) -> pathlib.Path:
    return self.state_dir / 'replaced'

  def _progress_path(self, fingerprint: str) -> pathlib.Path:
    return self.state_dir / f'{fingerprint}.scans'


def _remove(path: pathlib.Path) -> None:
  """Deletes a file or folder of the job, if it is there.

  A network file system keeps a file that a process of a killed job has open, under
  another name, and then its folder: the next job deletes them.
  """
  if path.is_dir() and not path.is_symlink():
    shutil.rmtree(path, ignore_errors=True)
  else:
    with contextlib.suppress(OSError):
      path.unlink()


def _remove_empty(folders: Iterable[pathlib.Path]) -> None:
  """Deletes folders that are empty."""
  for folder in folders:
    with contextlib.suppress(OSError):
      folder.rmdir()
