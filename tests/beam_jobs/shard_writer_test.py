import collections

import fake_data
import fake_job
import numpy as np
import oracles
import pytest

from beam_jobs import disk_job_folder
from beam_jobs import plan as plan_lib
from beam_jobs import shard_writer
from luna_tfds import CONFIGS
from luna_tfds import ScanError
from luna_tfds import patches
from luna_tfds import records
from luna_tfds import tfrecord
from luna_tfds.scans import scan as scan_lib

CONFIG = fake_job.CONFIG


def read(path):
  """Returns the records of a file, in order."""
  import tensorflow as tf

  serialized = list(tf.data.TFRecordDataset(str(path)).as_numpy_iterator())
  if not serialized:
    return []
  parsed = records.parse_batch(serialized, CONFIG.spec.image_shape)
  arrays = {name: value.numpy() for name, value in parsed.items()}
  return [{n: a[i] for n, a in arrays.items()} for i in range(len(serialized))]


def key(record):
  return f'{record["seriesuid"].decode()}/{record["candidate_id"]}'


def test_records_equal_those_of_a_plain_loop(one_shard, folder):
  shard, result = fake_job.write_shard(one_shard, folder)
  found = read(folder.partial_path(shard.fingerprint))
  expected = oracles.expected_of(
    one_shard, range(len(one_shard.candidates)), (1, 50, 50)
  )
  assert len(found) == len(expected) == result.num_records == shard.num_records
  for record in found:
    oracles.assert_same_record(record, expected[key(record)])


def test_records_are_shuffled_by_hash(one_shard, folder):
  shard, _ = fake_job.write_shard(one_shard, folder)
  hashes = [
    oracles.keyed_hash(key(r), 'shuffle', 0)
    for r in read(folder.partial_path(shard.fingerprint))
  ]
  assert hashes == sorted(hashes)


def test_result_has_the_counts(one_shard, folder):
  shard, result = fake_job.write_shard(one_shard, folder)
  assert (result.split, result.index, result.subset) == ('train', 0, 0)
  assert result.fingerprint == shard.fingerprint
  assert result.num_bytes == folder.partial_path(shard.fingerprint).stat().st_size
  labels = collections.Counter(row[4] for row in one_shard.candidates)
  stats = result.stats
  assert stats.label_counts == [labels[0], labels[1]]
  assert (stats.scans_read, stats.failed) == (3, [])
  assert stats.bytes_read == fake_job.bytes_to_read(
    (task.path, task.centers_xyz_mm) for task in shard.tasks
  )
  # A patch has 50 rows, the scans only 40.
  assert stats.patches_padded == len(one_shard.candidates)
  outside = 0
  for name, *point, _ in one_shard.candidates:
    index = oracles.center_zyx(oracles.world_image(one_shard.paths[name]), point)
    outside += ((index < -0.5) | (index >= np.array((24, 40, 44)) - 0.5)).any()
  assert stats.candidates_outside == outside > 0


def test_bytes_are_reproducible(one_shard, folder):
  shard, _ = fake_job.write_shard(one_shard, folder)
  first = folder.partial_path(shard.fingerprint).read_bytes()
  shard, _ = fake_job.write_shard(one_shard, folder)
  assert folder.partial_path(shard.fingerprint).read_bytes() == first


def test_an_unreadable_scan_is_omitted_and_listed(one_shard, folder):
  bad = '1.2.826.0.1'
  fake_data.truncate(one_shard.paths[bad].with_suffix('.raw'), 2)
  shard, result = fake_job.write_shard(one_shard, folder)
  lost = [row for row in one_shard.candidates if row[0] == bad]
  (failed,) = result.stats.failed
  assert (failed.seriesuid, failed.candidates_lost) == (bad, len(lost))
  assert 'truncated' in failed.reason
  assert '\n' not in failed.reason
  found = read(folder.partial_path(shard.fingerprint))
  assert len(found) == result.num_records == len(one_shard.candidates) - len(lost)
  assert bad.encode() not in {record['seriesuid'] for record in found}
  assert result.stats.scans_read == 2
  assert sum(result.stats.label_counts) == result.num_records


def test_a_scan_that_fails_midway_contributes_no_records(
  one_shard, folder, monkeypatch
):
  encode = records.RecordEncoder.encode
  calls = collections.Counter()

  def encode_some(self, record):
    calls[record.seriesuid] += 1
    if record.seriesuid == '1.2.826.0.1' and calls[record.seriesuid] == 4:
      raise ScanError('read error')
    return encode(self, record)

  monkeypatch.setattr(records.RecordEncoder, 'encode', encode_some)
  shard, result = fake_job.write_shard(one_shard, folder)
  found = read(folder.partial_path(shard.fingerprint))
  assert {r['seriesuid'] for r in found} == {b'1.2.826.0.0', b'1.2.826.0.2'}
  assert result.stats.failed[0].reason == 'read error'
  assert result.stats.label_counts[1] == sum(int(r['label']) for r in found)
  assert sum(result.stats.label_counts) == len(found)


def test_shard_of_unreadable_scans_is_empty(one_shard, folder):
  for path in one_shard.paths.values():
    path.write_text('garbage')
  shard, result = fake_job.write_shard(one_shard, folder)
  assert result.num_records == 0
  assert len(result.stats.failed) == 3
  assert folder.partial_path(shard.fingerprint).read_bytes() == b''


def test_a_failed_write_leaves_no_file(one_shard, folder, monkeypatch):
  def fail(path, serialized):
    path.write_bytes(b'half')
    raise OSError('no space left on device')

  monkeypatch.setattr(tfrecord, 'write_tfrecords', fail)
  with pytest.raises(OSError, match='no space left'):
    fake_job.write_shard(one_shard, folder)
  assert list(folder.incomplete.iterdir()) == []
  assert folder.finished_fingerprints() == set()


def test_a_full_disk_is_reported_before_writing(one_shard, folder, monkeypatch):
  usage = collections.namedtuple('usage', 'total used free')
  monkeypatch.setattr(
    disk_job_folder.shutil, 'disk_usage', lambda _: usage(100, 90, 10)
  )
  with pytest.raises(OSError, match=r'not enough disk space: .* free some space'):
    fake_job.write_shard(one_shard, folder)
  assert list(folder.incomplete.iterdir()) == []


def test_article_shard(tmp_path, folder):
  rows = fake_data.write_article(tmp_path / 'article')
  config = CONFIGS['article']
  plan = plan_lib.make_plan(tmp_path / 'article', config)
  folder.clean(plan)
  result = shard_writer.write_shard(plan.shards[0], config.spec, 0, folder)
  assert result.num_records == 4
  assert result.stats.label_counts == [2, 2]
  assert result.stats.patches_padded == 2
  assert (result.stats.scans_read, result.stats.bytes_read) == (0, 0)
  found = read(folder.partial_path(plan.shards[0].fingerprint))
  labels = {int(r['candidate_id']): int(r['label']) for r in found}
  assert labels == {candidate_id: label for _, label, candidate_id in rows['train']}
  for record in found:
    assert (record['seriesuid'], record['subset']) == (b'', -1)
    assert np.isnan(record['center_xyz_mm']).all()


def test_each_scan_is_opened_once(one_shard, folder, monkeypatch):
  opened = []
  open_scan = scan_lib.open_scan
  monkeypatch.setattr(scan_lib, 'open_scan', lambda p: opened.append(p) or open_scan(p))
  fake_job.write_shard(one_shard, folder)
  assert sorted(opened) == sorted(one_shard.paths.values())


def test_images_have_the_shape_and_spacing_of_the_spec(one_shard, folder):
  plan = plan_lib.make_plan(one_shard.folder, CONFIG)
  folder.clean(plan)
  spec = patches.PatchSpec((4, 5, 6), 1.0, 'cube')
  (shard,) = plan.shards
  shard_writer.write_shard(shard, spec, 0, folder)
  import tensorflow as tf

  dataset = tf.data.TFRecordDataset(str(folder.partial_path(shard.fingerprint))).batch(
    100
  )
  parsed = records.parse_batch(next(iter(dataset)), spec.image_shape)
  assert parsed['image'].shape == (len(one_shard.candidates), 4, 5, 6, 1)
  assert (parsed['spacing_xyz_mm'].numpy() == 1).all()
