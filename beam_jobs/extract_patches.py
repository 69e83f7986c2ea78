"""Cuts the candidates of the LUNA16 download into the TFDS dataset `luna16_patches`.

    luna16-extract --luna_dir=LUNA16 --data_dir=$HOME/tensorflow_datasets

`--luna_dir` is the download as unpacked: subset*/*.mhd and the CSV files; a part of it
works. Run again after a crash, it goes on where it stopped. Any flag it does not know is
Beam's (`--runner=FlinkRunner ...`); `--data_dir` must then be a folder that all workers
share. By default the job runs on all cores of this machine.
"""

from __future__ import annotations

from collections.abc import Sequence
import os
import pathlib
import shutil
import sys
from typing import Any

from absl import flags

from luna_tfds import cli
from luna_tfds.errors import JobError
from luna_tfds.errors import UsageError

FLAGS = cli.new_flags()

_LUNA_DIR = flags.DEFINE_string(
  'luna_dir', None, 'Folder of the unpacked LUNA16 download.', flag_values=FLAGS
)
_DATA_DIR = flags.DEFINE_string(
  'data_dir',
  '~/tensorflow_datasets',
  'TFDS data folder; the dataset appears in luna16_patches/<config>/<version>.',
  flag_values=FLAGS,
)
_CONFIG = flags.DEFINE_string(
  'config',
  'axial_50px',
  'Config of the dataset, or the one that the next flags change.',
  flag_values=FLAGS,
)
_PATCH_SHAPE = flags.DEFINE_string(
  'patch_shape',
  None,
  'Samples of a patch: height,width or depth,height,width.',
  flag_values=FLAGS,
)
_SPACING_MM = flags.DEFINE_float(
  'spacing_mm',
  None,
  "Distance of samples in mm; 0 keeps the scan's own voxels.",
  flag_values=FLAGS,
)
_CANDIDATES = flags.DEFINE_string(
  'candidates', None, "LUNA16's candidate list: V1 or V2.", flag_values=FLAGS
)
_NEGATIVES = flags.DEFINE_integer(
  'negatives_per_positive',
  None,
  'Negatives kept for each positive, in each subset; -1 keeps all.',
  flag_values=FLAGS,
)
_SUBSETS = flags.DEFINE_string(
  'subsets', None, 'Subsets to use, e.g. 0,1,2.', flag_values=FLAGS
)
_SEED = flags.DEFINE_integer(
  'seed',
  None,
  'Seed of the hashes that choose the negatives and the order.',
  flag_values=FLAGS,
)
_NUM_WORKERS = flags.DEFINE_integer(
  'num_workers',
  0,
  'Processes of the local runner; 0 takes one for each core (one for a tiny job).',
  flag_values=FLAGS,
)
_MAX_FAILED = flags.DEFINE_integer(
  'max_failed_scans',
  0,
  'Scans that may be unreadable before the job counts as failed.',
  flag_values=FLAGS,
)
_OVERWRITE = flags.DEFINE_boolean(
  'overwrite',
  False,
  'Replace a dataset that was made from other inputs, once the new one is complete.',
  flag_values=FLAGS,
)
_DRY_RUN = flags.DEFINE_boolean(
  'dry_run', False, 'Print what would be read and written, and stop.', flag_values=FLAGS
)


# A worker process takes seconds to start.
_FEW_RECORDS = 2_000


def main(beam_arguments: list[str]) -> int:
  """Flags -> plan -> pipeline -> run."""
  luna_dir = pathlib.Path(cli.required_value(_LUNA_DIR)).expanduser()
  data_dir = pathlib.Path(cli.required_value(_DATA_DIR)).expanduser()
  if _NUM_WORKERS.value < 0 or _MAX_FAILED.value < 0:
    raise UsageError('--num_workers and --max_failed_scans must be 0 or more')
  config = _config_from_flags()
  from beam_jobs import runners

  runner, options = runners.parse(beam_arguments, list(FLAGS))
  from luna_tfds import luna16_patches

  builder = luna16_patches.Builder(config=config, data_dir=str(data_dir))
  if _DRY_RUN.value:
    from beam_jobs import dry_run

    print(dry_run.report(luna_dir, config, pathlib.Path(builder.data_path)))
    return 0
  prepare(
    builder,
    luna_dir,
    beam_runner=runner,
    beam_options=options,
    num_workers=_NUM_WORKERS.value,
    max_failed_scans=_MAX_FAILED.value,
    overwrite=_OVERWRITE.value,
  )
  return 0


def run(argv: Sequence[str] | None = None) -> int:
  """Runs the command; returns its exit code."""
  return cli.run('luna16-extract', __doc__, main, FLAGS, argv, pass_unknown=True)


def _config_from_flags() -> Any:
  from luna_tfds import luna16_patches

  if _CONFIG.value not in luna16_patches.CONFIGS:
    raise UsageError(
      f'--config={_CONFIG.value}: no such config; there are '
      f'{", ".join(luna16_patches.CONFIGS)}'
    )
  base = luna16_patches.CONFIGS[_CONFIG.value]
  changes: dict[str, Any] = {}
  if _PATCH_SHAPE.value is not None:
    changes['patch_shape'] = cli.parse_ints(_PATCH_SHAPE.value, 'patch_shape')
  if _SPACING_MM.value is not None:
    changes['spacing_mm'] = _SPACING_MM.value
  if _CANDIDATES.value is not None:
    changes['candidate_list'] = _CANDIDATES.value
  if _NEGATIVES.value is not None:
    keep_all = _NEGATIVES.value == -1
    changes['negatives_per_positive'] = None if keep_all else _NEGATIVES.value
  if _SUBSETS.value is not None:
    changes['subsets'] = cli.parse_ints(_SUBSETS.value, 'subsets')
  if _SEED.value is not None:
    changes['seed'] = _SEED.value
  if not changes:
    return base
  if base.source == 'article':
    raise UsageError(
      f'--config=article takes no --{next(iter(changes))}: its patches are published '
      'as they are'
    )
  return cli.as_usage_error(luna16_patches.custom_config, base, **changes)


def prepare(
  builder: Any,
  luna_dir: pathlib.Path,
  *,
  beam_runner: Any = None,
  beam_options: Any = None,
  num_workers: int = 0,
  max_failed_scans: int = 0,
  overwrite: bool = False,
) -> None:
  """Extracts a dataset: what the command and `download_and_prepare` share.

  Args:
    builder: of `luna16_patches`; says what to extract and where to.
    luna_dir: the LUNA16 download.
    beam_runner: a Beam runner or its name; None runs on the cores of this machine.
    beam_options: `PipelineOptions` for it.
    num_workers: processes of the local runner; 0 takes one for each core.
    max_failed_scans: scans that may be unreadable.
    overwrite: whether a dataset made from other inputs is replaced.

  Raises:
    UsageError: an input is missing or wrong.
    JobError: the job failed; finished shards are kept for the next run.
  """
  from beam_jobs import dataset_metadata
  from beam_jobs import job_folder
  from beam_jobs import plan as plan_lib

  plan = plan_lib.make_plan(luna_dir, builder.builder_config)
  _say_plan(plan, builder)
  folder = job_folder.JobFolder(pathlib.Path(builder.data_path))
  with folder.locked():
    if not _is_wanted(plan, folder, overwrite):
      return
    folder.clean(plan)
    _run_pipeline(plan, builder, folder, beam_runner, beam_options, num_workers)
    results = _collect(plan, folder, max_failed_scans)
    dataset_metadata.write_failed_scans(results, folder.incomplete)
    folder.finalize(
      plan,
      lambda path: dataset_metadata.write_metadata(builder, plan, results, path),
      overwrite,
    )
  _say_results(results, folder)


def _say_plan(plan: Any, builder: Any) -> None:
  _say(
    f'{builder.info.full_name}: {plan.num_records} records in {len(plan.shards)} shards '
    f'({", ".join(plan.splits)}), about {plan.num_bytes / 1e6:.0f} MB'
    + (f', from {plan.num_scans} scans' if plan.num_scans else '')
  )
  if plan.candidates_elsewhere:
    _say(
      f'{plan.candidates_elsewhere} candidates are left out: their scans are not among '
      f'the {plan.scans_on_disk} on disk'
    )
  if not plan.shards:
    raise UsageError(
      'no candidate lies in a scan on disk: are the CSV files those of these scans?'
    )


def _is_wanted(plan: Any, folder: Any, overwrite: bool) -> bool:
  """Whether the dataset has to be made; cleans up if it is there already."""
  from beam_jobs import dataset_metadata

  if not folder.final.exists():
    return True
  there = dataset_metadata.stored_fingerprint(folder.final)
  if there == plan.fingerprint:
    shutil.rmtree(folder.book)
    shutil.rmtree(folder.incomplete, ignore_errors=True)
    _say(f'complete already: {folder.final}')
    return False
  if not overwrite:
    raise UsageError(
      f'{folder.final} was made from other inputs; give --overwrite to replace it once '
      'the new one is complete, or another --data_dir'
    )
  return True


def _run_pipeline(
  plan: Any,
  builder: Any,
  folder: Any,
  beam_runner: Any,
  beam_options: Any,
  num_workers: int,
) -> None:
  """Writes the shards that are not finished."""
  import apache_beam as beam

  from beam_jobs import progress
  from beam_jobs import runners
  from beam_jobs import transforms

  todo = []
  for shard in plan.shards:
    result = folder.result(shard, plan)
    if result is None or result['stats']['failed']:
      folder.forget(shard)
      todo.append(shard)
  if len(todo) < len(plan.shards):
    _say(f'going on: {len(plan.shards) - len(todo)} shards are finished')
  if not todo:
    return
  folder.check_room(sum(shard.num_records for shard in todo) * plan.record_bytes)
  config = builder.builder_config
  workers = min(num_workers or _default_workers(todo), len(todo))
  scans_of = {shard.fingerprint: shard.num_scans for shard in plan.shards}
  with (
    runners.failures_as_job_errors(folder),
    progress.watch(folder, scans_of),
    runners.pipeline(beam_runner, beam_options, workers) as pipeline,
  ):
    _ = (
      pipeline
      | 'Shards' >> beam.Create([folder.store(shard) for shard in todo])
      | 'WriteShards' >> transforms.WriteShards(config.spec, config.seed, folder)
    )


def _default_workers(todo: Sequence[Any]) -> int:
  """A process for each core, but for a job that is done before they have started."""
  if sum(shard.num_records for shard in todo) < _FEW_RECORDS:
    return 1
  return len(os.sched_getaffinity(0))


def _collect(plan: Any, folder: Any, max_failed_scans: int) -> list[Any]:
  """Returns the results of all shards, checked against the plan."""
  from beam_jobs import dataset_metadata
  from beam_jobs import shard_writer

  results = []
  for shard in plan.shards:
    fields = folder.result(shard, plan)
    if fields is None:
      raise folder.problem(shard) or JobError(
        f'shard {shard.index} of {shard.split} was not written; run the same command '
        'again, which goes on from the finished ones'
      )
    result = shard_writer.ShardResult.from_json(fields)
    lost = sum(failed.candidates_lost for failed in result.stats.failed)
    if result.num_records + lost != shard.num_records:
      raise JobError(
        f'shard {shard.index} of {shard.split} holds {result.num_records} records where '
        f'{shard.num_records - lost} were planned; the dataset is not registered'
      )
    results.append(result)
  failed = [scan for result in results for scan in result.stats.failed]
  if len(failed) > max_failed_scans:
    path = dataset_metadata.write_failed_scans(results, folder.incomplete)
    raise JobError(
      f'{len(failed)} scans cannot be read (see {path}), more than --max_failed_scans='
      f'{max_failed_scans}; mend them or raise the limit, and run again: the finished '
      'shards are kept'
    )
  if not any(result.num_records for result in results):
    raise JobError('not one record could be written: every scan failed')
  return results


def _say_results(results: Sequence[Any], folder: Any) -> None:
  stats = [result.stats for result in results]
  failed = sum(len(s.failed) for s in stats)
  _say(
    f'wrote {sum(r.num_records for r in results)} records '
    f'({sum(s.label_counts[1] for s in stats)} nodules, '
    f'{sum(s.patches_padded for s in stats)} padded at the border, '
    f'{sum(s.candidates_outside for s in stats)} with their centre outside the scan)'
  )
  if failed:
    _say(f'{failed} scans could not be read: {folder.final / "failed_scans.csv"}')
  _say(f'dataset: {folder.final}')


def _say(text: str) -> None:
  print(text, file=sys.stderr, flush=True)


if __name__ == '__main__':
  sys.exit(run())
