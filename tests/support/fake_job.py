"""Writes the only shard of a download, without Beam."""

from beam_jobs import plan as plan_lib
from beam_jobs import shard_writer
from luna_tfds import CONFIGS
from luna_tfds import extractor
from luna_tfds.scans import scan as scan_lib

CONFIG = CONFIGS['axial_50px_all']


def write_shard(download, folder):
  """Plans and writes a shard in a locked job folder; returns (shard, result)."""
  plan = plan_lib.make_plan(download.folder, CONFIG)
  folder.clean(plan)
  (shard,) = plan.shards
  return shard, shard_writer.write_shard(shard, CONFIG.spec, CONFIG.seed, folder)


def bytes_to_read(scans_and_points, spec=CONFIG.spec):
  """Returns the bytes of voxels that are read for points of scans.

  Args:
    scans_and_points: pairs (path of a scan, [n, 3] points in mm).
    spec: shape, spacing and layout of a patch.
  """
  return sum(
    extractor.Extraction(scan_lib.open_scan(path), points, spec).bytes_to_read
    for path, points in scans_and_points
  )
