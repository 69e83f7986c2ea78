"""What a job prints on stderr: its plan, what it keeps, its results."""

from __future__ import annotations

from collections.abc import Sequence
import sys

from beam_jobs import dataset_metadata
from beam_jobs import plan as plan_lib
from beam_jobs import registered_dataset
from beam_jobs.job_folder import JobFolder
from beam_jobs.shard_result import ShardResult
from luna_tfds import luna16_patches
from luna_tfds.text_format import bytes_text
from luna_tfds.text_format import count_text


def print_plan(plan: plan_lib.Plan, builder: luna16_patches.Builder) -> None:
  """Prints what will be written."""
  scans = f', from {count_text(plan.num_scans, "scan")}' if plan.num_scans else ''
  print_line(
    f'{builder.info.full_name}: {count_text(plan.num_records, "record")} in '
    f'{count_text(len(plan.shards), "shard")} ({", ".join(plan.splits)}), about '
    f'{bytes_text(plan.num_bytes)}{scans}'
  )
  if plan.candidates_without_scan:
    print_line(
      f'{count_text(plan.candidates_without_scan, "candidate")} without a scan on disk '
      f'(found {count_text(plan.scans_on_disk, "scan")}); not extracted'
    )


def print_resumed(num_finished: int) -> None:
  """Prints how many shards an earlier job has finished, if any."""
  if num_finished:
    verb = 'is' if num_finished == 1 else 'are'
    print_line(f'resuming: {count_text(num_finished, "shard")} {verb} finished')


def print_incomplete(
  registered: registered_dataset.RegisteredDataset,
  intact: Sequence[ShardResult],
  num_to_write: int,
) -> None:
  """Prints why a registered dataset is not complete."""
  num_failed = sum(len(result.failed_scans) for result in intact)
  if not num_to_write:
    problem = 'its metadata are missing or damaged'
  elif num_failed:
    problem = f'{count_text(num_failed, "scan")} could not be read and will be retried'
  else:
    problem = 'files are missing or damaged'
  print_line(
    f'{registered.folder}: {problem}; {count_text(num_to_write, "shard")} to write'
  )


def print_kept(folder: JobFolder, reason: str) -> None:
  """Prints why the dataset stays as it is, and where it is."""
  print_line(f'{reason}: {folder.final}')


def print_results(results: Sequence[ShardResult], folder: JobFolder) -> None:
  """Prints what the dataset contains, and where it is.

  Not what this job has written: it may have kept shards.
  """
  stats = [result.stats for result in results]
  num_records = sum(result.num_records for result in results)
  print_line(
    f'complete: {count_text(num_records, "record")} '
    f'({count_text(sum(s.label_counts[1] for s in stats), "nodule")}, '
    f'{sum(s.patches_padded for s in stats)} padded at the border, '
    f'{sum(s.candidates_outside for s in stats)} with the centre outside the scan)'
  )
  print_failed_scans(results, folder)
  print_line(f'dataset: {folder.final}')


def print_failed_scans(results: Sequence[ShardResult], folder: JobFolder) -> None:
  """Prints how many scans could not be read, if any."""
  num_failed = sum(len(result.failed_scans) for result in results)
  if num_failed:
    path = folder.final / dataset_metadata.FAILED_SCANS
    print_line(f'{count_text(num_failed, "scan")} could not be read, see {path}')


def print_line(text: str) -> None:
  """Prints a line at once."""
  print(text, file=sys.stderr, flush=True)
