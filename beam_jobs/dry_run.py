"""What a job would read and write, from headers and CSVs alone."""

from __future__ import annotations

import collections
from collections.abc import Sequence
import pathlib
import shutil

from beam_jobs import plan as plan_lib
from luna_tfds import extractor
from luna_tfds import geometry
from luna_tfds import luna16_patches
from luna_tfds import scan as scan_lib
from luna_tfds.errors import ScanError


def report(
  luna_dir: pathlib.Path,
  config: luna16_patches.Luna16PatchesConfig,
  final: pathlib.Path,
) -> str:
  """Returns the plan as a table for people.

  Args:
    luna_dir: the LUNA16 download.
    config: what goes in.
    final: folder of the dataset.

  Raises:
    UsageError: an input file is missing or wrong.
  """
  plan = plan_lib.make_plan(luna_dir, config)
  header = ('split', 'scans', 'candidates', 'nodules', 'shards', 'to read', 'to write')
  rows = [header]
  modes: collections.Counter[str] = collections.Counter()
  unreadable: list[str] = []
  to_read = 0
  for split in plan.splits:
    shards = plan.of_split(split)
    tasks = [task for shard in shards for task in shard.tasks]
    split_bytes = 0
    for task in tasks:
      if isinstance(task, plan_lib.ArticleTask):
        split_bytes += sum(image.path.stat().st_size for image in task.images)
        continue
      try:
        reading = _reading(task, config)
      except ScanError as error:
        unreadable.append(str(error))
        continue
      modes[reading.mode] += 1
      split_bytes += reading.num_bytes
    to_read += split_bytes
    num_records = sum(shard.num_records for shard in shards)
    rows.append(
      (
        split,
        str(sum(shard.num_scans for shard in shards)),
        str(num_records),
        str(sum(int(task.labels.sum()) for task in tasks)),
        str(len(shards)),
        human_bytes(split_bytes),
        human_bytes(num_records * plan.record_bytes),
      )
    )
  free = shutil.disk_usage(_existing_parent(final)).free
  lines = [f'{config.name}: {config.description}', *_aligned(rows), '']
  lines.append(
    f'in all {plan.num_records} records in {len(plan.shards)} shards; '
    f'{human_bytes(to_read)} to read, {human_bytes(plan.num_bytes)} to write'
  )
  if modes:
    lines.append(f'{modes["regions"]} scans are read by region, {modes["whole"]} whole')
  if plan.candidates_elsewhere:
    lines.append(
      f'{plan.candidates_elsewhere} candidates are left out: their scans are not on disk'
    )
  if unreadable:
    lines.append(f'{len(unreadable)} scans cannot be read, e.g. {unreadable[0]}')
  room = 'enough' if free > plan.num_bytes else 'NOT ENOUGH'
  lines.append(f'{human_bytes(free)} are free at {final.parent}: {room}')
  lines.append(f'fingerprint {plan.fingerprint}')
  return '\n'.join(lines)


def human_bytes(num_bytes: int) -> str:
  """Formats a size in decimal units."""
  value = float(num_bytes)
  for unit in ('B', 'kB', 'MB', 'GB', 'TB'):
    if value < 1000 or unit == 'TB':
      return f'{value:.3g} {unit}'
    value /= 1000
  raise AssertionError


def _reading(
  task: plan_lib.ScanTask, config: luna16_patches.Luna16PatchesConfig
) -> extractor.ReadPlan:
  scan = scan_lib.open_scan(pathlib.Path(task.path))
  return extractor.plan_reading(
    scan.grid,
    geometry.world_to_voxel(task.centers_xyz_mm, scan.grid),
    config.spec,
    scan.reads_regions,
    scan.bytes_per_voxel,
  )


def _existing_parent(path: pathlib.Path) -> pathlib.Path:
  """The nearest folder on the way up that is there."""
  while not path.exists():
    path = path.parent
  return path


def _aligned(rows: Sequence[tuple[str, ...]]) -> list[str]:
  widths = [max(len(row[k]) for row in rows) for k in range(len(rows[0]))]
  return [
    '  '.join(
      cell.ljust(width) if k == 0 else cell.rjust(width)
      for k, (cell, width) in enumerate(zip(row, widths))
    )
    for row in rows
  ]
