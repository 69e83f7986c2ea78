"""Writes the only shard of a download, without Beam."""

from beam_jobs import plan as plan_lib
from beam_jobs import shard_writer
from luna_tfds import CONFIGS

CONFIG = CONFIGS['axial_50px_all']


def write_shard(download, folder):
  """Plans and writes a shard in a locked job folder; returns (shard, result)."""
  plan = plan_lib.make_plan(download.folder, CONFIG)
  folder.clean(plan)
  (shard,) = plan.shards
  return shard, shard_writer.write_shard(shard, CONFIG.spec, CONFIG.seed, folder)
