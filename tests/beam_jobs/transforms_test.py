import random

import apache_beam as beam
from apache_beam.runners.portability import fn_api_runner
from apache_beam.testing import test_pipeline
from apache_beam.testing import util
from apache_beam.transforms import environments
import fake_data
import fake_job
import oracles
import pytest

from beam_jobs import disk_job_folder
from beam_jobs import plan as plan_lib
from beam_jobs import shard_writer
from beam_jobs import transforms
from luna_tfds import CONFIGS
from luna_tfds import patches

CONFIG = CONFIGS['axial_50px_all']


def write(plan, folder, shards=None, check=None):
  """Runs the transform in this process; returns the result of the pipeline."""
  folder.clean(plan)
  names = [folder.write_shard_spec(shard) for shard in (shards or plan.shards)]
  pipeline = test_pipeline.TestPipeline(runner=fn_api_runner.FnApiRunner())
  results = (
    pipeline
    | beam.Create(names)
    | transforms.WriteShards(CONFIG.spec, CONFIG.seed, folder)
  )
  if check:
    util.assert_that(results, check)
  result = pipeline.run()
  result.wait_until_finish()
  return result


def counters(result):
  found = {}
  for counter in result.metrics().query()['counters']:
    if counter.key.metric.namespace.endswith('WriteShards'):
      found[counter.key.metric.name] = counter.committed
  return found


def test_counters(download, folder):
  plan = plan_lib.make_plan(download.folder, CONFIG)
  found = counters(write(plan, folder))
  padded = 0
  images = {name: oracles.world_image(path) for name, path in download.paths.items()}
  for name, *point, _ in download.candidates:
    center = oracles.center_zyx(images[name], point)
    first = [int((c + 0.5) // 1) - n // 2 for c, n in zip(center, (1, 50, 50))]
    shape = images[name].GetSize()[::-1]
    padded += any(f < 0 or f + n > s for f, n, s in zip(first, (1, 50, 50), shape))
  tasks = [task for shard in plan.shards for task in shard.tasks]
  num_bytes = fake_job.bytes_to_read((t.path, t.centers_xyz_mm) for t in tasks)
  assert 0 < padded < len(download.candidates)
  assert found == {
    'scans-read': 12,
    'scans-failed': 0,
    'bytes-read': num_bytes,
    'patches-written': len(download.candidates),
    'patches-padded': padded,
  }


def test_counters_of_failed_scans(tmp_path, folder):
  scans = [fake_data.make_scan(seed, seed) for seed in range(3)]
  download = fake_data.write_download(tmp_path / 'luna16', scans)
  fake_data.truncate(download.paths['1.2.826.0.1'].with_suffix('.raw'), 2)
  found = counters(write(plan_lib.make_plan(download.folder, CONFIG), folder))
  left = [row for row in download.candidates if row[0] != '1.2.826.0.1']
  assert found['scans-failed'] == 1
  assert found['scans-read'] == 2
  assert found['patches-written'] == len(left)


def test_one_result_per_shard(download, folder):
  plan = plan_lib.make_plan(download.folder, CONFIG)

  def check(results):
    found = {r.fingerprint: r.num_records for r in results}
    assert found == {s.fingerprint: s.num_records for s in plan.shards}
    assert {(r.split, r.index, r.subset) for r in results} == {
      (s.split, s.index, s.subset) for s in plan.shards
    }
    for result in results:
      assert folder.partial_path(result.fingerprint).stat().st_size == result.num_bytes

  write(plan, folder, check=check)
  assert folder.finished_fingerprints() == {s.fingerprint for s in plan.shards}


def test_the_order_of_shards_does_not_matter(download, folder, tmp_path):
  plan = plan_lib.make_plan(download.folder, CONFIG)
  other = disk_job_folder.DiskJobFolder(tmp_path / 'other' / '1.0.0')
  shuffled = list(plan.shards)
  random.Random(1).shuffle(shuffled)
  assert shuffled != list(plan.shards)
  write(plan, folder)
  with other.locked():
    write(plan, other, shuffled)
    files = oracles.files_of(folder.incomplete)
    assert len(files) == len(plan.shards) == 10
    assert oracles.files_of(other.incomplete) == files


def test_a_shard_whose_spec_the_launcher_has_deleted(download, folder):
  plan = plan_lib.make_plan(download.folder, CONFIG)
  deleted, other = plan.shards[:2]
  folder.clean(plan)
  names = [deleted.fingerprint, folder.write_shard_spec(other)]
  with beam.Pipeline(runner=fn_api_runner.FnApiRunner()) as pipeline:
    write_shards = transforms.WriteShards(CONFIG.spec, CONFIG.seed, folder)
    _ = pipeline | beam.Create(names) | write_shards
  assert folder.finished_fingerprints() == {other.fingerprint}
  assert folder.recorded_error(deleted) is None


def test_a_worker_without_memory_records_it(download, folder, monkeypatch):
  def fail(*unused):
    raise MemoryError

  monkeypatch.setattr(shard_writer, 'write_shard', fail)
  plan = plan_lib.make_plan(download.folder, CONFIG)
  write(plan, folder)
  assert str(folder.recorded_error(plan.shards[0])) == (
    'not enough memory (MemoryError); free some, or give a smaller --num_workers; '
    'run the same command again'
  )


@pytest.mark.parametrize(
  ('spec', 'as_folder', 'problem'),
  [
    ((1, 50, 50), True, r'spec must be a PatchSpec\. Received: \(1, 50, 50\)'),
    (patches.PatchSpec(), False, r'folder must be a JobFolder\. Received: '),
  ],
)
def test_arguments_are_checked_when_the_pipeline_is_built(
  spec, as_folder, problem, tmp_path
):
  folder = disk_job_folder.DiskJobFolder(tmp_path) if as_folder else tmp_path
  with pytest.raises(TypeError, match=problem):
    transforms.WriteShards(spec, 0, folder)


def test_translation_for_services(folder):
  """What Dataflow, Flink and others get is small, and names the image of the workers."""
  pipeline = beam.Pipeline()
  _ = (
    pipeline
    | beam.Create(['fingerprint'])
    | transforms.WriteShards(CONFIG.spec, CONFIG.seed, folder)
  )
  environment = environments.DockerEnvironment(container_image='image')
  proto = pipeline.to_runner_api(default_environment=environment)
  names = {each.unique_name for each in proto.components.transforms.values()}
  assert any(name.endswith('/Write') for name in names)
  images = {each.payload for each in proto.components.environments.values()}
  assert any(b'image' in payload for payload in images)
  assert len(proto.SerializeToString()) < 100_000
