"""The metadata that makes finished shards a TFDS dataset, and failed_scans.csv."""

from __future__ import annotations

from collections.abc import Sequence
import csv
import dataclasses
import json
import pathlib
from typing import Any

import tensorflow_datasets as tfds

from beam_jobs import plan as plan_lib
from beam_jobs.shard_result import ShardResult
from luna_tfds import atomic_files
from luna_tfds import luna16_patches
from luna_tfds import records

FAILED_SCANS = 'failed_scans.csv'


def write_metadata(
  builder: luna16_patches.Builder,
  plan: plan_lib.Plan,
  results: Sequence[ShardResult],
  folder: pathlib.Path,
) -> None:
  """Writes dataset_info.json, features.json and metadata.json beside the shards.

  Args:
    builder: the builder of the dataset.
    plan: the plan of the dataset.
    results: the results of all shards, in the order of `plan.shards`.
    folder: contains the shards.
  """
  template = tfds.core.ShardedFileTemplate(
    data_dir=folder,
    dataset_name=records.DATASET_NAME,
    filetype_suffix='tfrecord',
  )
  config = builder.builder_config
  split_infos = []
  metadata: dict[str, Any] = {
    'fingerprint': plan.fingerprint,
    # The article's patches were not extracted by this project.
    'patch': dataclasses.asdict(config.spec) if config.source == 'scans' else None,
    'shard_subsets': {},
    'shard_label_counts': {},
    # The key was published under this name.
    'candidates_elsewhere': plan.candidates_without_scan,
    'candidates_outside': sum(r.stats.candidates_outside for r in results),
    'patches_padded': sum(r.stats.patches_padded for r in results),
    'bytes_read': sum(r.stats.bytes_read for r in results),
    'scans_failed': sum(len(r.stats.failed) for r in results),
  }
  for split in plan.splits:
    of_split = [result for result in results if result.split == split]
    if not any(result.num_records for result in of_split):
      continue  # all its scans failed; TFDS cannot read a split without records
    metadata['shard_subsets'][split] = [r.subset for r in of_split]
    metadata['shard_label_counts'][split] = [r.stats.label_counts for r in of_split]
    split_infos.append(
      tfds.core.SplitInfo(
        name=split,
        shard_lengths=[r.num_records for r in of_split],
        num_bytes=sum(r.num_bytes for r in of_split),
        filename_template=template.replace(split=split),
      )
    )
  # A separate builder, as `builder` may belong to the caller.
  info = type(builder)(config=config, data_dir=str(builder.data_dir_root)).info
  info.set_splits(tfds.core.SplitDict(split_infos))
  info.metadata.update(metadata)
  info.write_to_directory(folder)


def write_failed_scans(
  results: Sequence[ShardResult], folder: pathlib.Path
) -> pathlib.Path:
  """Writes `failed_scans.csv` into `folder` if a scan failed; returns its path."""
  path = folder / FAILED_SCANS
  failed = [scan for result in results for scan in result.stats.failed]
  if failed:
    with (
      atomic_files.atomic_write(path) as temporary,
      temporary.open('w', newline='', encoding='utf-8') as file,
    ):
      writer = csv.writer(file)
      writer.writerow(['seriesuid', 'candidates_lost', 'reason'])
      for scan in sorted(failed, key=lambda scan: scan.seriesuid):
        writer.writerow([scan.seriesuid, scan.candidates_lost, scan.reason])
  return path


def stored_fingerprint(folder: pathlib.Path) -> str | None:
  """Returns the fingerprint of a dataset on disk; None if it has none."""
  try:
    metadata: dict[str, Any] = atomic_files.read_json(folder / 'metadata.json')
  except (OSError, json.JSONDecodeError):
    return None
  return metadata.get('fingerprint')
