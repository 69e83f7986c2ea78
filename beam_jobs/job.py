"""The extraction job: plan -> pipeline -> verify -> register.

`luna16-extract` and `builder.download_and_prepare` call `prepare`.
"""

from __future__ import annotations

from collections.abc import Sequence
import concurrent.futures
import pathlib
import sys
from typing import TYPE_CHECKING

from beam_jobs import dataset_metadata
from beam_jobs import failures
from beam_jobs import job_checks
from beam_jobs import job_folders
from beam_jobs import pipeline
from beam_jobs import plan as plan_lib
from beam_jobs import progress
from beam_jobs import registered_dataset
from beam_jobs.job_folder import JobFolder
from beam_jobs.shard_result import ShardResult
from luna_tfds import luna16_patches
from luna_tfds.errors import JobError
from luna_tfds.errors import UsageError
from luna_tfds.files import store_path
from luna_tfds.processes import cores
from luna_tfds.text_format import bytes_text
from luna_tfds.text_format import count_text

if TYPE_CHECKING:
  from apache_beam.options.pipeline_options import PipelineOptions
  from apache_beam.runners.runner import PipelineRunner

# With fewer records than this, one process is done before others have started.
_MIN_RECORDS_FOR_WORKERS = 2_000


def prepare(
  builder: luna16_patches.Builder,
  luna_dir: pathlib.Path,
  *,
  beam_runner: str | PipelineRunner | None = None,
  beam_options: PipelineOptions | None = None,
  num_workers: int = 0,
  stall_minutes: float = 0.0,
  max_failed_scans: int = 0,
  overwrite: bool = False,
  final: pathlib.Path | None = None,
) -> None:
  """Extracts a dataset.

  Args:
    builder: builder of `luna16_patches`, with the config and the folder of the dataset.
    luna_dir: the LUNA16 download.
    beam_runner: a Beam runner or its name; None uses the cores of this machine.
    beam_options: options of Beam.
    num_workers: processes of the local runner, 0 for one per core; for another runner,
      the number that its service starts.
    stall_minutes: a warning is printed when no scan was done for so long; 0 for never.
    max_failed_scans: maximum number of scans that may be unreadable.
    overwrite: whether an existing dataset is written again, and replaced when the new
      one is complete.
    final: folder of the dataset; None for that of `builder`.

  Raises:
    UsageError: an input is missing or invalid, or a dataset made from other inputs
      exists and is not to be overwritten.
    JobError: the job failed; finished shards are kept for the next run.
  """
  # Workers on other hosts may have another working folder.
  luna_dir = luna_dir.absolute()
  final = final or store_path.as_path(str(builder.data_path)).absolute()
  folder = job_folders.job_folder(final)
  plan = plan_lib.make_plan(luna_dir, builder.builder_config)
  job_checks.check_not_empty(plan)
  _print_plan(plan, builder)
  with folder.locked():
    registered = registered_dataset.read(final) if folder.has_dataset() else None
    intact: list[ShardResult] = []
    if registered and not overwrite:
      registered.check_inputs(plan)
      intact = registered.intact_shards()
      if _is_complete(registered, intact):
        _write_default_config(folder)
        _keep_dataset(folder, 'already complete')
        return
    _clean(folder, plan, registered, intact, overwrite)
    try:
      run_pipeline(
        plan,
        builder.builder_config,
        folder,
        beam_runner,
        beam_options,
        num_workers,
        stall_minutes,
      )
      results = verified_results(plan, folder, max_failed_scans)
      job_checks.check_unchanged(plan, luna_dir, builder.builder_config)
      _write_default_config(folder)
      if registered and registered.has_complete_metadata() and intact == results:
        _keep_dataset(folder, 'nothing changed')
      else:
        _register(builder, plan, folder, results)
    except (JobError, OSError, UsageError):
      if not registered and folder.has_dataset_of(plan):
        _keep_dataset(folder, 'another job has completed it')
        return
      folder.check_plan(plan)
      raise
  _print_results(results, folder)


def _keep_dataset(folder: JobFolder, reason: str) -> None:
  """Ends the job where the dataset on disk stays as it is."""
  folder.remove_state()
  _print(f'{reason}: {folder.final}')


def _register(
  builder: luna16_patches.Builder,
  plan: plan_lib.Plan,
  folder: JobFolder,
  results: Sequence[ShardResult],
) -> None:
  """Writes the metadata and makes the dataset visible."""

  def write_metadata(path: pathlib.Path) -> None:
    """Writes all files but the shards to a folder."""
    dataset_metadata.write_failed_scans(results, path)
    dataset_metadata.write_metadata(builder, plan, results, path)

  folder.finalize(plan, write_metadata)


def run_pipeline(
  plan: plan_lib.Plan,
  config: luna16_patches.Luna16PatchesConfig,
  folder: JobFolder,
  beam_runner: str | PipelineRunner | None,
  beam_options: PipelineOptions | None,
  num_workers: int,
  stall_minutes: float = 0.0,
) -> None:
  """Writes the shards of the plan that are not finished.

  Args:
    plan: the plan of the dataset.
    config: config of the dataset.
    folder: the job's folder, locked and cleaned.
    beam_runner: a Beam runner or its name; None uses the cores of this machine.
    beam_options: options of Beam.
    num_workers: processes of the local runner, 0 for one per core; for another runner,
      the number that its service starts.
    stall_minutes: a warning is printed when no scan was done for so long; 0 for never.

  Raises:
    OSError: there is not enough disk space.
    JobError: the runner failed.
  """
  shards = _unfinished_shards(plan, folder)
  if not shards:
    return
  num_records = sum(shard.num_records for shard in shards)
  folder.check_free_space(num_records * plan.record_bytes)
  if beam_runner is not None or beam_options is not None:
    # Loads Beam, which takes a second that the launcher of local workers can save.
    from beam_jobs import runners

    beam_runner, beam_options = runners.resolve(beam_runner, beam_options, num_workers)
  num_workers = min(num_workers or _default_num_workers(num_records), len(shards))
  work = pipeline.ShardWork(
    [folder.write_shard_spec(shard) for shard in shards],
    config.spec,
    config.seed,
    folder,
  )
  num_scans = {s.fingerprint: s.num_scans for s in plan.shards}
  with (
    failures.as_job_errors(folder),
    progress.display(folder, num_scans, stall_minutes),
  ):
    if beam_runner is None and num_workers > 1:
      pipeline.run_in_processes(work, beam_options, num_workers)
    else:
      pipeline.run(work, beam_runner, beam_options)


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


def _is_complete(
  registered: registered_dataset.RegisteredDataset, intact: Sequence[ShardResult]
) -> bool:
  """Returns whether nothing is missing from a dataset, not even an unreadable scan."""
  if not registered.has_complete_metadata():
    return False
  if registered.results is None:
    return registered.num_failed_scans == 0
  return list(registered.results) == intact and not any(r.failed_scans for r in intact)


def _clean(
  folder: JobFolder,
  plan: plan_lib.Plan,
  registered: registered_dataset.RegisteredDataset | None,
  intact: Sequence[ShardResult],
  overwrite: bool,
) -> None:
  """Prepares the folders: finished shards of earlier jobs, and of the dataset, stay."""
  if registered and overwrite:
    folder.start_overwriting(plan)
  folder.clean(plan)
  if registered and not overwrite:
    reused = [result for result in intact if not result.failed_scans]
    folder.reuse_shards(reused, plan, registered.folder)
    _print_incomplete(registered, intact, len(plan.shards) - len(reused))


def _write_default_config(folder: JobFolder) -> None:
  dataset_metadata.write_default_config(folder.final.parent.parent, folder.state_dir)


def _read_results(plan: plan_lib.Plan, folder: JobFolder) -> list[ShardResult | None]:
  """Returns the result of each shard of the plan; reads the files to check them."""
  with concurrent.futures.ThreadPoolExecutor(folder.num_threads) as pool:
    return list(pool.map(lambda shard: folder.result(shard, plan), plan.shards))


def _unfinished_shards(plan: plan_lib.Plan, folder: JobFolder) -> list[plan_lib.Shard]:
  """Returns the shards to write: shards without a result or with unreadable scans."""
  unfinished = []
  for shard, result in zip(plan.shards, _read_results(plan, folder), strict=True):
    if result is None or result.failed_scans:
      folder.invalidate(shard)
      unfinished.append(shard)
  num_finished = len(plan.shards) - len(unfinished)
  if num_finished:
    finished = 'is' if num_finished == 1 else 'are'
    _print(f'resuming: {count_text(num_finished, "shard")} {finished} finished')
  return unfinished


def _default_num_workers(num_records: int) -> int:
  return 1 if num_records < _MIN_RECORDS_FOR_WORKERS else cores.num_usable_cores()


def _print_plan(plan: plan_lib.Plan, builder: luna16_patches.Builder) -> None:
  scans = f', from {count_text(plan.num_scans, "scan")}' if plan.num_scans else ''
  _print(
    f'{builder.info.full_name}: {count_text(plan.num_records, "record")} in '
    f'{count_text(len(plan.shards), "shard")} ({", ".join(plan.splits)}), about '
    f'{bytes_text(plan.num_bytes)}{scans}'
  )
  if plan.candidates_without_scan:
    _print(
      f'{count_text(plan.candidates_without_scan, "candidate")} without a scan on disk '
      f'(found {count_text(plan.scans_on_disk, "scan")}); not extracted'
    )


def _print_incomplete(
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
  _print(
    f'{registered.folder}: {problem}; {count_text(num_to_write, "shard")} to write'
  )


def _print_results(results: Sequence[ShardResult], folder: JobFolder) -> None:
  stats = [result.stats for result in results]
  num_failed = sum(len(s.failed) for s in stats)
  num_records = sum(result.num_records for result in results)
  _print(
    f'wrote {count_text(num_records, "record")} '
    f'({count_text(sum(s.label_counts[1] for s in stats), "nodule")}, '
    f'{sum(s.patches_padded for s in stats)} padded at the border, '
    f'{sum(s.candidates_outside for s in stats)} with the centre outside the scan)'
  )
  if num_failed:
    path = folder.final / dataset_metadata.FAILED_SCANS
    _print(f'{count_text(num_failed, "scan")} could not be read, see {path}')
  _print(f'dataset: {folder.final}')


def _print(text: str) -> None:
  print(text, file=sys.stderr, flush=True)
