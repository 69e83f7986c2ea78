"""What a job would read and write, from headers and CSVs alone."""

from __future__ import annotations

import collections
from collections.abc import Sequence
import dataclasses
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
  found = _Readings()
  header = ('split', 'scans', 'candidates', 'nodules', 'shards', 'to read', 'to write')
  rows: list[tuple[str, ...]] = [header]
  rows += [_row(split, plan, config, found) for split in plan.splits]
  free = shutil.disk_usage(_existing_parent(final)).free
  lines = [f'{config.name}: {config.description}', *_aligned(rows), '']
  lines.append(
    f'in all {plan.num_records} records in {len(plan.shards)} shards; '
    f'{human_bytes(found.num_bytes)} to read, {human_bytes(plan.num_bytes)} to write'
  )
  if found.modes:
    lines.append(
      f'{found.modes["regions"]} scans are read by region, {found.modes["whole"]} whole'
    )
  if plan.candidates_elsewhere:
    lines.append(
      f'{plan.candidates_elsewhere} candidates are left out: their scans are not on disk'
    )
  if found.unreadable:
    lines.append(
      f'{len(found.unreadable)} scans cannot be read, e.g. {found.unreadable[0]}'
    )
  room = 'enough' if free > plan.num_bytes else 'NOT ENOUGH'
  lines.append(f'{human_bytes(free)} are free at {final.parent}: {room}')
  lines.append(f'fingerprint {plan.fingerprint}')
  return '\n'.join(lines)


@dataclasses.dataclass
class _Readings:
  """What the headers tell."""

  num_bytes: int = 0
  modes: collections.Counter[str] = dataclasses.field(
    default_factory=collections.Counter
  )
  unreadable: list[str] = dataclasses.field(default_factory=list)


def _row(
  split: str,
  plan: plan_lib.Plan,
  config: luna16_patches.Luna16PatchesConfig,
  found: _Readings,
) -> tuple[str, ...]:
  """A split's row of the table; adds what its headers tell to `found`."""
  shards = plan.of_split(split)
  tasks = [task for shard in shards for task in shard.tasks]
  before = found.num_bytes
  for task in tasks:
    if isinstance(task, plan_lib.ArticleTask):
      found.num_bytes += sum(image.path.stat().st_size for image in task.images)
      continue
    try:
      reading = _reading(task, config)
    except ScanError as error:
      found.unreadable.append(str(error))
      continue
    found.modes[reading.mode] += 1
    found.num_bytes += reading.num_bytes
  num_records = sum(shard.num_records for shard in shards)
  return (
    split,
    str(sum(shard.num_scans for shard in shards)),
    str(num_records),
    str(sum(int(task.labels.sum()) for task in tasks)),
    str(len(shards)),
    human_bytes(found.num_bytes - before),
    human_bytes(num_records * plan.record_bytes),
  )


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
