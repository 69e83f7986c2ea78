"""Checks of what a job is given, for the job and for `--dry_run`."""

from __future__ import annotations

import pathlib

from beam_jobs import plan as plan_lib
from beam_jobs import plan_fingerprints
from beam_jobs.job_folder import JobFolder
from beam_jobs.tasks import ScanTask
from luna_tfds import luna16_patches
from luna_tfds.errors import JobError
from luna_tfds.errors import UsageError
from luna_tfds.files import store_path
from luna_tfds.files.store_path import StorePath


def check_not_empty(plan: plan_lib.Plan) -> None:
  """Raises UsageError if a plan has no record."""
  if not plan.shards:
    raise UsageError(
      'no candidate is in a scan on disk; check that the CSV files belong to the scans'
    )


def check_links(folder: JobFolder) -> None:
  """Raises UsageError if a link to a missing folder has a name that the job needs.

  It would be found at the end of the job only.
  """
  for path in (folder.final, folder.dataset_dir / '.config'):
    if not isinstance(path, StorePath) and path.is_symlink() and not path.exists():
      raise UsageError(
        f'{path}: it is a symbolic link to a missing folder; delete it or make the folder'
      )


def check_unchanged(
  plan: plan_lib.Plan,
  luna_dir: pathlib.Path,
  config: luna16_patches.Luna16PatchesConfig,
) -> None:
  """Checks that no scan was replaced by another since the plan was made.

  Args:
    plan: the plan.
    luna_dir: the folder it was made from.
    config: config of the dataset.

  Raises:
    JobError: the header or the size of a scan is not that of the plan.
  """

  def is_modified(item: tuple[str, ScanTask, str]) -> bool:
    split, task, fingerprint = item
    fields = plan_fingerprints.task_fields(task, luna_dir)
    return plan_fingerprints.records_fingerprint(split, config, [fields]) != fingerprint

  items = [
    (shard.split, task, fingerprint)
    for shard in plan.shards
    for task, fingerprint in zip(shard.tasks, shard.task_fingerprints)
    if isinstance(task, ScanTask)
  ]
  modified = store_path.map_files(is_modified, items, luna_dir)
  paths = [task.path for (_, task, _), m in zip(items, modified) if m]
  if paths:
    raise JobError(
      f'{paths[0]}: the scan was modified while the job ran; run the same command again'
    )
