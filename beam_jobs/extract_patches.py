"""Extracts the candidates of the LUNA16 download into the TFDS dataset `luna16_patches`.

    luna16-extract --luna_dir=LUNA16 --data_dir=$HOME/tensorflow_datasets

`--luna_dir` is the unpacked download: subset*/*.mhd and the CSV files; it may be partial.
After a crash, run the same command again: it resumes. Unknown flags are passed to Beam
(`--runner=FlinkRunner ...`, see docs/cluster.md); `--luna_dir` and `--data_dir` must then be
folders that all workers share, or URLs of a store (s3://bucket/data, see docs/stores.md).
By default the job runs on all cores of this machine.
"""

from __future__ import annotations

from collections.abc import Sequence
import os
import sys
from typing import TYPE_CHECKING, Any

from absl import flags

from luna_tfds import download as download_lib
from luna_tfds import luna16_patches
from luna_tfds.command_line import cli
from luna_tfds.command_line import cli_flags
from luna_tfds.files.store_path import StorePath

if TYPE_CHECKING:
  from apache_beam.options.pipeline_options import PipelineOptions

# A folder that cannot exist.
_NOWHERE = f'{os.devnull}/no_dataset'

FLAGS = cli.new_flags()

_LUNA_DIR = cli_flags.define_luna_dir(FLAGS, 'a partial one works (required).')
_DATA_DIR = cli_flags.define_data_dir(FLAGS)
_CONFIG = flags.DEFINE_enum(
  'config',
  next(iter(luna16_patches.CONFIGS)),
  list(luna16_patches.CONFIGS),
  'Config of the dataset; the next flags change it.',
  flag_values=FLAGS,
)
_PATCH_SHAPE = flags.DEFINE_string(
  'patch_shape',
  None,
  'Samples of a patch: height,width or depth,height,width (default: from --config).',
  flag_values=FLAGS,
)
_SPACING_MM = flags.DEFINE_float(
  'spacing_mm',
  None,
  "Distance between samples in mm; 0 keeps the scan's own voxels "
  '(default: from --config).',
  flag_values=FLAGS,
)
_CANDIDATES = flags.DEFINE_enum(
  'candidates',
  None,
  list(download_lib.CANDIDATE_LISTS),
  "LUNA16's candidate list (default: from --config).",
  flag_values=FLAGS,
)
_NEGATIVES = flags.DEFINE_integer(
  'negatives_per_positive',
  None,
  'Negatives kept for each positive, in each subset; -1 keeps all '
  '(default: from --config).',
  lower_bound=-1,
  flag_values=FLAGS,
)
_SUBSETS = flags.DEFINE_string(
  'subsets', None, 'Subsets to use, e.g. 0,1,2 (default: all).', flag_values=FLAGS
)
_SEED = flags.DEFINE_integer(
  'seed',
  None,
  'Seed of the hashes that select negatives and order records '
  '(default: from --config).',
  flag_values=FLAGS,
)
_NUM_WORKERS = flags.DEFINE_integer(
  'num_workers',
  0,
  'Processes of the local runner; 0 for one per core, or one if the job is small. '
  'Of another runner: workers that its service starts, as Dataflow does.',
  lower_bound=0,
  flag_values=FLAGS,
)
# A scan takes seconds; an engine may need minutes to start workers.
_STALL_MINUTES = flags.DEFINE_float(
  'stall_minutes',
  10.0,
  'Minutes without a scan that is done, after which a warning is printed; 0 for never.',
  lower_bound=0.0,
  flag_values=FLAGS,
)
_MAX_FAILED = flags.DEFINE_integer(
  'max_failed_scans',
  0,
  'Maximum number of scans that may be unreadable; with more the job fails.',
  lower_bound=0,
  flag_values=FLAGS,
)
_OVERWRITE = flags.DEFINE_boolean(
  'overwrite',
  False,
  'Write an existing dataset again, and replace it when the new one is complete.',
  flag_values=FLAGS,
)
_DRY_RUN = flags.DEFINE_boolean(
  'dry_run',
  False,
  'Print what would be read and written, and exit.',
  flag_values=FLAGS,
)


def main(beam_arguments: list[str]) -> None:
  """Flags -> job."""
  luna_dir = cli.required_path(_LUNA_DIR)
  data_dir = cli.required_path(_DATA_DIR)
  config = _config_from_flags()
  runner, options = _parse_beam_arguments(beam_arguments)
  # Of a folder without a dataset: TFDS would read the metadata of an existing dataset,
  # and fail if they are damaged; the job repairs them.
  # TFDS cannot look into a store where TensorFlow has no file system for it.
  root = _NOWHERE if isinstance(data_dir, StorePath) else data_dir / 'no_dataset'
  builder = luna16_patches.Builder(config=config, data_dir=str(root))
  final = data_dir / builder.data_path.relative_to(builder.data_dir_root)
  if _DRY_RUN.value:
    from beam_jobs import dry_run

    if beam_arguments:
      from beam_jobs import runners

      runners.pipeline(*runners.resolve(runner, options))  # checks the runner
    dry_run.run(
      luna_dir,
      config,
      final,
      overwrite=_OVERWRITE.value,
      max_failed_scans=_MAX_FAILED.value,
    )
    return
  from beam_jobs import job

  job.prepare(
    builder,
    luna_dir,
    beam_runner=runner,
    beam_options=options,
    num_workers=_NUM_WORKERS.value,
    stall_minutes=_STALL_MINUTES.value,
    max_failed_scans=_MAX_FAILED.value,
    overwrite=_OVERWRITE.value,
    final=final.absolute(),
  )


def _parse_beam_arguments(
  arguments: list[str],
) -> tuple[str | None, PipelineOptions | None]:
  """Returns (name of the runner, options); both are None without arguments.

  Raises:
    UsageError: an argument is unknown to Beam, or invalid.
  """
  if not arguments:  # Beam takes a second to load
    return None, None
  from beam_jobs import runners

  return runners.parse(arguments, list(FLAGS))


def run(argv: Sequence[str] | None = None) -> int:
  """Runs the command; returns its exit code."""
  return cli.run('luna16-extract', __doc__, main, FLAGS, argv, pass_unknown=True)


def _config_from_flags() -> luna16_patches.Luna16PatchesConfig:
  """Returns the config of --config, changed by the flags that are given."""
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
  base = luna16_patches.CONFIGS[_CONFIG.value]
  if not changes:
    return base
  return cli.as_usage_error(
    luna16_patches.custom_config, base, flag_prefix='--', **changes
  )


if __name__ == '__main__':
  sys.exit(run())
