"""The pipeline of the job, for one process or for the workers of a runner.

Beam is loaded where a pipeline runs. The launcher of local workers runs none, and is ready
a second earlier without it.
"""

from __future__ import annotations

from collections.abc import Sequence
import dataclasses
from typing import TYPE_CHECKING

from beam_jobs.job_folder import JobFolder
from luna_tfds import patches
from luna_tfds.files import temporary_folders
from luna_tfds.processes import worker_processes

if TYPE_CHECKING:
  from apache_beam.options.pipeline_options import PipelineOptions
  from apache_beam.runners.runner import PipelineRunner


@dataclasses.dataclass(frozen=True)
class ShardWork:
  """The shards that a pipeline writes; picklable.

  Attributes:
    fingerprints: what `JobFolder.write_shard_spec` returned for each shard.
    spec: shape, spacing and layout of a patch.
    seed: seed of the hash that orders the records of a shard.
    folder: the job's folder.
  """

  fingerprints: Sequence[str]
  spec: patches.PatchSpec
  seed: int
  folder: JobFolder


def run(
  work: ShardWork,
  runner: str | PipelineRunner | None = None,
  options: PipelineOptions | None = None,
) -> None:
  """Writes shards with one pipeline.

  Args:
    work: the shards.
    runner: a runner or its name; None runs the pipeline in this process.
    options: options of Beam, if any.

  Raises:
    UsageError: there is no runner with this name.
    Exception: the pipeline failed; each runner has its own exceptions.
  """
  import apache_beam as beam

  from beam_jobs import runners
  from beam_jobs import transforms

  pipeline = runners.pipeline(runner, options)
  with runners.cancelled_on_interrupt(pipeline), pipeline:
    _ = (
      pipeline
      | 'ShardSpecs' >> beam.Create(work.fingerprints)
      | 'WriteShards' >> transforms.WriteShards(work.spec, work.seed, work.folder)
    )
  runners.check_result(pipeline.result)


def run_in_processes(
  work: ShardWork, options: PipelineOptions | None, num_processes: int
) -> None:
  """Writes shards with several processes of this machine.

  Each runs the same pipeline, in memory, for its part of the shards. Beam's own local
  workers are not used: the job would wait forever for one that was killed.

  Args:
    work: the shards, at least one for each process.
    options: options of Beam, if any.
    num_processes: number of processes.

  Raises:
    WorkerDiedError: a process was killed.
    Exception: a pipeline failed.
  """
  parts = [
    dataclasses.replace(work, fingerprints=work.fingerprints[k::num_processes])
    for k in range(num_processes)
  ]
  try:
    worker_processes.call_in_processes(run, [(part, None, options) for part in parts])
  finally:
    temporary_folders.remove_abandoned()  # a worker that is killed deletes nothing
