"""The shard plan: every record, its split and its shard, before any voxel is read.

A pure function of the CSV files, the names and sizes of the scans on disk, the config and
its seed.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
import dataclasses
import itertools
import pathlib

from absl import logging
import numpy as np

from beam_jobs import plan_fingerprints
from beam_jobs.tasks import ArticleTask
from beam_jobs.tasks import ScanTask
from beam_jobs.tasks import Task
from luna_tfds import article_patches
from luna_tfds import candidate_selection
from luna_tfds import download as download_lib
from luna_tfds import input_checks
from luna_tfds import luna16_patches
from luna_tfds import matching
from luna_tfds import record_keys
from luna_tfds import records
from luna_tfds import splits
from luna_tfds import tables
from luna_tfds.files import store_path

MAX_SHARD_BYTES = 128 * 2**20
# Limits the work that is lost when a worker is killed, and makes enough shards for all
# cores when patches are small.
MAX_SCANS_PER_SHARD = 10
_IMAGES_PER_TASK = 256


@dataclasses.dataclass(frozen=True)
class Shard:
  """A group of scans of one subset: one file and one unit of work.

  Attributes:
    split: 'train', 'validation' or 'test'.
    index: number of the shard in its split.
    subset: subset of all its scans; -1 if unknown.
    tasks: the scans and their candidates.
    fingerprint: hash of everything that determines the bytes of the file.
    task_fingerprints: for each task, a hash of everything that determines the bytes of
      its records.
  """

  split: str
  index: int
  subset: int
  tasks: tuple[Task, ...]
  fingerprint: str
  task_fingerprints: tuple[str, ...]

  @property
  def num_records(self) -> int:
    """Number of planned records."""
    return sum(len(task.labels) for task in self.tasks)

  @property
  def num_scans(self) -> int:
    """Number of scans to read."""
    return sum(task.num_scans for task in self.tasks)

  def record_keys(self, without: Collection[str] = ()) -> Iterator[str]:
    """Yields the key of each planned record.

    Args:
      without: seriesuids of the scans to leave out.
    """
    for task in self.tasks:
      if isinstance(task, ArticleTask):
        for image in task.images:
          yield record_keys.record_key('', image.candidate_id)
      elif task.seriesuid not in without:
        for candidate_id in task.candidate_ids:
          yield record_keys.record_key(task.seriesuid, int(candidate_id))


@dataclasses.dataclass(frozen=True)
class Plan:
  """All shards of a dataset.

  Attributes:
    shards: ordered by split and index.
    record_bytes: approximate size of a record.
    candidates_without_scan: number of candidates whose scan is not on disk.
    scans_on_disk: number of scans on disk.
  """

  shards: tuple[Shard, ...]
  record_bytes: int
  candidates_without_scan: int = 0
  scans_on_disk: int = 0

  @property
  def fingerprint(self) -> str:
    """Hash of everything that determines the bytes of the dataset."""
    return plan_fingerprints.fingerprint(
      [(s.split, s.index, s.fingerprint) for s in self.shards]
    )

  @property
  def num_records(self) -> int:
    """Number of planned records."""
    return sum(shard.num_records for shard in self.shards)

  @property
  def num_scans(self) -> int:
    """Number of scans to read."""
    return sum(shard.num_scans for shard in self.shards)

  @property
  def num_bytes(self) -> int:
    """Approximate size of the dataset."""
    return self.num_records * self.record_bytes

  def of_split(self, split: str) -> list[Shard]:
    """Returns the shards of a split, in order."""
    return [shard for shard in self.shards if shard.split == split]

  @property
  def splits(self) -> list[str]:
    """The splits that contain records: a part of train, validation, test."""
    return [s for s in splits.SPLITS if any(s == shard.split for shard in self.shards)]


def make_plan(
  luna_dir: pathlib.Path, config: luna16_patches.Luna16PatchesConfig
) -> Plan:
  """Plans a dataset.

  Args:
    luna_dir: the LUNA16 download, or the folder of the article's patches.
    config: config of the dataset.

  Returns:
    The plan.

  Raises:
    UsageError: an input file is missing or invalid.
  """
  record_bytes = records.record_bytes(config.spec.image_shape)
  if config.source == 'article':
    by_split: dict[str, list[tuple[int, Task]]] = {
      split: [(-1, task) for task in _article_tasks(images)]
      for split, images in article_patches.read_lists(luna_dir).items()
    }
    return Plan(_make_shards(by_split, luna_dir, config, record_bytes), record_bytes)
  scans = _find_scans(luna_dir, config)
  candidates = _read_candidates(luna_dir, config)
  on_disk = np.array([name in scans for name in candidates.seriesuids], bool)
  tasks = _scan_tasks(luna_dir, config, scans, candidates[on_disk])
  input_checks.log_warnings(luna_dir, scans, candidates)
  by_split = {
    split: [(t.subset, t) for t in tasks if splits.split_of_subset(t.subset) == split]
    for split in splits.SPLITS
  }
  return Plan(
    shards=_make_shards(by_split, luna_dir, config, record_bytes),
    record_bytes=record_bytes,
    candidates_without_scan=int(np.count_nonzero(~on_disk)),
    scans_on_disk=len(scans),
  )


def pack_tasks(
  tasks: Iterable[Task],
  record_bytes: int,
  max_bytes: int = MAX_SHARD_BYTES,
  max_scans: int = MAX_SCANS_PER_SHARD,
) -> Iterator[tuple[Task, ...]]:
  """Groups tasks of one subset into shards, in order.

  Args:
    tasks: tasks that are not empty.
    record_bytes: approximate size of a record.
    max_bytes: maximum size of a shard, unless a single task is larger.
    max_scans: maximum number of scans in a shard.

  Yields:
    The tasks of each shard, at least one.
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


def _make_shards(
  by_split: Mapping[str, Sequence[tuple[int, Task]]],
  luna_dir: pathlib.Path,
  config: luna16_patches.Luna16PatchesConfig,
  record_bytes: int,
) -> tuple[Shard, ...]:
  """Groups the (subset, task) of each split into shards."""
  shards = []
  all_tasks = [task for tasks in by_split.values() for _, task in tasks]
  all_fields = store_path.map_files(
    lambda task: plan_fingerprints.task_fields(task, luna_dir), all_tasks, luna_dir
  )
  fields_of = {id(task): fields for task, fields in zip(all_tasks, all_fields)}
  for split, tasks in by_split.items():
    index = 0
    ordered = sorted(tasks, key=lambda item: item[0])
    for subset, members in itertools.groupby(ordered, key=lambda item: item[0]):
      for group in pack_tasks((task for _, task in members), record_bytes):
        fields = [fields_of[id(task)] for task in group]
        shards.append(
          Shard(
            split,
            index,
            subset,
            group,
            fingerprint=plan_fingerprints.records_fingerprint(split, config, fields),
            task_fingerprints=tuple(
              plan_fingerprints.records_fingerprint(split, config, [f]) for f in fields
            ),
          )
        )
        index += 1
  return tuple(shards)


def _find_scans(
  luna_dir: pathlib.Path, config: luna16_patches.Luna16PatchesConfig
) -> dict[str, download_lib.ScanFile]:
  """Returns the scans on disk of the subsets of the config, by seriesuid."""
  scans = download_lib.find_scans(luna_dir)
  if config.subsets is None:
    return scans
  return {name: scan for name, scan in scans.items() if scan.subset in config.subsets}


def _read_candidates(
  luna_dir: pathlib.Path, config: luna16_patches.Luna16PatchesConfig
) -> tables.PointTable:
  name = download_lib.CANDIDATE_LISTS[config.candidate_list]
  return tables.read_candidates(download_lib.require_file(luna_dir, name))


def _match_findings(
  luna_dir: pathlib.Path, candidates: tables.PointTable
) -> matching.CandidateMatches:
  """Matches candidates with annotations.csv and, if it exists, the excluded findings."""
  nodules = tables.read_findings(
    download_lib.require_file(luna_dir, download_lib.ANNOTATIONS)
  )
  excluded_path = download_lib.find_file(luna_dir, download_lib.ANNOTATIONS_EXCLUDED)
  if excluded_path is None:
    logging.warning(
      '%s: %s is missing, so no record is marked as excluded; it is in the '
      'evaluationScript.zip of LUNA16',
      luna_dir,
      download_lib.ANNOTATIONS_EXCLUDED,
    )
    excluded = nodules[[]]
  else:
    excluded = tables.read_findings(excluded_path)
  return matching.match_findings(candidates, nodules, excluded)


def _scan_tasks(
  luna_dir: pathlib.Path,
  config: luna16_patches.Luna16PatchesConfig,
  scans: Mapping[str, download_lib.ScanFile],
  candidates: tables.PointTable,
) -> list[ScanTask]:
  """Returns the tasks of scans with selected candidates, in order of seriesuid.

  Args:
    luna_dir: contains the annotations.
    config: config of the dataset.
    scans: the scans on disk.
    candidates: their candidates.
  """
  selected = candidate_selection.select_candidates(
    seriesuids=candidates.seriesuids,
    candidate_ids=candidates.rows,
    labels=candidates.class_labels,
    subsets=np.array([scans[name].subset for name in candidates.seriesuids], np.int64),
    negatives_per_positive=config.negatives_per_positive,
    seed=config.seed,
  )
  candidates = candidates[selected]
  matches = _match_findings(luna_dir, candidates)
  labels = candidates.class_labels
  return [
    ScanTask(
      seriesuid=seriesuid,
      path=str(scans[seriesuid].path),
      subset=scans[seriesuid].subset,
      candidate_ids=candidates.rows[positions],
      labels=labels[positions],
      centers_xyz_mm=candidates.xyz_mm[positions],
      matches=matches[positions],
    )
    for seriesuid, positions in candidates.groups().items()
  ]


def _article_tasks(
  images: Sequence[article_patches.ArticleImage],
) -> Iterator[ArticleTask]:
  for start in range(0, len(images), _IMAGES_PER_TASK):
    yield ArticleTask(tuple(images[start : start + _IMAGES_PER_TASK]))
