"""Cuts and writes one shard. Plain functions, without Beam and without TensorFlow."""

from __future__ import annotations

from collections.abc import Iterator
import dataclasses
import pathlib

import numpy as np

from beam_jobs.job_folder import JobFolder
from beam_jobs.plan import ArticleTask
from beam_jobs.plan import ScanTask
from beam_jobs.plan import Shard
from luna_tfds import article_patches
from luna_tfds import extractor
from luna_tfds import patches
from luna_tfds import record_keys
from luna_tfds import records
from luna_tfds import scan as scan_lib
from luna_tfds import tfrecord
from luna_tfds.errors import ScanError


@dataclasses.dataclass(frozen=True)
class FailedScan:
  """A scan that could not be read."""

  seriesuid: str
  candidates_lost: int
  reason: str


@dataclasses.dataclass
class ShardStats:
  """What happened while a shard was cut.

  Attributes:
    label_counts: records of non-nodules and of nodules.
    scans_read: scans opened and read.
    bytes_read: voxel bytes read.
    patches_padded: records of which a part lies outside the scan.
    candidates_outside: records whose very centre does.
    failed: the scans that could not be read.
  """

  label_counts: list[int] = dataclasses.field(default_factory=lambda: [0, 0])
  scans_read: int = 0
  bytes_read: int = 0
  patches_padded: int = 0
  candidates_outside: int = 0
  failed: list[FailedScan] = dataclasses.field(default_factory=list)


@dataclasses.dataclass(frozen=True)
class ShardResult:
  """The one row a worker returns for a shard.

  Attributes:
    split: of the shard.
    index: its place in the split.
    subset: of its scans.
    fingerprint: of the shard.
    num_records: records written.
    num_bytes: size of the file.
    stats: what happened.
  """

  split: str
  index: int
  subset: int
  fingerprint: str
  num_records: int
  num_bytes: int
  stats: ShardStats

  def to_json(self) -> dict:
    """Plain values, for `JobFolder.finish_shard`."""
    return dataclasses.asdict(self)

  @classmethod
  def from_json(cls, fields: dict) -> ShardResult:
    """Inverse of `to_json`."""
    stats = dict(fields['stats'])
    stats['failed'] = [FailedScan(**failed) for failed in stats['failed']]
    return cls(**{**fields, 'stats': ShardStats(**stats)})


def write_shard(
  shard: Shard, spec: patches.PatchSpec, seed: int, folder: JobFolder
) -> ShardResult:
  """Cuts the patches of a shard, shuffles them by hash and writes them.

  Memory is the shard's records and one scan.

  Args:
    shard: what to cut.
    spec: how.
    seed: seed of the hash that orders the records.
    folder: where finished shards go.

  Returns:
    What was written; scans that cannot be read are left out and listed in it.

  Raises:
    OSError: the disk is full or cannot be written.
  """
  folder.check_room(shard.num_records * records.record_bytes(spec.image_shape))
  stats = ShardStats()
  encoder = records.RecordEncoder(spec.image_shape)
  keyed: list[tuple[str, bytes]] = []
  for task in shard.tasks:
    kept = len(keyed)
    counts = list(stats.label_counts)
    try:
      for record in _cut(task, spec, stats):
        keyed.append((record.key, encoder.encode(record)))
        stats.label_counts[record.label] += 1
    except ScanError as error:
      del keyed[kept:]
      stats.label_counts = counts
      assert isinstance(task, ScanTask)  # only scans raise it
      stats.failed.append(FailedScan(task.seriesuid, len(task.labels), str(error)))
    folder.note_progress(shard.fingerprint, task.num_scans)
  order = np.argsort(
    record_keys.hash_keys((key for key, _ in keyed), seed, 'shuffle'), kind='stable'
  )
  part = folder.part(shard)
  with folder.writing(part) as path:
    num_bytes = tfrecord.write_tfrecords(path, (keyed[i][1] for i in order))
  result = ShardResult(
    split=shard.split,
    index=shard.index,
    subset=shard.subset,
    fingerprint=shard.fingerprint,
    num_records=len(keyed),
    num_bytes=num_bytes,
    stats=stats,
  )
  folder.finish_shard(shard, result.to_json())
  return result


def _cut(
  task: ScanTask | ArticleTask, spec: patches.PatchSpec, stats: ShardStats
) -> Iterator[records.Record]:
  if isinstance(task, ArticleTask):
    yield from _cut_article(task, stats)
  else:
    yield from _cut_scan(task, spec, stats)


def _cut_scan(
  task: ScanTask, spec: patches.PatchSpec, stats: ShardStats
) -> Iterator[records.Record]:
  scan = scan_lib.open_scan(pathlib.Path(task.path))
  extraction = extractor.Extraction(scan, task.centers_xyz_mm, spec)
  for i, patch in enumerate(extraction):
    yield records.Record(
      image=patch.image,
      label=int(task.labels[i]),
      seriesuid=task.seriesuid,
      candidate_id=int(task.candidate_ids[i]),
      subset=task.subset,
      center_xyz_mm=task.centers_xyz_mm[i],
      center_zyx=patch.center_zyx,
      spacing_xyz_mm=patch.spacing_xyz_mm,
      nodule_id=int(task.findings.nodule_id[i]),
      diameter_mm=float(task.findings.diameter_mm[i]),
      excluded=bool(task.findings.excluded[i]),
    )
  stats.scans_read += 1
  stats.bytes_read += extraction.reading.num_bytes
  stats.patches_padded += extraction.num_padded
  stats.candidates_outside += extraction.num_outside


def _cut_article(task: ArticleTask, stats: ShardStats) -> Iterator[records.Record]:
  for item in task.images:
    image, padded = article_patches.read_image(item)
    stats.patches_padded += padded
    yield records.Record(image, item.label, candidate_id=item.candidate_id)
