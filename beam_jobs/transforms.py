"""The steps of the job as PTransforms, for this pipeline and for others.

    import apache_beam as beam
    from beam_jobs import job_folders, plan, transforms

    shard_plan = plan.make_plan(luna_dir, config)
    folder = job_folders.job_folder(dataset_dir)
    with folder.locked():
      folder.clean(shard_plan)
      with beam.Pipeline() as pipeline:
        results = (
          pipeline
          | beam.Create([folder.write_shard_spec(s) for s in shard_plan.shards])
          | transforms.WriteShards(config.spec, config.seed, folder)
        )

No patch is passed between steps: the input elements are fingerprints of shards, the
output elements are one small result per shard. The local runner loses elements when it
materialises many of them, and a shuffle of patches needs memory for all of them.
"""

from __future__ import annotations

from collections.abc import Iterator

import apache_beam as beam
from apache_beam.metrics.metric import Metrics

from beam_jobs import job_folder
from beam_jobs import shard_result
from beam_jobs import shard_writer
from luna_tfds import patches
from luna_tfds.errors import UsageError
from luna_tfds.errors import memory_problem

_Fingerprints = beam.pvalue.PCollection[str]
_Results = beam.pvalue.PCollection[shard_result.ShardResult]


class WriteShards(beam.PTransform[_Fingerprints, _Results]):
  """Extracts and writes shards: PCollection[str] -> PCollection[ShardResult].

  The input elements are the fingerprints that `JobFolder.write_shard_spec` returns.

  Counters, in the namespace `WriteShards`: scans-read, scans-failed, bytes-read,
  patches-written, patches-padded.
  """

  def __init__(self, spec: patches.PatchSpec, seed: int, folder: job_folder.JobFolder):
    """Checks the arguments when the pipeline is built.

    Args:
      spec: shape, spacing and layout of a patch.
      seed: seed of the hash that orders the records of a shard.
      folder: the job's folder; all workers must see it under the same path.

    Raises:
      TypeError: an argument has another type.
    """
    super().__init__()
    if not isinstance(spec, patches.PatchSpec):
      raise TypeError(f'spec must be a PatchSpec. Received: {spec!r}')
    if not isinstance(folder, job_folder.JobFolder):
      raise TypeError(f'folder must be a JobFolder. Received: {folder!r}')
    self._spec = spec
    self._seed = seed
    self._folder = folder

  def expand(self, fingerprints: _Fingerprints) -> _Results:
    """Distributes the shards over the workers and writes each."""
    results: _Results = (
      fingerprints
      # Without it, a runner may fuse writing with the creation of the elements: one
      # worker would write all shards.
      | 'Distribute' >> beam.Reshuffle()
      | 'Write' >> beam.ParDo(_WriteShard(self._spec, self._seed, self._folder))
    )
    return results


class _WriteShard(beam.DoFn):
  """Calls `shard_writer.write_shard` and updates the counters."""

  def __init__(self, spec: patches.PatchSpec, seed: int, folder: job_folder.JobFolder):
    self._spec = spec
    self._seed = seed
    self._folder = folder

  def process(self, fingerprint: str) -> Iterator[shard_result.ShardResult]:
    """Writes a shard; yields its result, or nothing if it failed."""
    try:
      shard = self._folder.read_shard_spec(fingerprint)
    except FileNotFoundError:
      # The launcher has ended and deleted it. Or this worker does not see the folder; then
      # it cannot record an error either, and the job finds that the shard is missing.
      return
    try:
      # A runner may process a shard again after it is finished.
      result = self._folder.result(shard) or shard_writer.write_shard(
        shard, self._spec, self._seed, self._folder
      )
    except Exception as error:
      # A runner would report it with pages of its own stack trace. The job reads the
      # recorded error instead, and reports one line.
      if not isinstance(error, OSError | UsageError) and not memory_problem(error):
        raise
      self._folder.record_error(fingerprint, error)
      return
    counts = {
      'scans-read': result.stats.scans_read,
      'scans-failed': len(result.stats.failed),
      'bytes-read': result.stats.bytes_read,
      'patches-written': result.num_records,
      'patches-padded': result.stats.patches_padded,
    }
    for counter, value in counts.items():
      Metrics.counter(WriteShards, counter).inc(value)
    yield result
