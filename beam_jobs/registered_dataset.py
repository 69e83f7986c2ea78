"""A dataset that an earlier job registered: what of it a new job can keep."""

from __future__ import annotations

from collections.abc import Sequence
import concurrent.futures
import dataclasses
import pathlib
from typing import Any

from beam_jobs import dataset_metadata
from beam_jobs import input_state
from beam_jobs import plan as plan_lib
from beam_jobs.shard_result import ShardResult
from beam_jobs.tasks import ScanTask
from luna_tfds import records
from luna_tfds import stored_metadata
from luna_tfds import verification
from luna_tfds.errors import UsageError
from luna_tfds.files import atomic_files
from luna_tfds.files import file_checksums
from luna_tfds.files.store_requests import StoreError
from luna_tfds.processes import cores


@dataclasses.dataclass(frozen=True)
class RegisteredDataset:
  """A dataset on disk.

  Attributes:
    folder: its folder.
    fingerprint: fingerprint of its plan; None if the metadata are missing or damaged.
    results: the results of its shards in the order of the plan; None for a dataset of
      release 1.0.0, which did not store them.
    num_failed_scans: number of scans that could not be read.
    shard_sha256: SHA-256 of the shards of each split by metadata.json; None if it has
      none, as in release 1.0.0.
  """

  folder: pathlib.Path
  fingerprint: str | None
  results: tuple[ShardResult, ...] | None
  num_failed_scans: int
  shard_sha256: Any = None

  def check_inputs(self, plan: plan_lib.Plan) -> None:
    """Checks that the dataset was made from the inputs of a plan.

    The files of scans that could not be read may differ: they have been repaired.

    Raises:
      UsageError: it was made from other inputs.
    """
    if self.results is None:
      if self.fingerprint is None:
        raise self._other_inputs('has no readable metadata: its inputs are unknown')
      if self.fingerprint != plan.fingerprint:
        raise self._other_inputs('was made from other inputs')
      return
    if [(r.split, r.index) for r in self.results] != [
      (s.split, s.index) for s in plan.shards
    ]:
      raise self._other_inputs('was made from other inputs')
    for shard, result in zip(plan.shards, self.results, strict=True):
      if not _has_same_tasks(shard, result):
        raise self._other_inputs('was made from other inputs')
      modified = input_state.modified_file(shard, result.inputs, result.failed_scans)
      if modified:
        raise self._other_inputs(f'is older than the input file {modified}')

  def intact_shards(self) -> list[ShardResult]:
    """Returns the results of the shards whose files have the stored checksums."""
    if self.results is None:
      return []
    num_shards = {
      split: sum(r.split == split for r in self.results)
      for split in {r.split for r in self.results}
    }

    def is_intact(result: ShardResult) -> bool:
      name = records.shard_name(result.split, result.index, num_shards[result.split])
      path = self.folder / name
      return file_checksums.has_contents(
        path, result.num_bytes, result.sha256, result.etag
      )

    with concurrent.futures.ThreadPoolExecutor(cores.num_usable_cores()) as pool:
      intact = list(pool.map(is_intact, self.results))
    return [r for r, is_kept in zip(self.results, intact, strict=True) if is_kept]

  def is_complete(self, intact: Sequence[ShardResult]) -> bool:
    """Returns whether nothing is missing, not even a scan that could not be read.

    Args:
      intact: what `intact_shards` returned.
    """
    if not self.has_complete_metadata():
      return False
    if self.results is None:
      return self.num_failed_scans == 0
    return list(self.results) == intact and not any(r.failed_scans for r in intact)

  def has_complete_metadata(self) -> bool:
    """Returns whether the metadata can be read and the files have the stored sizes."""
    if self.results is None:
      expected = None  # of release 1.0.0; of a later one, shard_results.json is lost
    else:
      expected = {
        split: [r.sha256 for r in self.results if r.split == split]
        for split in {r.split for r in self.results if r.num_records}
      }
    try:
      return (
        self.fingerprint is not None
        and self.shard_sha256 == expected
        and not verification.check_files(self.folder)
      )
    except UsageError:
      return False

  def _other_inputs(self, problem: str) -> UsageError:
    return UsageError(
      f'{self.folder} {problem}; give --overwrite to replace it when the new dataset is '
      'complete, or another --data_dir'
    )


def read(folder: pathlib.Path) -> RegisteredDataset | None:
  """Returns the dataset in a folder; None if there is no such folder."""
  try:
    if not folder.exists():
      return None
  except StoreError:
    raise
  except OSError:  # a path that cannot exist, or that is not readable
    return None
  stored = _metadata_fields(folder)
  fingerprint = stored.get('fingerprint')
  # In release 1.0.0 the counts were not in a dictionary of their own.
  counts = stored.get('counts', stored)
  num_failed = counts.get('scans_failed', 0) if isinstance(counts, dict) else 0
  shard_sha256 = stored.get('shard_sha256')
  try:
    fields: Sequence[Any] = atomic_files.read_json(
      folder / dataset_metadata.SHARD_RESULTS
    )
    results = tuple(map(ShardResult.from_json, fields)) or None
  except StoreError:
    raise
  except (AttributeError, OSError, ValueError, KeyError, TypeError):
    results = None
  return RegisteredDataset(folder, fingerprint, results, num_failed, shard_sha256)


def is_complete_dataset(folder: pathlib.Path, plan: plan_lib.Plan) -> bool:
  """Returns whether a folder contains the dataset of a plan, and nothing is missing.

  Nothing is written, and no lock is needed: a dataset appears complete or not at all.

  Raises:
    UsageError: it contains a dataset that was made from other inputs.
  """
  dataset = read(folder)
  if dataset is None:
    return False
  dataset.check_inputs(plan)
  return dataset.is_complete(dataset.intact_shards())


def _metadata_fields(folder: pathlib.Path) -> dict[str, Any]:
  """Returns the fields of metadata.json; empty if the file is missing or damaged.

  They are not checked as `stored_metadata.read` does: with one damaged field, the others
  still show which inputs the dataset was made from.
  """
  try:
    fields = stored_metadata.read_fields(folder)
  except StoreError:
    raise
  except (OSError, ValueError):
    return {}
  return fields if isinstance(fields, dict) else {}


def _has_same_tasks(shard: plan_lib.Shard, result: ShardResult) -> bool:
  """Returns whether a shard was made from the tasks of the plan.

  A repaired scan has another fingerprint, because its header or its size has changed.
  """
  failed = result.failed_scans
  if len(result.inputs) != len(shard.tasks):
    return False
  if not failed:
    return shard.fingerprint == result.fingerprint
  recorded = [(task.seriesuid, task.fingerprint) for task in result.inputs]
  planned = [
    (task.seriesuid, fingerprint)
    for task, fingerprint in zip(shard.tasks, shard.task_fingerprints, strict=True)
    if isinstance(task, ScanTask)
  ]
  return len(recorded) == len(planned) and all(
    name == planned_name and (fingerprint == planned_fingerprint or name in failed)
    for (name, fingerprint), (planned_name, planned_fingerprint) in zip(
      recorded, planned
    )
  )
