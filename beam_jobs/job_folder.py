"""The working folders of a job: what the launcher and the workers share.

    <config>/1.0.0.incomplete/   shard files named by fingerprint
    <config>/1.0.0.job/          state: the result of each finished shard
    <config>/1.0.0/              the dataset, when it is complete

Files are written atomically. A shard is finished when its result is stored, and its
fingerprint shows whether the plan still contains it; a rerun needs no other information.

`DiskJobFolder` and `StoreJobFolder` say how jobs exclude each other and how a dataset is
published.
"""

from __future__ import annotations

import abc
from collections.abc import Callable, Iterable
import contextlib
import dataclasses
import json
import pathlib
import pickle
from typing import ClassVar

from beam_jobs import input_state
from beam_jobs import plan as plan_lib
from beam_jobs.shard_result import ShardResult
from luna_tfds import records
from luna_tfds.errors import JobError
from luna_tfds.errors import UsageError
from luna_tfds.errors import memory_problem
from luna_tfds.files import atomic_files
from luna_tfds.files import file_checksums
from luna_tfds.files.store_requests import StoreError
from luna_tfds.text_format import bytes_text

# Free disk space that is required in addition to the size of the dataset.
_RESERVE_BYTES = 64 * 2**20

# What to do if memory runs out.
LESS_MEMORY = 'free some, or give a smaller --num_workers'


@dataclasses.dataclass(frozen=True)
class JobFolder(abc.ABC):
  """The folders of a job; picklable, and small enough to be sent to workers.

  Attributes:
    final: the dataset's folder, which appears when the dataset is complete.
    num_threads: threads that check shards.
    progress_poll_secs: how often the progress is read.
  """

  final: pathlib.Path

  num_threads: ClassVar[int]
  progress_poll_secs: ClassVar[float]

  @property
  def dataset_dir(self) -> pathlib.Path:
    """The folder of all configs of the dataset."""
    return self.final.parent.parent

  @property
  def incomplete(self) -> pathlib.Path:
    """Contains the shards until the dataset is complete."""
    return self.final.with_name(self.final.name + '.incomplete')

  @property
  def state_dir(self) -> pathlib.Path:
    """Contains the results of finished shards."""
    return self.final.with_name(self.final.name + '.job')

  def partial_path(self, fingerprint: str) -> pathlib.Path:
    """Returns the path of a shard's file until the dataset is complete."""
    return self.incomplete / f'{fingerprint}.part'

  # The start of a job.

  @abc.abstractmethod
  def locked(self) -> contextlib.AbstractContextManager[None]:
    """Excludes other jobs on the same dataset, where that is possible.

    Raises:
      UsageError: the folder cannot be written.
      OSError: the disk is full.
      JobError: another job is writing the same dataset.
    """

  @abc.abstractmethod
  def has_dataset(self) -> bool:
    """Returns whether a dataset is there; its metadata may be damaged."""

  @abc.abstractmethod
  def clean(self, plan: plan_lib.Plan) -> None:
    """Deletes everything but the dataset, finished shards of the plan and their results.

    Raises:
      UsageError: the folder cannot be written.
    """

  @abc.abstractmethod
  def free_bytes(self) -> int | None:
    """Returns how much can be written; None if that is not known."""

  @staticmethod
  def needed_bytes(num_bytes: int) -> int:
    """Returns the free space that must be there before `num_bytes` are written."""
    return num_bytes + _RESERVE_BYTES

  def check_free_space(self, num_bytes: int) -> None:
    """Checks that `num_bytes` can be written, as far as that is known.

    Raises:
      OSError: there is not enough space.
    """
    free = self.free_bytes()
    if free is not None and free < self.needed_bytes(num_bytes):
      raise OSError(
        f'{self.final.parent}: not enough disk space: {bytes_text(num_bytes)} and a '
        f'reserve of {bytes_text(_RESERVE_BYTES)} needed, {bytes_text(free)} free; free '
        'some space'
      )

  def start_overwriting(self, plan: plan_lib.Plan) -> None:
    """Deletes what earlier jobs left, unless an overwriting job was interrupted.

    So `--overwrite` writes every shard again, and yet resumes after an interruption.
    """
    path = self._overwriting_path
    if path.is_file() and path.read_text() == plan.fingerprint:
      return
    self.remove_state()
    atomic_files.make_folders(self.state_dir)
    atomic_files.write_text(path, plan.fingerprint)

  def reuse_shards(
    self, results: Iterable[ShardResult], plan: plan_lib.Plan, registered: pathlib.Path
  ) -> None:
    """Takes finished shards from a registered dataset of the same plan.

    Args:
      results: the results of the shards to take.
      plan: the plan.
      registered: folder of the dataset; it is not changed.

    Raises:
      OSError: a file cannot be linked or copied.
    """
    self._overwriting_path.unlink(missing_ok=True)
    shards = {shard.fingerprint: shard for shard in plan.shards}
    for result in results:
      shard = shards[result.fingerprint]
      source = registered / self._final_shard_path(shard, plan).name
      if self.result(shard, plan) is None:
        atomic_files.link_or_copy(source, self.partial_path(shard.fingerprint))
        self.finish_shard(result)

  @abc.abstractmethod
  def remove_state(self) -> None:
    """Deletes everything but the dataset."""

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

  def finish_shard(self, result: ShardResult) -> None:
    """Stores the result of a shard, whose file must be complete.

    The shard spec stays: a runner may process a shard again.
    """
    atomic_files.write_json(self._result_path(result.fingerprint), result.to_json())
    self.reset_progress(result.fingerprint)

  def result(
    self, shard: plan_lib.Shard, plan: plan_lib.Plan | None = None
  ) -> ShardResult | None:
    """Returns the result of a shard.

    Args:
      shard: a shard of the plan.
      plan: the plan; without it, the file of the shard must not have its final name.

    Returns:
      The result; None if the shard is not finished, its file is damaged, or its input
      has been modified since.
    """
    result = self._stored_result(shard)
    if result is None or self._problem(shard, result, plan):
      return None
    return result

  def why_unfinished(self, shard: plan_lib.Shard, plan: plan_lib.Plan) -> str:
    """Returns why `result` is None, as the end of a sentence about the shard."""
    result = self._stored_result(shard)
    problem = result and self._problem(shard, result, plan)
    if problem:
      return problem
    # The worker could not even record its error. On a full disk nobody can write.
    try:
      self.check_free_space(shard.num_records * plan.record_bytes)
    except OSError as error:
      return f'was not written: {error}'
    return (
      f'was not written; check that all workers can write {self.state_dir} under this '
      'path, and that it has free space'
    )

  def _stored_result(self, shard: plan_lib.Shard) -> ShardResult | None:
    result = self._read_result(shard.fingerprint)
    return result if result and len(result.inputs) == len(shard.tasks) else None

  def _read_result(self, fingerprint: str) -> ShardResult | None:
    try:
      fields = atomic_files.read_json(self._result_path(fingerprint))
      return ShardResult.from_json(fields)
    except StoreError:
      raise
    except (AttributeError, OSError, ValueError, KeyError, TypeError):
      return None  # missing, damaged, or of an earlier version

  def _problem(
    self, shard: plan_lib.Shard, result: ShardResult, plan: plan_lib.Plan | None
  ) -> str | None:
    """Returns why a stored result is not valid, None if it is."""
    # The dataset contains nothing of scans that failed: their files may change.
    modified = input_state.modified_file(shard, result.inputs, result.failed_scans)
    if modified:
      return f'is outdated, because its input file {modified} was modified'
    paths = [self.partial_path(shard.fingerprint)]
    if plan:
      paths.append(self._final_shard_path(shard, plan))
    for path in paths:
      if path.is_file() and file_checksums.has_contents(
        path, result.num_bytes, result.sha256, result.etag
      ):
        return None
    return 'is missing or damaged'

  def invalidate(self, shard: plan_lib.Shard) -> None:
    """Deletes the result of a shard, so that the shard is written again."""
    self._result_path(shard.fingerprint).unlink(missing_ok=True)

  def finished_fingerprints(self) -> set[str]:
    """Returns the fingerprints of finished shards."""
    # The name of a file that is being written contains another dot.
    return {p.stem for p in self.state_dir.glob('*.json') if '.' not in p.stem}

  # The progress of shards that are not finished.

  @abc.abstractmethod
  def reset_progress(self, fingerprint: str) -> None:
    """Records that an attempt at a shard begins, or that the shard is finished."""

  @abc.abstractmethod
  def record_progress(self, fingerprint: str, num_scans: int) -> None:
    """Records that `num_scans` more scans of a shard are done, if that is possible."""

  @abc.abstractmethod
  def num_scans_in_progress(self) -> int:
    """Returns the recorded number of scans of shards that are not finished."""

  # Errors of workers.

  def record_error(self, fingerprint: str, error: Exception) -> None:
    """Records why a shard could not be written; the message must be one line."""
    problem = memory_problem(error)
    message = f'{problem}; {LESS_MEMORY}' if problem else str(error)
    fields = {'is_usage_error': isinstance(error, UsageError), 'message': message}
    with contextlib.suppress(OSError):  # the disk may be full
      atomic_files.write_json(self._error_path(fingerprint), fields)

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
    if self._has_shard_to_keep():
      return JobError(
        f'{message}; finished shards are kept in {self.incomplete}: run the same command '
        'again to continue'
      )
    return JobError(f'{message}; run the same command again')

  def _has_shard_to_keep(self) -> bool:
    """Returns whether a shard is finished, and all its scans could be read."""
    try:
      results = map(self._read_result, self.finished_fingerprints())
      return any(result and not result.failed_scans for result in results)
    except OSError:  # there is an error to report already
      return False

  # The end of a job.

  @abc.abstractmethod
  def finalize(
    self, plan: plan_lib.Plan, write_metadata: Callable[[pathlib.Path], None]
  ) -> None:
    """Gives the shards their final names, adds the metadata, and publishes the dataset.

    A dataset that exists already is replaced. The job may be interrupted anywhere: a
    rerun continues.

    Args:
      plan: all its shards are finished.
      write_metadata: writes the metadata files into a folder.

    Raises:
      JobError: another job has taken over the folders.
      OSError: a file cannot be written.
    """

  @abc.abstractmethod
  def check_plan(self, plan: plan_lib.Plan) -> None:
    """Checks that no job with another plan has taken over the folders.

    Raises:
      JobError: another job has.
    """

  @abc.abstractmethod
  def has_dataset_of(self, plan: plan_lib.Plan) -> bool:
    """Returns whether another job with the same plan has completed the dataset."""

  # Names of files.

  @property
  def _overwriting_path(self) -> pathlib.Path:
    return self.state_dir / 'overwriting'

  def _final_shard_path(
    self, shard: plan_lib.Shard, plan: plan_lib.Plan
  ) -> pathlib.Path:
    num_shards = len(plan.of_split(shard.split))
    return self.incomplete / records.shard_name(shard.split, shard.index, num_shards)

  def _shard_spec_path(self, fingerprint: str) -> pathlib.Path:
    return self.state_dir / f'{fingerprint}.spec'

  def _result_path(self, fingerprint: str) -> pathlib.Path:
    return self.state_dir / f'{fingerprint}.json'

  def _error_path(self, fingerprint: str) -> pathlib.Path:
    return self.state_dir / f'{fingerprint}.error'
