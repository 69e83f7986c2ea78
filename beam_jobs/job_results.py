"""The results of the shards of a plan, as the workers stored them."""

from __future__ import annotations

import concurrent.futures

from beam_jobs import dataset_metadata
from beam_jobs import plan as plan_lib
from beam_jobs.job_folder import JobFolder
from beam_jobs.shard_result import ShardResult
from luna_tfds.errors import JobError
from luna_tfds.text_format import count_text


def unfinished_shards(plan: plan_lib.Plan, folder: JobFolder) -> list[plan_lib.Shard]:
  """Returns the shards to write; deletes their results.

  They are the shards without a result and those with scans that could not be read.
  """
  unfinished = []
  for shard, result in zip(plan.shards, _read_results(plan, folder), strict=True):
    if result is None or result.failed_scans:
      folder.invalidate(shard)
      unfinished.append(shard)
  return unfinished


def verified_results(
  plan: plan_lib.Plan, folder: JobFolder, max_failed_scans: int
) -> list[ShardResult]:
  """Returns the results of all shards, in the order of the plan.

  Args:
    plan: the plan of the dataset.
    folder: the job's folder, after the pipeline.
    max_failed_scans: maximum number of scans that may be unreadable.

  Raises:
    UsageError: a worker found an invalid input file.
    JobError: a shard is missing, the number of its records is not the planned one, or
      too many scans could not be read.
  """
  results = []
  for shard, result in zip(plan.shards, _read_results(plan, folder), strict=True):
    if result is None:
      raise folder.recorded_error(shard) or folder.job_error(
        f'shard {shard.index} of {shard.split} {folder.why_unfinished(shard, plan)}'
      )
    lost = sum(failed.candidates_lost for failed in result.stats.failed)
    if result.num_records + lost != shard.num_records:
      raise JobError(
        f'shard {shard.index} of {shard.split} contains '
        f'{count_text(result.num_records, "record")}, but {shard.num_records - lost} '
        'were planned; the dataset is not registered'
      )
    results.append(result)
  num_failed = sum(len(result.stats.failed) for result in results)
  if num_failed > max_failed_scans:
    path = dataset_metadata.write_failed_scans(results, folder.incomplete)
    raise folder.job_error(
      f'{count_text(num_failed, "scan")} cannot be read (see {path}), more than '
      f'--max_failed_scans={max_failed_scans}; fix them or raise the limit'
    )
  if not any(result.num_records for result in results):
    raise JobError('no record was written: no scan could be read')
  return results


def _read_results(plan: plan_lib.Plan, folder: JobFolder) -> list[ShardResult | None]:
  """Returns the result of each shard of the plan; reads the files to check them."""
  with concurrent.futures.ThreadPoolExecutor(folder.num_threads) as pool:
    return list(pool.map(lambda shard: folder.result(shard, plan), plan.shards))
