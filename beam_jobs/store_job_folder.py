"""A job whose dataset is in an object store, which has neither locks nor rename.

    <config>/1.0.0.incomplete/   shards named by fingerprint
    <config>/1.0.0.job/          state: the plan, the result of each finished shard
    <config>/1.0.0/              the dataset; it exists if dataset_info.json does

Every object is written by one request, and what is written under a name follows from the
plan. So attempts and jobs that run at the same time write the same bytes, as long as they
have the same plan. A job with another plan takes over: it stores its plan and deletes what
belongs to the former one, whose job then finds that it was replaced, and fails. See
docs/stores.md.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
import concurrent.futures
import contextlib
import dataclasses
import pathlib
from typing import ClassVar

from beam_jobs import plan as plan_lib
from beam_jobs import registered_dataset
from beam_jobs.job_folder import JobFolder
from beam_jobs.shard_result import ShardResult
from luna_tfds.errors import JobError
from luna_tfds.errors import UsageError
from luna_tfds.files import atomic_files
from luna_tfds.files import store_path
from luna_tfds.files import store_requests
from luna_tfds.files.store_path import StorePath
from luna_tfds.files.temporary_folders import temporary_folder
from luna_tfds.stored_dataset import INFO_FILE


@dataclasses.dataclass(frozen=True)
class StoreJobFolder(JobFolder):
  """The folders of a job in an object store.

  Attributes:
    final: the dataset's folder, which appears when the dataset is complete.
  """

  final: StorePath

  # They wait for requests.
  num_threads: ClassVar[int] = store_requests.MAX_IN_FLIGHT

  # Each is a request.
  progress_poll_secs: ClassVar[float] = 5.0

  def has_dataset(self) -> bool:
    """Returns whether a complete dataset is there."""
    return self._info_path.is_file()

  @contextlib.contextmanager
  def locked(self) -> Iterator[None]:
    """Excludes nobody: a store has no locks."""
    yield

  def clean(self, plan: plan_lib.Plan) -> None:
    """Takes over the folders; deletes all objects but finished shards of the plan.

    Raises:
      UsageError: the store cannot be written.
    """
    try:
      self._plan_path.write_bytes(plan.fingerprint.encode())
    except OSError as error:
      raise UsageError(
        f'{self.final.parent}: cannot be written: {error.strerror}; give a writable '
        '--data_dir'
      ) from error
    kept = {self._plan_path, self._overwriting_path}
    for shard in plan.shards:
      kept |= {
        self.partial_path(shard.fingerprint),
        self._result_path(shard.fingerprint),
        # Of a job with the same plan that is running.
        self._shard_spec_path(shard.fingerprint),
      }
    for folder in (self.incomplete, self.state_dir):
      for path in folder.iterdir():
        if path not in kept:
          path.unlink(missing_ok=True)

  def remove_state(self) -> None:
    """Deletes everything but the dataset."""
    for folder in (self._store_path(self.incomplete), self._store_path(self.state_dir)):
      folder.rmtree()

  def free_bytes(self) -> None:
    """Returns None: a store has no limit that it tells."""

  def finish_shard(self, result: ShardResult) -> None:
    """Stores the result of a shard, whose object must be complete."""
    state = self._store_path(self.partial_path(result.fingerprint)).stat()
    super().finish_shard(dataclasses.replace(result, etag=state.etag))

  # A store cannot append to an object; progress is known of finished shards only.

  def reset_progress(self, fingerprint: str) -> None:
    """Does nothing."""

  def record_progress(self, fingerprint: str, num_scans: int) -> None:
    """Does nothing."""

  def num_scans_in_progress(self) -> int:
    """Returns 0."""
    return 0

  def check_plan(self, plan: plan_lib.Plan) -> None:
    """Checks that no job with another plan has taken over the folders.

    Raises:
      JobError: another job has.
    """
    with contextlib.suppress(FileNotFoundError):
      if self._plan_path.read_text() == plan.fingerprint:
        return
    raise JobError(
      f'another job with other inputs or options is writing {self.final}, or has written '
      'it; give another --data_dir, or run the same command again when the other is done'
    )

  def has_dataset_of(self, plan: plan_lib.Plan) -> bool:
    """Returns whether a job with the same plan has completed the dataset."""
    return self._results_of_dataset(plan) is not None

  def _results_of_dataset(self, plan: plan_lib.Plan) -> Sequence[ShardResult] | None:
    """Returns the results of the dataset that is there; None if it has another plan."""
    dataset = registered_dataset.read(self.final) if self.has_dataset() else None
    if not dataset or not dataset.results:
      return None
    # Both, as a job that was replaced may have written one of the two files last.
    has_plan = dataset.fingerprint == plan.fingerprint and [
      result.fingerprint for result in dataset.results
    ] == [shard.fingerprint for shard in plan.shards]
    return dataset.results if has_plan else None

  def _has_shards_of_job(self, plan: plan_lib.Plan) -> bool:
    """Returns whether the shards of the dataset are byte for byte those of this job.

    With the same plan they are not, if voxels or shards have changed since.
    """
    registered = self._results_of_dataset(plan)
    if registered is None:
      return False
    fingerprints = [shard.fingerprint for shard in plan.shards]
    own = store_path.map_files(self._read_result, fingerprints, self.state_dir)
    if None in own:
      return True  # another job has completed the dataset, and deletes them
    return [r.sha256 for r in registered] == [r.sha256 for r in own if r]

  def finalize(
    self, plan: plan_lib.Plan, write_metadata: Callable[[pathlib.Path], None]
  ) -> None:
    """Copies the shards to their final names, then writes the metadata.

    A dataset of another plan disappears when the copying begins. The job may be
    interrupted anywhere: the shards named by fingerprint are deleted last.

    Args:
      plan: all its shards are finished.
      write_metadata: writes the metadata files into a local folder.

    Raises:
      JobError: a job with another plan has taken over the folders.
      OSError: the store cannot be written.
    """
    self.check_plan(plan)
    # Where there is none now, a job with the same plan may be about to complete one.
    if self.has_dataset() and not self._has_shards_of_job(plan):
      self._info_path.unlink(missing_ok=True)
    names = {s.fingerprint: self._final_shard_path(s, plan).name for s in plan.shards}

    def copy(fingerprint: str) -> None:
      part = self._store_path(self.partial_path(fingerprint))
      part.copy_to(self._store_path(self.final / names[fingerprint]))

    with concurrent.futures.ThreadPoolExecutor(store_requests.MAX_IN_FLIGHT) as pool:
      list(pool.map(copy, names))
    with temporary_folder() as temporary:
      write_metadata(temporary)
      files = sorted(temporary.iterdir())
      expected = {*names.values(), *(file.name for file in files)}
      for path in self.final.iterdir():
        if path.name not in expected:
          path.unlink(missing_ok=True)
      files.sort(key=lambda file: file.name == INFO_FILE)
      for file in files:
        self._publish(file, plan)
    self.remove_state()

  def _publish(self, file: pathlib.Path, plan: plan_lib.Plan) -> None:
    """Writes a metadata file, unless a job with another plan has taken over.

    Raises:
      JobError: it has.
    """
    self.check_plan(plan)
    if file.name == INFO_FILE:
      self._publish_info(file, plan)
    else:
      atomic_files.copy_file(file, self.final / file.name)
    try:
      self.check_plan(plan)
    except JobError:
      # The other job may have completed its dataset before the file was written: it
      # would be a mixture.
      if not self.has_dataset_of(plan):
        self._info_path.unlink(missing_ok=True)
      raise

  def _publish_info(self, file: pathlib.Path, plan: plan_lib.Plan) -> None:
    """Writes dataset_info.json, but not over that of a job that has taken over.

    Raises:
      JobError: another job has taken over.
    """
    data, path = file.read_bytes(), self._store_path(self._info_path)
    try:
      path.create(data)
    except FileExistsError:
      if not self.has_dataset_of(plan) or path.read_bytes() != data:
        self.check_plan(plan)
        path.write_bytes(data)  # over a damaged one, or that of a job that was replaced

  @property
  def _info_path(self) -> pathlib.Path:
    return self.final / INFO_FILE

  @property
  def _plan_path(self) -> pathlib.Path:
    return self.state_dir / 'plan'

  @staticmethod
  def _store_path(path: pathlib.Path) -> StorePath:
    assert isinstance(path, StorePath)
    return path
