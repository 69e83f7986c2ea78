"""Extracts and writes one shard: functions that need neither Beam nor TensorFlow."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from beam_jobs import input_state
from beam_jobs.job_folder import JobFolder
from beam_jobs.plan import Shard
from beam_jobs.shard_result import FailedScan
from beam_jobs.shard_result import ShardResult
from beam_jobs.shard_result import ShardStats
from beam_jobs.tasks import ArticleTask
from beam_jobs.tasks import ScanTask
from luna_tfds import article_patches
from luna_tfds import extractor
from luna_tfds import patches
from luna_tfds import record_index
from luna_tfds import record_keys
from luna_tfds import records
from luna_tfds import tfrecord
from luna_tfds.errors import ScanError
from luna_tfds.files import atomic_files
from luna_tfds.files import store_path
from luna_tfds.scans import scan as scan_lib


class _EncodedRecord(NamedTuple):
  """A serialised record, with the features that order and index it."""

  key: str
  label: int
  excluded: bool
  serialized: bytes


def write_shard(
  shard: Shard, spec: patches.PatchSpec, seed: int, folder: JobFolder
) -> ShardResult:
  """Extracts the patches of a shard, shuffles them by hash and writes them.

  It needs memory for the records of the shard and for one scan.

  Args:
    shard: the shard of the plan.
    spec: shape, spacing and layout of a patch.
    seed: seed of the hash that orders the records.
    folder: the job's folder.

  Returns:
    The result; scans that cannot be read are omitted and listed in it.

  Raises:
    OSError: the disk is full or cannot be written, or an image of the article changed
      while it was read.
    UsageError: an image of the article cannot be read.
  """
  folder.reset_progress(shard.fingerprint)
  folder.check_free_space(shard.num_records * records.record_bytes(spec.image_shape))
  stats = ShardStats()
  encoder = records.RecordEncoder(spec.image_shape)
  encoded: list[_EncodedRecord] = []
  inputs = []
  for task, fingerprint in zip(shard.tasks, shard.task_fingerprints, strict=True):
    inputs.append(input_state.read_state(task, fingerprint))
    encoded += _encode_task(task, inputs[-1], spec, encoder, stats)
    folder.record_progress(shard.fingerprint, task.num_scans)
  for item in encoded:
    stats.label_counts[item.label] += 1
  order = np.argsort(
    record_keys.hash_keys((e.key for e in encoded), seed, 'shuffle'), kind='stable'
  )
  encoded = [encoded[i] for i in order]
  with atomic_files.atomic_write(folder.partial_path(shard.fingerprint)) as path:
    written = tfrecord.write_tfrecords(path, (e.serialized for e in encoded))
  result = ShardResult(
    split=shard.split,
    index=shard.index,
    subset=shard.subset,
    fingerprint=shard.fingerprint,
    num_records=len(encoded),
    num_bytes=written.num_bytes,
    stats=stats,
    sha256=written.sha256,
    record_index=record_index.ShardIndex.from_records(
      labels=[e.label for e in encoded],
      excluded=[e.excluded for e in encoded],
      num_bytes=[len(e.serialized) for e in encoded],
    ),
    inputs=tuple(inputs),
  )
  folder.finish_shard(result)
  return result


def _encode_task(
  task: ScanTask | ArticleTask,
  before: input_state.TaskInputs,
  spec: patches.PatchSpec,
  encoder: records.RecordEncoder,
  stats: ShardStats,
) -> list[_EncodedRecord]:
  """Extracts and serialises the records of a task; none if its scan cannot be read.

  Args:
    task: the task.
    before: the state of its input files before they were read.
    spec: shape, spacing and layout of a patch.
    encoder: serialises records.
    stats: gets the counts of the task, and the scan if it cannot be read.
  """
  encoded = []
  try:
    for record in _extract(task, spec, stats):
      serialized = encoder.encode(record)
      encoded.append(
        _EncodedRecord(record.key, record.label, record.excluded, serialized)
      )
    _check_unchanged(task, before)
  except ScanError as error:
    assert isinstance(task, ScanTask)  # an ArticleTask does not raise ScanError
    stats.failed.append(FailedScan(task.seriesuid, len(task.labels), str(error)))
    return []
  return encoded


def _check_unchanged(
  task: ScanTask | ArticleTask, before: input_state.TaskInputs
) -> None:
  """Raises an error if an input file was modified while it was read."""
  if input_state.read_state(task, before.fingerprint) == before:
    return
  problem = 'was modified while it was read'
  if isinstance(task, ScanTask):
    raise ScanError(f'{task.path}: the scan {problem}')
  raise OSError(f'{task.images[0].path.parent}: an image {problem}')


def _extract(
  task: ScanTask | ArticleTask, spec: patches.PatchSpec, stats: ShardStats
) -> Iterator[records.Record]:
  if isinstance(task, ArticleTask):
    yield from _extract_article(task, stats)
  else:
    yield from _extract_scan(task, spec, stats)


def _extract_scan(
  task: ScanTask, spec: patches.PatchSpec, stats: ShardStats
) -> Iterator[records.Record]:
  scan = scan_lib.open_scan(store_path.as_path(task.path))
  extraction = extractor.Extraction(scan, task.centers_xyz_mm, spec)
  # Lists: reading a number from an array takes longer.
  labels, candidate_ids = task.labels.tolist(), task.candidate_ids.tolist()
  centers_xyz_mm = task.centers_xyz_mm.tolist()
  nodule_ids = task.matches.nodule_id.tolist()
  diameters_mm = task.matches.diameter_mm.tolist()
  excluded = task.matches.excluded.tolist()
  for i, image, center_zyx, spacing_xyz_mm in extraction:
    yield records.Record(
      image=image,
      label=labels[i],
      seriesuid=task.seriesuid,
      candidate_id=candidate_ids[i],
      subset=task.subset,
      center_xyz_mm=centers_xyz_mm[i],
      center_zyx=center_zyx,
      spacing_xyz_mm=spacing_xyz_mm,
      nodule_id=nodule_ids[i],
      diameter_mm=diameters_mm[i],
      excluded=excluded[i],
    )
  stats.scans_read += 1
  stats.bytes_read += extraction.bytes_to_read
  stats.patches_padded += extraction.num_padded
  stats.candidates_outside += extraction.num_outside


def _extract_article(task: ArticleTask, stats: ShardStats) -> Iterator[records.Record]:
  for item in task.images:
    image, padded = article_patches.read_image(item)
    stats.patches_padded += padded
    yield records.Record(image, item.label, candidate_id=item.candidate_id)
