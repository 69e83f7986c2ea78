"""The steps of the job as PTransforms, for this pipeline and for yours.

    import apache_beam as beam
    from beam_jobs import job_folder, plan, transforms

    the_plan = plan.make_plan(luna_dir, config)
    with folder.locked():
      folder.clean(the_plan)
      with beam.Pipeline() as pipeline:
        results = (
          pipeline
          | beam.Create([folder.store(shard) for shard in the_plan.shards])
          | transforms.WriteShards(config.spec, config.seed, folder)
        )

No patch crosses from one step to another: the name of a shard goes in, one small row
comes out. The local runner loses elements when it has to materialise many of them, and a
shuffle of patches would need memory for all of them at once.
"""

from __future__ import annotations

from collections.abc import Iterator

import apache_beam as beam

from beam_jobs import job_folder
from beam_jobs import shard_writer
from luna_tfds import patches
from luna_tfds.errors import UsageError


class WriteShards(beam.PTransform):
  """Cuts and writes shards: PCollection[str] -> PCollection[ShardResult].

  An element is the name that `JobFolder.store` gave a shard.

  Counters, in the namespace `WriteShards`: scans-read, scans-failed, bytes-read,
  patches-written, patches-padded.
  """

  def __init__(self, spec: patches.PatchSpec, seed: int, folder: job_folder.JobFolder):
    """Checks the arguments, on the launcher.

    Args:
      spec: what a patch is.
      seed: seed of the hash that orders the records of a shard.
      folder: where the shards go; every worker must see it under the same path.
    """
    super().__init__()
    if not isinstance(spec, patches.PatchSpec):
      raise TypeError(f'spec must be a PatchSpec. Received: {spec!r}')
    if not isinstance(folder, job_folder.JobFolder):
      raise TypeError(f'folder must be a JobFolder. Received: {folder!r}')
    self._spec = spec
    self._seed = seed
    self._folder = folder

  def expand(
    self, names: beam.PCollection[str]
  ) -> beam.PCollection[shard_writer.ShardResult]:
    """Spreads the shards over the workers and writes each."""
    return (
      names
      # Without it a runner may fuse the writing with the creation of the shards, and
      # one worker would write them all.
      | 'Spread' >> beam.Reshuffle()
      | 'Write' >> beam.ParDo(_WriteShard(self._spec, self._seed, self._folder))
    )


class _WriteShard(beam.DoFn):
  """Thin: `shard_writer.write_shard` does the work."""

  def __init__(self, spec: patches.PatchSpec, seed: int, folder: job_folder.JobFolder):
    self._spec = spec
    self._seed = seed
    self._folder = folder

  def process(self, name: str) -> Iterator[shard_writer.ShardResult]:
    shard = self._folder.load(name)
    try:
      result = shard_writer.write_shard(shard, self._spec, self._seed, self._folder)
    except (OSError, UsageError) as error:
      # Raised here it would end the job with pages of the runner's. The launcher misses
      # the shard and tells why in one line.
      self._folder.note_problem(name, error)
      return
    counts = {
      'scans-read': result.stats.scans_read,
      'scans-failed': len(result.stats.failed),
      'bytes-read': result.stats.bytes_read,
      'patches-written': result.num_records,
      'patches-padded': result.stats.patches_padded,
    }
    for counter, value in counts.items():
      beam.metrics.Metrics.counter(WriteShards, counter).inc(value)
    yield result
