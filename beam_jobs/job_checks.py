"""Checks of what a job is given, for the job and for `--dry_run`."""

from __future__ import annotations

import pathlib

from beam_jobs import plan as plan_lib
from luna_tfds import luna16_patches
from luna_tfds.errors import JobError
from luna_tfds.errors import UsageError


def check_not_empty(plan: plan_lib.Plan) -> None:
  """Raises UsageError if a plan has no record."""
  if not plan.shards:
    raise UsageError(
      'no candidate is in a scan on disk; check that the CSV files belong to the scans'
    )


def check_unchanged(
  plan: plan_lib.Plan,
  luna_dir: pathlib.Path,
  config: luna16_patches.Luna16PatchesConfig,
) -> None:
  """Checks that no scan was replaced by another since the plan was made.

  Raises:
    JobError: the header or the size of a scan is not that of the plan.
  """
  modified = plan_lib.modified_header(plan, luna_dir, config)
  if modified:
    raise JobError(
      f'{modified}: the scan was modified while the job ran; run the same command again'
    )
