"""The files beside the shards that make them a TFDS dataset.

dataset_info.json, features.json and metadata.json, from which the dataset is read;
record_index.json, with which training draws records; failed_scans.csv; and
shard_results.json, with which a later job finds out what changed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import contextlib
import csv
import dataclasses
import pathlib
from typing import Any

import tensorflow_datasets as tfds

from beam_jobs import plan as plan_lib
from beam_jobs.shard_result import ShardResult
from luna_tfds import luna16_patches
from luna_tfds import record_index
from luna_tfds import record_keys
from luna_tfds import records
from luna_tfds.files import atomic_files
from luna_tfds.files.store_path import StorePath
from luna_tfds.stored_metadata import StoredSelection

FAILED_SCANS = 'failed_scans.csv'
SHARD_RESULTS = 'shard_results.json'


def write_metadata(
  builder: luna16_patches.Builder,
  plan: plan_lib.Plan,
  results: Sequence[ShardResult],
  folder: pathlib.Path,
) -> None:
  """Writes the metadata beside the shards.

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
  by_split = {
    split: [result for result in results if result.split == split]
    for split in plan.splits
  }
  # All scans of a split may have failed; TFDS cannot read a split without records.
  by_split = {
    split: of_split
    for split, of_split in by_split.items()
    if any(result.num_records for result in of_split)
  }
  config = builder.builder_config
  split_infos = [
    tfds.core.SplitInfo(
      name=split,
      shard_lengths=[r.num_records for r in of_split],
      num_bytes=sum(r.num_bytes for r in of_split),
      filename_template=template.replace(split=split),
    )
    for split, of_split in by_split.items()
  ]
  # A separate builder, as `builder` may belong to the caller, of a folder without a
  # dataset: TFDS would read the metadata of the dataset that is being replaced.
  info = type(builder)(config=config, data_dir=str(folder / 'no_dataset')).info
  info.set_splits(tfds.core.SplitDict(split_infos))
  info.metadata.update(_metadata(config, plan, results, by_split))
  info.write_to_directory(folder)
  record_index.write_record_index(
    folder, {split: [r.record_index for r in rs] for split, rs in by_split.items()}
  )
  atomic_files.write_json(folder / SHARD_RESULTS, [r.to_json() for r in results])


def _metadata(
  config: luna16_patches.Luna16PatchesConfig,
  plan: plan_lib.Plan,
  results: Sequence[ShardResult],
  by_split: Mapping[str, Sequence[ShardResult]],
) -> dict[str, Any]:
  """Returns the content of metadata.json."""
  # The article's patches were neither selected nor cut by this project.
  is_ours = config.source == 'scans'
  selection = StoredSelection(
    config.candidate_list, config.negatives_per_positive, config.seed
  )
  return {
    'fingerprint': plan.fingerprint,
    'patch': dataclasses.asdict(config.spec) if is_ours else {},
    'selection': dataclasses.asdict(selection) if is_ours else {},
    'shard_subsets': {s: [r.subset for r in rs] for s, rs in by_split.items()},
    'shard_label_counts': {
      split: [r.stats.label_counts for r in rs] for split, rs in by_split.items()
    },
    'shard_sha256': {s: [r.sha256 for r in rs] for s, rs in by_split.items()},
    # From the plan, so that they do not depend on what the workers wrote.
    'shard_keys_sha256': {
      split: [
        record_keys.keys_sha256(shard.record_keys(without=result.failed_scans))
        for shard, result in zip(plan.of_split(split), rs, strict=True)
      ]
      for split, rs in by_split.items()
    },
    # A dictionary: `tfds.show_examples` iterates over all values of the metadata.
    'counts': {
      # The key was published under this name.
      'candidates_elsewhere': plan.candidates_without_scan,
      'candidates_outside': sum(r.stats.candidates_outside for r in results),
      'patches_padded': sum(r.stats.patches_padded for r in results),
      'bytes_read': sum(r.stats.bytes_read for r in results),
      'scans_failed': sum(len(r.stats.failed) for r in results),
    },
  }


def write_default_config(folder: pathlib.Path, temporary_dir: pathlib.Path) -> None:
  """Stores which config `tfds.load('luna16_patches')` reads, as TFDS does.

  A process that does not import this project has no other way to know.

  Args:
    folder: the folder of all configs of the dataset.
    temporary_dir: a folder of the job on the same file system. Jobs of several configs
      share `folder`, so none can delete there what a killed job was writing.
  """
  path = folder / '.config' / 'metadata.json'
  content = {'default_config_name': next(iter(luna16_patches.CONFIGS))}
  with contextlib.suppress(OSError, ValueError):  # missing or damaged
    if atomic_files.read_json(path) == content:
      return
  if isinstance(path, StorePath):
    atomic_files.write_json(path, content)
    return
  atomic_files.make_folders(path.parent)
  temporary = temporary_dir / 'default_config'
  atomic_files.write_json(temporary, content)
  atomic_files.rename(temporary, path)


def write_failed_scans(
  results: Sequence[ShardResult], folder: pathlib.Path
) -> pathlib.Path:
  """Writes `failed_scans.csv` into `folder` if a scan failed; returns its path."""
  path = folder / FAILED_SCANS
  failed = [scan for result in results for scan in result.stats.failed]
  if failed:
    with atomic_files.atomic_text(path) as file:
      writer = csv.writer(file)
      writer.writerow(['seriesuid', 'candidates_lost', 'reason'])
      for scan in sorted(failed, key=lambda scan: scan.seriesuid):
        writer.writerow([scan.seriesuid, scan.candidates_lost, scan.reason])
  return path
