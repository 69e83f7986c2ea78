"""Makes finished shards a dataset that TFDS reads."""

from __future__ import annotations

from collections.abc import Sequence
import csv
import dataclasses
import json
import pathlib
from typing import Any

import tensorflow_datasets as tfds

from beam_jobs import plan as plan_lib
from beam_jobs import shard_writer

FAILED_SCANS = 'failed_scans.csv'


def write_metadata(
  builder: Any,
  plan: plan_lib.Plan,
  results: Sequence[shard_writer.ShardResult],
  folder: pathlib.Path,
) -> None:
  """Writes dataset_info.json, features.json and metadata.json beside the shards.

  Args:
    builder: of the dataset.
    plan: of the dataset.
    results: of all its shards, in the order of `plan.shards`.
    folder: holds the shards.
  """
  template = tfds.core.ShardedFileTemplate(
    data_dir=folder,
    dataset_name='luna16_patches',
    filetype_suffix='tfrecord',
  )
  config = builder.builder_config
  split_infos = []
  metadata: dict[str, Any] = {
    'fingerprint': plan.fingerprint,
    # What the images are cut like; the article's are not cut by us.
    'patch': dataclasses.asdict(config.spec) if config.source == 'scans' else None,
    'shard_subsets': {},
    'shard_label_counts': {},
    'candidates_elsewhere': plan.candidates_elsewhere,
    'candidates_outside': sum(r.stats.candidates_outside for r in results),
    'patches_padded': sum(r.stats.patches_padded for r in results),
    'bytes_read': sum(r.stats.bytes_read for r in results),
    'scans_failed': sum(len(r.stats.failed) for r in results),
  }
  for split in plan.splits:
    of_split = [result for result in results if result.split == split]
    if not any(result.num_records for result in of_split):
      continue  # every scan of it failed; TFDS cannot read a split without records
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
  # A builder of its own: `builder` may belong to a caller.
  info = type(builder)(config=config, data_dir=str(builder.data_dir_root)).info
  info.set_splits(tfds.core.SplitDict(split_infos))
  info.metadata.update(metadata)
  info.write_to_directory(folder)


def write_failed_scans(
  results: Sequence[shard_writer.ShardResult], folder: pathlib.Path
) -> pathlib.Path:
  """Writes `failed_scans.csv` if a scan failed; returns its path."""
  path = folder / FAILED_SCANS
  failed = [scan for result in results for scan in result.stats.failed]
  if failed:
    with path.open('w', newline='') as file:
      writer = csv.writer(file)
      writer.writerow(['seriesuid', 'candidates_lost', 'reason'])
      for scan in sorted(failed, key=lambda scan: scan.seriesuid):
        writer.writerow([scan.seriesuid, scan.candidates_lost, scan.reason])
  return path


def stored_fingerprint(folder: pathlib.Path) -> str | None:
  """Returns the fingerprint of a dataset on disk; None if it has none."""
  try:
    return json.loads((folder / 'metadata.json').read_text()).get('fingerprint')
  except (OSError, json.JSONDecodeError):
    return None
