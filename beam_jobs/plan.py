"""The shard plan: every record, its split and its shard, before a pixel is read.

A pure function of the CSVs, the names and sizes of the files on disk, the config and
its seed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
import dataclasses
import hashlib
import itertools
import json
import pathlib
from typing import Any

from absl import logging
import numpy as np

from luna_tfds import article_patches
from luna_tfds import candidate_selection
from luna_tfds import download as download_lib
from luna_tfds import luna16_patches
from luna_tfds import matching
from luna_tfds import records
from luna_tfds import scan as scan_lib
from luna_tfds import splits
from luna_tfds import tables
from luna_tfds.errors import ScanError

# Changes when the same inputs would give other bytes.
_FORMAT = 1

MAX_SHARD_BYTES = 128 * 2**20
# Bounds what is lost when a worker is killed, and gives every core something to do
# where patches are small.
MAX_SCANS_PER_SHARD = 10
_IMAGES_PER_TASK = 256


@dataclasses.dataclass(frozen=True)
class ScanTask:
  """The candidates of one scan; arrays have one entry a candidate.

  Attributes:
    seriesuid: the scan.
    path: its `.mhd` file.
    subset: 0..9.
    candidate_ids: [n] int64, rows in the candidates file.
    labels: [n] int8, 1 for a nodule.
    centers_xyz_mm: [n, 3] float64.
    findings: what each candidate hits.
  """

  seriesuid: str
  path: str
  subset: int
  candidate_ids: np.ndarray
  labels: np.ndarray
  centers_xyz_mm: np.ndarray
  findings: matching.CandidateMatches

  @property
  def num_scans(self) -> int:
    """Scans read for the task."""
    return 1


@dataclasses.dataclass(frozen=True)
class ArticleTask:
  """Some of the article's patches."""

  images: tuple[article_patches.ArticleImage, ...]

  @property
  def labels(self) -> np.ndarray:
    """[n] int8, 1 for a nodule."""
    return np.array([image.label for image in self.images], np.int8)

  @property
  def num_scans(self) -> int:
    """Scans read for the task: the article published patches only."""
    return 0


Task = ScanTask | ArticleTask


@dataclasses.dataclass(frozen=True)
class Shard:
  """A group of scans of one subset: one file, one unit of work.

  Attributes:
    split: 'train', 'validation' or 'test'.
    index: its place in the split.
    subset: of all its scans; -1 if unknown.
    tasks: what to read.
    fingerprint: of all that decides its bytes.
  """

  split: str
  index: int
  subset: int
  tasks: tuple[Task, ...]
  fingerprint: str

  @property
  def num_records(self) -> int:
    """Records planned."""
    return sum(len(task.labels) for task in self.tasks)

  @property
  def num_scans(self) -> int:
    """Scans to read."""
    return sum(task.num_scans for task in self.tasks)


@dataclasses.dataclass(frozen=True)
class Plan:
  """All shards of a dataset.

  Attributes:
    shards: ordered by split and index.
    record_bytes: about what one record takes.
    candidates_elsewhere: candidates of scans that are not on disk.
    scans_on_disk: scans found.
  """

  shards: tuple[Shard, ...]
  record_bytes: int
  candidates_elsewhere: int = 0
  scans_on_disk: int = 0

  @property
  def fingerprint(self) -> str:
    """Of all that decides the dataset's bytes."""
    return _digest([(s.split, s.index, s.fingerprint) for s in self.shards])

  @property
  def num_records(self) -> int:
    """Records planned."""
    return sum(shard.num_records for shard in self.shards)

  @property
  def num_scans(self) -> int:
    """Scans to read."""
    return sum(shard.num_scans for shard in self.shards)

  @property
  def num_bytes(self) -> int:
    """About what the dataset takes on disk."""
    return self.num_records * self.record_bytes

  def of_split(self, split: str) -> list[Shard]:
    """The shards of a split, in order."""
    return [shard for shard in self.shards if shard.split == split]

  @property
  def splits(self) -> list[str]:
    """The splits that hold records, in their usual order."""
    return [s for s in splits.SPLITS if any(s == shard.split for shard in self.shards)]


def make_plan(
  luna_dir: pathlib.Path, config: luna16_patches.Luna16PatchesConfig
) -> Plan:
  """Plans a dataset.

  Args:
    luna_dir: the LUNA16 download, or the folder of the article's patches.
    config: what goes in.

  Returns:
    The plan.

  Raises:
    UsageError: an input file is missing or wrong.
  """
  record_bytes = records.record_bytes(config.spec.image_shape)
  if config.source == 'article':
    by_split: dict[str, list[tuple[int, Task]]] = {
      split: [(-1, task) for task in _article_tasks(images)]
      for split, images in article_patches.read_lists(luna_dir).items()
    }
    return Plan(_pack(by_split, luna_dir, config, record_bytes), record_bytes)
  tasks, elsewhere, on_disk = _scan_tasks(luna_dir, config)
  by_split = {
    split: [(t.subset, t) for t in tasks if splits.split_of_subset(t.subset) == split]
    for split in splits.SPLITS
  }
  shards = _pack(by_split, luna_dir, config, record_bytes)
  return Plan(shards, record_bytes, elsewhere, on_disk)


def pack_tasks(
  tasks: Iterable[Task],
  record_bytes: int,
  max_bytes: int = MAX_SHARD_BYTES,
  max_scans: int = MAX_SCANS_PER_SHARD,
) -> Iterator[tuple[Task, ...]]:
  """Groups tasks of one subset into shards, in their order.

  Args:
    tasks: what to read.
    record_bytes: what one record takes.
    max_bytes: a shard is at most this large, unless one task alone is larger.
    max_scans: a shard holds at most this many scans.

  Yields:
    The tasks of each shard; none is empty.
  """
  group: list[Task] = []
  num_bytes = 0
  for task in tasks:
    task_bytes = len(task.labels) * record_bytes
    full = num_bytes + task_bytes > max_bytes or (
      sum(t.num_scans for t in group) + task.num_scans > max_scans
    )
    if group and full:
      yield tuple(group)
      group, num_bytes = [], 0
    group.append(task)
    num_bytes += task_bytes
  if group:
    yield tuple(group)


def _pack(
  by_split: Mapping[str, Sequence[tuple[int, Task]]],
  luna_dir: pathlib.Path,
  config: luna16_patches.Luna16PatchesConfig,
  record_bytes: int,
) -> tuple[Shard, ...]:
  shards = []
  for split, tasks in by_split.items():
    index = 0
    ordered = sorted(tasks, key=lambda item: item[0])
    for subset, members in itertools.groupby(ordered, key=lambda item: item[0]):
      for group in pack_tasks((task for _, task in members), record_bytes):
        fields = [_FORMAT, config.fingerprint_fields(), split]
        fields += [_task_fields(task, luna_dir) for task in group]
        shards.append(Shard(split, index, subset, group, _digest(fields)))
        index += 1
  return tuple(shards)


def _scan_tasks(
  luna_dir: pathlib.Path, config: luna16_patches.Luna16PatchesConfig
) -> tuple[list[ScanTask], int, int]:
  """Returns the tasks in order of seriesuid, candidates elsewhere, scans on disk."""
  scans = download_lib.find_scans(luna_dir)
  if config.subsets is not None:
    scans = {k: s for k, s in scans.items() if s.subset in config.subsets}
  table = tables.read_candidates(
    download_lib.require_file(
      luna_dir, download_lib.CANDIDATE_LISTS[config.candidate_list]
    )
  )
  nodules = tables.read_findings(
    download_lib.require_file(luna_dir, download_lib.ANNOTATIONS)
  )
  excluded_path = download_lib.find_file(luna_dir, download_lib.ANNOTATIONS_EXCLUDED)
  if excluded_path is None:
    logging.warning(
      "%s: %s is missing, so that no record is marked as excluded; it is in LUNA16's "
      'evaluationScript.zip',
      luna_dir,
      download_lib.ANNOTATIONS_EXCLUDED,
    )
    excluded = nodules[[]]
  else:
    excluded = tables.read_findings(excluded_path)
  on_disk = np.array([name in scans for name in table.seriesuids], bool)
  elsewhere = len(table) - int(on_disk.sum())
  table = table[on_disk]
  table = table[_chosen(table, scans, config)]
  findings = matching.match_findings(table, nodules, excluded)
  tasks = []
  for seriesuid, rows in table.groups().items():
    tasks.append(
      ScanTask(
        seriesuid=seriesuid,
        path=str(scans[seriesuid].path),
        subset=scans[seriesuid].subset,
        candidate_ids=table.rows[rows],
        labels=table.values[rows].astype(np.int8),
        centers_xyz_mm=table.xyz_mm[rows],
        findings=matching.CandidateMatches(
          findings.nodule_id[rows],
          findings.diameter_mm[rows],
          findings.excluded[rows],
        ),
      )
    )
  return tasks, elsewhere, len(scans)


def _chosen(
  table: tables.PointTable,
  scans: Mapping[str, download_lib.ScanFile],
  config: luna16_patches.Luna16PatchesConfig,
) -> np.ndarray:
  return candidate_selection.select_candidates(
    seriesuids=table.seriesuids,
    candidate_ids=table.rows,
    labels=table.values,
    subsets=np.array([scans[name].subset for name in table.seriesuids], np.int64),
    negatives_per_positive=config.negatives_per_positive,
    seed=config.seed,
  )


def _article_tasks(
  images: Sequence[article_patches.ArticleImage],
) -> Iterator[ArticleTask]:
  for start in range(0, len(images), _IMAGES_PER_TASK):
    yield ArticleTask(tuple(images[start : start + _IMAGES_PER_TASK]))


def _task_fields(task: Task, luna_dir: pathlib.Path) -> list[Any]:
  """What of a task decides the bytes of its records."""
  if isinstance(task, ArticleTask):
    return [
      [str(i.path.relative_to(luna_dir)), i.label, i.path.stat().st_size]
      for i in task.images
    ]
  path = pathlib.Path(task.path)
  return [
    str(path.relative_to(luna_dir)),
    path.read_bytes().hex(),
    _data_file_size(path),
    task.subset,
    *(
      hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()
      for array in (
        task.candidate_ids,
        task.labels,
        task.centers_xyz_mm,
        task.findings.nodule_id,
        task.findings.diameter_mm,
        task.findings.excluded,
      )
    ),
  ]


def _data_file_size(path: pathlib.Path) -> int:
  """-1 if the header or the file is wrong; the worker will say how."""
  try:
    return scan_lib.data_file_of(path).stat().st_size
  except (ScanError, OSError):
    return -1


def _digest(fields: Any) -> str:
  text = json.dumps(fields, sort_keys=True, separators=(',', ':'))
  return hashlib.sha256(text.encode()).hexdigest()[:16]


def input_files(shard: Shard) -> list[pathlib.Path]:
  """Returns the files a shard is cut from."""
  files = []
  for task in shard.tasks:
    if isinstance(task, ArticleTask):
      files += [image.path for image in task.images]
      continue
    path = pathlib.Path(task.path)
    files.append(path)
    try:
      files.append(scan_lib.data_file_of(path))
    except ScanError:
      continue  # the worker reports it
  return files
