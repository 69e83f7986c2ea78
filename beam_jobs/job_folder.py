"""The working folders of a job: finished shards, the state of the job, a lock.

    <config>/1.0.0.incomplete/   shard files named by fingerprint; becomes 1.0.0
    <config>/1.0.0.job/          state: the lock, and the result of each finished shard

Files are written atomically. A shard is finished when its result is stored, and its
fingerprint shows whether the plan still contains it; a rerun needs no other information.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
import contextlib
import dataclasses
import fcntl
import json
import os
import pathlib
import pickle
import shutil

from beam_jobs import plan as plan_lib
from beam_jobs.shard_result import ShardResult
from luna_tfds import atomic_files
from luna_tfds import records
from luna_tfds.errors import JobError
from luna_tfds.errors import UsageError

# Free disk space that is required in addition to the size of the dataset.
_RESERVE_BYTES = 64 * 2**20


@dataclasses.dataclass(frozen=True)
class JobFolder:
  """The folders of a job; picklable, and small enough to be sent to workers.

  Attributes:
    final: the dataset's folder, which appears when the dataset is complete.
  """

  final: pathlib.Path

  @property
  def incomplete(self) -> pathlib.Path:
    """Contains the shards until the dataset is complete."""
    return self.final.with_name(self.final.name + '.incomplete')

  @property
  def state_dir(self) -> pathlib.Path:
    """Contains the lock and the results of finished shards."""
    return self.final.with_name(self.final.name + '.job')

  def partial_path(self, fingerprint: str) -> pathlib.Path:
    """Returns the path of a shard's file until the dataset is complete."""
    return self.incomplete / f'{fingerprint}.part'

  # The lock, and the start of a job.

  @contextlib.contextmanager
  def locked(self) -> Iterator[None]:
    """Excludes other jobs on the same dataset for the duration of a `with` block.

    Raises:
      UsageError: the folder cannot be written.
      JobError: another job is writing the same dataset.
    """
    try:
      self.state_dir.mkdir(parents=True, exist_ok=True)
      lock = open(self.state_dir / 'lock', 'a')  # noqa: SIM115, open during the block
    except OSError as error:
      raise UsageError(
        f'{self.final.parent}: cannot be written: {error.strerror}; give a writable '
        '--data_dir'
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
    """Deletes all files but finished shards of the plan and their results.

    They are unfinished files of killed workers, and shards of another plan.
    """
    self.incomplete.mkdir(exist_ok=True)
    kept = {self.state_dir / 'lock'}
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
        shutil.rmtree(path) if path.is_dir() else path.unlink()

  def remove_state(self) -> None:
    """Deletes everything but the dataset."""
    shutil.rmtree(self.incomplete, ignore_errors=True)
    shutil.rmtree(self.state_dir)

  def check_free_space(self, num_bytes: int) -> None:
    """Checks the free disk space before `num_bytes` are written.

    Raises:
      OSError: there is not enough space.
    """
    free = shutil.disk_usage(self.final.parent).free
    if free < num_bytes + _RESERVE_BYTES:
      raise OSError(
        f'{self.final.parent}: not enough disk space: {num_bytes / 1e9:.3g} GB needed, '
        f'{free / 1e9:.3g} GB free; free some space and run the same command again'
      )

  # Shards on their way to the workers and back.

  def write_shard_spec(self, shard: plan_lib.Shard) -> str:
    """Stores a shard of the plan for the workers; returns its fingerprint.

    The pipeline carries only fingerprints: a runner holds several copies of its elements,
    and copies of the shards take half a gigabyte for all candidates of LUNA16.
    """
    with atomic_files.atomic_write(self._shard_spec_path(shard.fingerprint)) as path:
      path.write_bytes(pickle.dumps(shard))
    return shard.fingerprint

  def read_shard_spec(self, fingerprint: str) -> plan_lib.Shard:
    """Returns the shard that `write_shard_spec` stored."""
    shard = pickle.loads(self._shard_spec_path(fingerprint).read_bytes())
    assert isinstance(shard, plan_lib.Shard)
    return shard

  def finish_shard(self, shard: plan_lib.Shard, result: ShardResult) -> None:
    """Stores the result of a shard, whose file must be complete."""
    fields = {'result': result.to_json(), 'modified': _modification_times(shard)}
    atomic_files.write_json(self._result_path(shard.fingerprint), fields)
    self._progress_path(shard.fingerprint).unlink(missing_ok=True)
    self._shard_spec_path(shard.fingerprint).unlink(missing_ok=True)

  def result(self, shard: plan_lib.Shard, plan: plan_lib.Plan) -> ShardResult | None:
    """Returns the result of a shard.

    None if the shard is not finished, or its file is damaged, or the scans have been
    modified since.
    """
    try:
      fields = atomic_files.read_json(self._result_path(shard.fingerprint))
    except (OSError, json.JSONDecodeError):
      return None
    if fields.get('modified') != _modification_times(shard):
      return None
    result = ShardResult.from_json(fields['result'])
    for path in (
      self.partial_path(shard.fingerprint),
      self._final_shard_path(shard, plan),
    ):
      if path.is_file() and path.stat().st_size == result.num_bytes:
        return result
    return None

  def invalidate(self, shard: plan_lib.Shard) -> None:
    """Deletes the result of a shard, so that the shard is written again."""
    self._result_path(shard.fingerprint).unlink(missing_ok=True)

  # Progress and errors, as recorded by the workers.

  def record_progress(self, fingerprint: str, num_scans: int) -> None:
    """Records that `num_scans` more scans of a shard are done."""
    with open(self._progress_path(fingerprint), 'ab') as file:
      file.write(b'.' * num_scans)

  def num_scans_in_progress(self) -> int:
    """Returns the number of scans done of shards that are not finished."""
    total = 0
    for path in self.state_dir.glob('*.scans'):
      with contextlib.suppress(FileNotFoundError):  # the shard has just been finished
        total += path.stat().st_size
    return total

  def finished_fingerprints(self) -> set[str]:
    """Returns the fingerprints of finished shards."""
    # The name of a file that is being written contains another dot.
    return {p.stem for p in self.state_dir.glob('*.json') if '.' not in p.stem}

  def record_error(self, fingerprint: str, error: OSError | UsageError) -> None:
    """Records why a shard could not be written."""
    fields = {'is_usage_error': isinstance(error, UsageError), 'message': str(error)}
    with contextlib.suppress(OSError):  # the disk may be full
      self._error_path(fingerprint).write_text(json.dumps(fields))

  def recorded_error(self, shard: plan_lib.Shard) -> UsageError | JobError | None:
    """Returns the error of a shard that a worker recorded, if any."""
    try:
      fields = atomic_files.read_json(self._error_path(shard.fingerprint))
    except (OSError, json.JSONDecodeError):
      return None
    if fields['is_usage_error']:
      return UsageError(fields['message'])
    return self.job_error(fields['message'])

  def job_error(self, message: str) -> JobError:
    """Returns an error that tells the user how to continue."""
    return JobError(
      f'{message}; finished shards are kept in {self.incomplete}: run the same command '
      'again to continue'
    )

  # The end of a job.

  def finalize(
    self,
    plan: plan_lib.Plan,
    write_metadata: Callable[[pathlib.Path], None],
    overwrite: bool,
  ) -> None:
    """Gives the shards their final names, adds the metadata, and publishes the dataset.

    It may be interrupted anywhere: a rerun finds the shards under either name.

    Args:
      plan: all its shards are finished.
      write_metadata: writes the metadata files into a folder that contains the shards.
      overwrite: whether an existing dataset is replaced.
    """
    atomic_files.write_text(self._finalizing_path, plan.fingerprint)
    for shard in plan.shards:
      if self.partial_path(shard.fingerprint).is_file():
        os.replace(
          self.partial_path(shard.fingerprint), self._final_shard_path(shard, plan)
        )
    write_metadata(self.incomplete)
    if overwrite and self.final.exists():
      os.replace(self.final, self.state_dir / 'replaced')
    os.replace(self.incomplete, self.final)
    shutil.rmtree(self.state_dir)

  def _is_finalizing(self, plan: plan_lib.Plan) -> bool:
    """Returns whether `finalize` of the same plan was interrupted."""
    path = self._finalizing_path
    return path.is_file() and path.read_text() == plan.fingerprint

  @property
  def _finalizing_path(self) -> pathlib.Path:
    return self.state_dir / 'finalizing'

  def _final_shard_path(
    self, shard: plan_lib.Shard, plan: plan_lib.Plan
  ) -> pathlib.Path:
    num_shards = len(plan.of_split(shard.split))
    return self.incomplete / records.shard_name(shard.split, shard.index, num_shards)

  def _shard_spec_path(self, fingerprint: str) -> pathlib.Path:
    return self.state_dir / f'{fingerprint}.spec'

  def _result_path(self, fingerprint: str) -> pathlib.Path:
    return self.state_dir / f'{fingerprint}.json'

  def _progress_path(self, fingerprint: str) -> pathlib.Path:
    return self.state_dir / f'{fingerprint}.scans'

  def _error_path(self, fingerprint: str) -> pathlib.Path:
    return self.state_dir / f'{fingerprint}.error'


def _modification_times(shard: plan_lib.Shard) -> Sequence[int]:
  """Returns when each input file was modified, in ns since the epoch; -1 if missing."""
  times = []
  for path in plan_lib.input_files(shard):
    try:
      times.append(path.stat().st_mtime_ns)
    except OSError:
      times.append(-1)
  return times
