"""Jobs of tests: one without Beam, one without interruptions, one that fails."""

import oracles

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


def uninterrupted(extract, download, folder):
  """Returns the files of a dataset from a job without interruptions."""
  data_dir = folder / 'uninterrupted'
  assert extract(download.folder, data_dir, '--config=axial_50px_all') == 0
  return oracles.files_of(oracles.dataset_folder(data_dir))


def fail_after(monkeypatch, num_shards):
  """Makes the job fail once it has written some shards."""
  write_shard = shard_writer.write_shard
  written = []

  def fail(*arguments):
    if len(written) == num_shards:
      raise OSError('disk error')
    written.append(arguments[0].fingerprint)
    return write_shard(*arguments)

  monkeypatch.setattr(shard_writer, 'write_shard', fail)


def part_times(incomplete):
  """Returns when each finished shard of an incomplete dataset was written, by name."""
  return {path.name: path.stat().st_mtime_ns for path in incomplete.glob('*.part')}
