"""The extraction job: plan -> pipeline -> verify -> register.

`luna16-extract` and `builder.download_and_prepare` call `prepare`.
"""

from __future__ import annotations

from collections.abc import Sequence
import contextlib
import pathlib
from typing import TYPE_CHECKING

from beam_jobs import dataset_metadata
from beam_jobs import failures
from beam_jobs import job_checks
from beam_jobs import job_folders
from beam_jobs import job_messages
from beam_jobs import job_results
from beam_jobs import pipeline
from beam_jobs import plan as plan_lib
from beam_jobs import progress
from beam_jobs import registered_dataset
from beam_jobs.job_folder import JobFolder
from beam_jobs.registered_dataset import RegisteredDataset
from beam_jobs.shard_result import ShardResult
from luna_tfds import luna16_patches
from luna_tfds.errors import JobError
from luna_tfds.errors import UsageError
from luna_tfds.files import store_path
from luna_tfds.processes import cores

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
    OSError: a file cannot be read or written, e.g. because the disk is full.
  """
  # Workers on other hosts may have another working folder.
  luna_dir = luna_dir.absolute()
  final = final or store_path.as_path(str(builder.data_path)).absolute()
  folder = job_folders.job_folder(final)
  config = builder.builder_config
  plan = plan_lib.make_plan(luna_dir, config)
  job_checks.check_not_empty(plan)
  job_checks.check_links(folder)
  job_messages.print_plan(plan, builder)
  with contextlib.ExitStack() as stack:
    try:
      stack.enter_context(folder.locked())
    except (OSError, UsageError):
      # A complete dataset needs no job, so it may be on a disk that cannot be written.
      if overwrite or not registered_dataset.is_complete_dataset(folder.final, plan):
        raise
      job_messages.print_kept(folder, 'already complete')
      return
    registered, intact = _read_registered(folder, plan, overwrite)
    if registered and not overwrite and registered.is_complete(intact):
      dataset_metadata.write_default_config(folder.dataset_dir, folder.state_dir)
      _keep_dataset(folder, 'already complete')
      return
    _clean(folder, plan, registered, intact, overwrite)
    try:
      run_pipeline(
        plan, config, folder, beam_runner, beam_options, num_workers, stall_minutes
      )
      results = job_results.verified_results(plan, folder, max_failed_scans)
      job_checks.check_unchanged(plan, luna_dir, config)
      dataset_metadata.write_default_config(folder.dataset_dir, folder.state_dir)
      if registered and registered.has_complete_metadata() and intact == results:
        _keep_dataset(folder, 'nothing changed')
        job_messages.print_failed_scans(results, folder)
        return
      _register(builder, plan, folder, results)
    except (JobError, OSError, UsageError):
      if not registered and folder.has_dataset_of(plan):
        _keep_dataset(folder, 'another job has completed it')
        return
      folder.check_plan(plan)
      raise
  job_messages.print_results(results, folder)


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
    OSError: a shard spec cannot be written.
    JobError: there is not enough disk space, or the runner failed.
  """
  shards = job_results.unfinished_shards(plan, folder)
  job_messages.print_resumed(len(plan.shards) - len(shards))
  if not shards:
    return
  num_records = sum(shard.num_records for shard in shards)
  try:
    folder.check_free_space(num_records * plan.record_bytes)
  except OSError as error:
    raise folder.job_error(str(error)) from error
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


def _read_registered(
  folder: JobFolder, plan: plan_lib.Plan, overwrite: bool
) -> tuple[RegisteredDataset | None, list[ShardResult]]:
  """Returns the dataset that is there, and the results of its shards that can be kept.

  Raises:
    UsageError: it was made from other inputs and is not to be overwritten.
  """
  registered = registered_dataset.read(folder.final) if folder.has_dataset() else None
  if registered is None or overwrite:
    return registered, []
  registered.check_inputs(plan)
  return registered, registered.intact_shards()


def _clean(
  folder: JobFolder,
  plan: plan_lib.Plan,
  registered: RegisteredDataset | None,
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
    job_messages.print_incomplete(registered, intact, len(plan.shards) - len(reused))


def _keep_dataset(folder: JobFolder, reason: str) -> None:
  """Ends the job where the dataset on disk stays as it is."""
  folder.remove_state()
  job_messages.print_kept(folder, reason)


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


def _default_num_workers(num_records: int) -> int:
  return 1 if num_records < _MIN_RECORDS_FOR_WORKERS else cores.num_usable_cores()
