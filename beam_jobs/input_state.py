"""The state of the input files of a shard, to detect that they were modified."""

from __future__ import annotations

from collections.abc import Collection, Sequence
import dataclasses
from typing import Any

from beam_jobs import plan as plan_lib
from beam_jobs import tasks
from luna_tfds import dataclass_json
from luna_tfds.files.store_requests import StoreError


@dataclasses.dataclass(frozen=True)
class InputFile:
  """An input file.

  Attributes:
    name: its name without the folder, so that the download may be moved.
    num_bytes: its size; -1 if it is missing.
    modified_ns: when it was modified, in ns since the epoch; -1 if it is missing, 0 if
      the ETag tells whether it was.
    etag: its ETag in a store; '' on a disk, or if the store has none.
  """

  name: str
  num_bytes: int
  modified_ns: int
  etag: str = ''


@dataclasses.dataclass(frozen=True)
class TaskInputs:
  """The input of one task of a shard.

  Attributes:
    seriesuid: the scan; empty for the article's patches.
    fingerprint: fingerprint of the task.
    files: the files that are read.
  """

  seriesuid: str
  fingerprint: str
  files: tuple[InputFile, ...]

  @classmethod
  def from_json(cls, fields: dict[str, Any]) -> TaskInputs:
    """Restores the output of `dataclasses.asdict`."""
    files = tuple(dataclass_json.make(InputFile, file) for file in fields['files'])
    return dataclass_json.make(cls, {**fields, 'files': files})


def read_state(task: tasks.Task, fingerprint: str) -> TaskInputs:
  """Returns the state of the input of a task now.

  Args:
    task: a task of the plan.
    fingerprint: its fingerprint.
  """
  files = []
  for path in tasks.input_files(task):
    try:
      status = path.stat()
      etag = getattr(status, 'etag', '')
      modified_ns = 0 if etag else status.st_mtime_ns
      files.append(InputFile(path.name, status.st_size, modified_ns, etag))
    except StoreError:
      raise
    except OSError:
      files.append(InputFile(path.name, -1, -1))
  seriesuid = task.seriesuid if isinstance(task, tasks.ScanTask) else ''
  return TaskInputs(seriesuid, fingerprint, tuple(files))


def modified_file(
  shard: plan_lib.Shard, recorded: Sequence[TaskInputs], ignored: Collection[str] = ()
) -> str | None:
  """Returns the name of an input file that is not as recorded, None if there is none.

  Args:
    shard: a shard of the plan.
    recorded: the state of the input of its tasks when they were read.
    ignored: seriesuids of scans whose files may differ.
  """
  planned = zip(shard.tasks, shard.task_fingerprints, recorded, strict=True)
  for task, fingerprint, before in planned:
    now = read_state(task, fingerprint)
    if now.files != before.files and before.seriesuid not in ignored:
      changed = set(now.files) ^ set(before.files)
      # A damaged record may name a file twice, so that the sets are equal.
      return min(file.name for file in changed or now.files)
  return None
