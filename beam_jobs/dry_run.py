"""A summary of what a job would read and write, from the plan and the scan headers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import dataclasses
import os
import pathlib

from beam_jobs import job_checks
from beam_jobs import job_folders
from beam_jobs import plan as plan_lib
from beam_jobs import registered_dataset
from beam_jobs.job_folder import JobFolder
from beam_jobs.tasks import ArticleTask
from luna_tfds import extractor
from luna_tfds import luna16_patches
from luna_tfds.errors import JobError
from luna_tfds.errors import ScanError
from luna_tfds.errors import UsageError
from luna_tfds.files.store_path import StorePath
from luna_tfds.scans import scan as scan_lib
from luna_tfds.text_format import bytes_text
from luna_tfds.text_format import count_text

_HEADER = ('split', 'scans', 'candidates', 'nodules', 'shards', 'to read', 'to write')


def run(
  luna_dir: pathlib.Path,
  config: luna16_patches.Luna16PatchesConfig,
  final: pathlib.Path,
  *,
  overwrite: bool = False,
  max_failed_scans: int = 0,
) -> None:
  """Prints the summary of a new dataset, and fails where the job would fail.

  It does not find that another job is writing the dataset, or that a store cannot be
  written.

  Args:
    luna_dir: the LUNA16 download.
    config: config of the dataset.
    final: folder of the dataset; it need not exist.
    overwrite: see `job.prepare`.
    max_failed_scans: see `job.prepare`.

  Raises:
    UsageError: the job would reject its input or its data folder.
    JobError: the job would fail because of unreadable scans.
    OSError: there is not enough disk space.
  """
  plan = plan_lib.make_plan(luna_dir, config)
  job_checks.check_not_empty(plan)
  folder = job_folders.job_folder(final)
  job_checks.check_links(folder)
  registered = registered_dataset.read(final) if folder.has_dataset() else None
  if registered and not overwrite:
    registered.check_inputs(plan)
    if registered.is_complete(registered.intact_shards()):
      print(f'already complete, nothing to read or write: {final}')
      return
  costs = _read_costs(plan, config)
  print(_text(plan, costs, config, folder))
  errors = [error for cost in costs.values() for error in cost.errors]
  if len(errors) > max_failed_scans:
    raise JobError(
      f'{count_text(len(errors), "scan")} cannot be read, more than '
      f'--max_failed_scans={max_failed_scans}; fix them or raise the limit'
    )
  _check_data_dir(final)
  folder.check_free_space(plan.num_bytes)


def summary(
  luna_dir: pathlib.Path,
  config: luna16_patches.Luna16PatchesConfig,
  final: pathlib.Path,
) -> str:
  """Returns a table with a row per split, and totals.

  Args:
    luna_dir: the LUNA16 download.
    config: config of the dataset.
    final: folder of the dataset; it need not exist.

  Raises:
    UsageError: an input file is missing or invalid.
  """
  plan = plan_lib.make_plan(luna_dir, config)
  folder = job_folders.job_folder(final)
  return _text(plan, _read_costs(plan, config), config, folder)


def _text(
  plan: plan_lib.Plan,
  costs: Mapping[str, _ReadCost],
  config: luna16_patches.Luna16PatchesConfig,
  folder: JobFolder,
) -> str:
  """Returns the table and the totals."""
  rows = [_HEADER, *(_row(split, plan, cost) for split, cost in costs.items())]
  lines = [f'{config.name}: {config.description}', *_aligned(rows), '']
  num_bytes = sum(cost.num_bytes for cost in costs.values())
  lines.append(
    f'total: {count_text(plan.num_records, "record")} in '
    f'{count_text(len(plan.shards), "shard")}; {bytes_text(num_bytes)} to read, '
    f'{bytes_text(plan.num_bytes)} to write'
  )
  if plan.num_scans:
    by_region = sum(cost.scans_by_region for cost in costs.values())
    complete = sum(cost.scans_complete for cost in costs.values())
    lines.append(
      f'regions are read of {count_text(by_region, "scan")}, all voxels of '
      f'{count_text(complete, "scan")}'
    )
  if plan.candidates_without_scan:
    candidates = count_text(plan.candidates_without_scan, 'candidate')
    lines.append(f'{candidates} without a scan on disk; not extracted')
  errors = [error for cost in costs.values() for error in cost.errors]
  if errors:
    lines.append(f'{count_text(len(errors), "scan")} cannot be read, e.g. {errors[0]}')
  free = folder.free_bytes()
  if free is not None:
    enough = 'enough' if free >= folder.needed_bytes(plan.num_bytes) else 'NOT ENOUGH'
    place = folder.final.parent
    lines.append(f'disk space at {place}: {bytes_text(free)} free, {enough}')
  lines.append(f'fingerprint {plan.fingerprint}')
  return '\n'.join(lines)


@dataclasses.dataclass
class _ReadCost:
  """What would be read of a split.

  Attributes:
    num_bytes: bytes to read.
    scans_by_region: number of scans of which only regions are read.
    scans_complete: number of scans that are read completely.
    errors: messages of the scans that cannot be read.
  """

  num_bytes: int = 0
  scans_by_region: int = 0
  scans_complete: int = 0
  errors: list[str] = dataclasses.field(default_factory=list)


def _read_costs(
  plan: plan_lib.Plan, config: luna16_patches.Luna16PatchesConfig
) -> dict[str, _ReadCost]:
  """Returns what would be read of each split."""
  return {split: _read_cost(plan.of_split(split), config) for split in plan.splits}


def _check_data_dir(final: pathlib.Path) -> None:
  """Raises UsageError if the folder of the dataset cannot be made; makes nothing."""
  if isinstance(final, StorePath):
    return
  # A symbolic link to a missing folder is in the way, too.
  parent = next(folder for folder in final.parents if os.path.lexists(folder))
  if not parent.is_dir() or not os.access(parent, os.W_OK | os.X_OK):
    cause = f', because of {parent}' if parent != final.parent else ''
    raise UsageError(
      f'{final.parent}: cannot be written{cause}; give a writable --data_dir'
    )


def _read_cost(
  shards: Sequence[plan_lib.Shard], config: luna16_patches.Luna16PatchesConfig
) -> _ReadCost:
  cost = _ReadCost()
  for task in (task for shard in shards for task in shard.tasks):
    if isinstance(task, ArticleTask):
      cost.num_bytes += sum(image.path.stat().st_size for image in task.images)
      continue
    try:
      scan = scan_lib.open_scan(task.path)
    except ScanError as error:
      cost.errors.append(str(error))
      continue
    extraction = extractor.Extraction(scan, task.centers_xyz_mm, config.spec)
    cost.num_bytes += extraction.bytes_to_read
    cost.scans_by_region += scan.raw is not None
    cost.scans_complete += scan.raw is None
  return cost


def _row(split: str, plan: plan_lib.Plan, cost: _ReadCost) -> tuple[str, ...]:
  """Returns the row of a split; its columns are those of `_HEADER`."""
  shards = plan.of_split(split)
  num_records = sum(shard.num_records for shard in shards)
  nodules = sum(int(task.labels.sum()) for shard in shards for task in shard.tasks)
  return (
    split,
    str(sum(shard.num_scans for shard in shards)),
    str(num_records),
    str(nodules),
    str(len(shards)),
    bytes_text(cost.num_bytes),
    bytes_text(num_records * plan.record_bytes),
  )


def _aligned(rows: Sequence[tuple[str, ...]]) -> list[str]:
  """Returns the rows as lines with aligned columns, the first to the left."""
  widths = [max(len(row[k]) for row in rows) for k in range(len(rows[0]))]
  return [
    '  '.join(
      cell.ljust(width) if k == 0 else cell.rjust(width)
      for k, (cell, width) in enumerate(zip(row, widths))
    )
    for row in rows
  ]
