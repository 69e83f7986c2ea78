import collections
import os
import pickle

import fake_data
import numpy as np
import oracles
import pytest

from beam_jobs import job_folder
from beam_jobs import plan as plan_lib
from beam_jobs import shard_writer
from luna_tfds import CONFIGS
from luna_tfds import JobError
from luna_tfds import ScanError
from luna_tfds import UsageError
from luna_tfds import extractor
from luna_tfds import patches
from luna_tfds import records
from luna_tfds import scan as scan_lib

CONFIG = CONFIGS['axial_50px_all']


@pytest.fixture
def small(tmp_path):
  """A download of three scans of subset 0: one shard."""
  scans = [
    fake_data.make_scan(0),
    fake_data.make_scan(1, flips=(True, True, False)),
    fake_data.make_scan(2, compressed=True),
  ]
  return fake_data.write_download(tmp_path / 'luna16', scans)


@pytest.fixture
def folder(tmp_path):
  folder = job_folder.JobFolder(tmp_path / 'data' / '1.0.0')
  with folder.locked():
    yield folder


def write(download, folder):
  plan = plan_lib.make_plan(download.folder, CONFIG)
  folder.clean(plan)
  (shard,) = plan.shards
  return shard, shard_writer.write_shard(shard, CONFIG.spec, CONFIG.seed, folder)


def read(path):
  """The records of a file, in their order."""
  import tensorflow as tf

  serialized = list(tf.data.TFRecordDataset(str(path)).as_numpy_iterator())
  if not serialized:
    return []
  parsed = records.parse_batch(serialized, CONFIG.spec.image_shape)
  arrays = {name: value.numpy() for name, value in parsed.items()}
  return [{n: a[i] for n, a in arrays.items()} for i in range(len(serialized))]


def key(record):
  return f'{record["seriesuid"].decode()}/{record["candidate_id"]}'


def test_writes_what_a_plain_loop_makes(small, folder):
  shard, result = write(small, folder)
  found = read(folder.part(shard))
  expected = oracles.expected_of(small, range(len(small.candidates)), (1, 50, 50))
  assert len(found) == len(expected) == result.num_records == shard.num_records
  for record in found:
    oracles.assert_same_record(record, expected[key(record)])


def test_records_are_shuffled_by_hash(small, folder):
  shard, _ = write(small, folder)
  hashes = [oracles.keyed_hash(key(r), 'shuffle', 0) for r in read(folder.part(shard))]
  assert hashes == sorted(hashes)


def test_result_counts_what_was_done(small, folder):
  shard, result = write(small, folder)
  assert (result.split, result.index, result.subset) == ('train', 0, 0)
  assert result.fingerprint == shard.fingerprint
  assert result.num_bytes == folder.part(shard).stat().st_size
  labels = collections.Counter(row[4] for row in small.candidates)
  stats = result.stats
  assert stats.label_counts == [labels[0], labels[1]]
  assert (stats.scans_read, stats.failed) == (3, [])
  assert stats.bytes_read == 3 * 24 * 40 * 44 * 2
  # 50 pixels are more than the scans' 40 rows.
  assert stats.patches_padded == len(small.candidates)
  outside = 0
  for name, *point, _ in small.candidates:
    index = oracles.center_zyx(oracles.world_image(small.paths[name]), point)
    outside += ((index < -0.5) | (index >= np.array((24, 40, 44)) - 0.5)).any()
  assert stats.candidates_outside == outside > 0


def test_result_survives_json(small, folder):
  _, result = write(small, folder)
  failed = shard_writer.FailedScan('1.2.3', 7, 'truncated')
  result.stats.failed.append(failed)
  again = shard_writer.ShardResult.from_json(result.to_json())
  assert again == result
  assert again.stats.failed == [failed]


def test_the_same_bytes_again(small, folder):
  shard, _ = write(small, folder)
  first = folder.part(shard).read_bytes()
  shard, _ = write(small, folder)
  assert folder.part(shard).read_bytes() == first


def test_a_scan_that_cannot_be_read_is_left_out(small, folder):
  bad = '1.2.826.0.1'
  fake_data.truncate(small.paths[bad].with_suffix('.raw'), 2)
  shard, result = write(small, folder)
  lost = [row for row in small.candidates if row[0] == bad]
  (failed,) = result.stats.failed
  assert (failed.seriesuid, failed.candidates_lost) == (bad, len(lost))
  assert 'truncated' in failed.reason
  assert '\n' not in failed.reason
  found = read(folder.part(shard))
  assert len(found) == result.num_records == len(small.candidates) - len(lost)
  assert bad.encode() not in {record['seriesuid'] for record in found}
  assert result.stats.scans_read == 2
  assert sum(result.stats.label_counts) == result.num_records


def test_a_scan_that_breaks_off_midway_leaves_nothing(small, folder, monkeypatch):
  encode = records.RecordEncoder.encode
  calls = collections.Counter()

  def encode_some(self, record):
    calls[record.seriesuid] += 1
    if record.seriesuid == '1.2.826.0.1' and calls[record.seriesuid] == 4:
      raise ScanError('broke off')
    return encode(self, record)

  monkeypatch.setattr(records.RecordEncoder, 'encode', encode_some)
  shard, result = write(small, folder)
  found = read(folder.part(shard))
  assert {r['seriesuid'] for r in found} == {b'1.2.826.0.0', b'1.2.826.0.2'}
  assert result.stats.failed[0].reason == 'broke off'
  assert result.stats.label_counts[1] == sum(int(r['label']) for r in found)
  assert sum(result.stats.label_counts) == len(found)


def test_all_scans_fail(small, folder):
  for path in small.paths.values():
    path.write_text('garbage')
  shard, result = write(small, folder)
  assert result.num_records == 0
  assert len(result.stats.failed) == 3
  assert folder.part(shard).read_bytes() == b''


def test_finished_shards_are_known(small, folder):
  plan = plan_lib.make_plan(small.folder, CONFIG)
  (shard,) = plan.shards
  assert folder.result(shard, plan) is None
  _, result = write(small, folder)
  assert shard_writer.ShardResult.from_json(folder.result(shard, plan)) == result
  assert folder.finished() == {shard.fingerprint}


@pytest.mark.parametrize('damage', ['cut', 'gone', 'garbled', 'forgotten', 'touched'])
def test_shards_that_are_not_whole_are_not_trusted(damage, small, folder):
  plan = plan_lib.make_plan(small.folder, CONFIG)
  shard, _ = write(small, folder)
  if damage == 'cut':
    fake_data.truncate(folder.part(shard), 1)
  elif damage == 'gone':
    folder.part(shard).unlink()
  elif damage == 'garbled':
    (folder.book / f'{shard.fingerprint}.json').write_text('{')
  elif damage == 'forgotten':
    folder.forget(shard)
  else:
    os.utime(small.paths['1.2.826.0.1'].with_suffix('.raw'), ns=(1, 1))
  assert folder.result(shard, plan) is None


def test_no_half_written_file_is_left(small, folder, monkeypatch):
  def fail(path, serialized):
    path.write_bytes(b'half')
    raise OSError('no space left on device')

  monkeypatch.setattr(records, 'write_tfrecords', fail)
  with pytest.raises(OSError, match='no space left'):
    write(small, folder)
  assert list(folder.incomplete.iterdir()) == []
  assert folder.finished() == set()


def test_no_room(small, folder, monkeypatch):
  usage = collections.namedtuple('usage', 'total used free')
  monkeypatch.setattr(job_folder.shutil, 'disk_usage', lambda _: usage(100, 90, 10))
  with pytest.raises(OSError, match=r'are needed but only .* are free; make room'):
    write(small, folder)


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
  found = read(folder.part(plan.shards[0]))
  labels = {int(r['candidate_id']): int(r['label']) for r in found}
  assert labels == {candidate_id: label for _, label, candidate_id in rows['train']}
  for record in found:
    assert (record['seriesuid'], record['subset']) == (b'', -1)
    assert np.isnan(record['center_xyz_mm']).all()


def test_orders_reach_the_workers(small, folder):
  plan = plan_lib.make_plan(small.folder, CONFIG)
  folder.clean(plan)
  (shard,) = plan.shards
  name = pickle.loads(pickle.dumps(folder)).store(shard)
  loaded = folder.load(name)
  assert loaded.fingerprint == shard.fingerprint
  result = shard_writer.write_shard(loaded, CONFIG.spec, 0, folder)
  assert shard_writer.write_shard(shard, CONFIG.spec, 0, folder) == result
  assert list(folder.book.glob('*.orders')) == []


def test_clean_keeps_only_what_is_wanted(small, folder):
  shard, _ = write(small, folder)
  (folder.incomplete / 'stale.part').write_bytes(b'x')
  (folder.incomplete / f'{shard.fingerprint}.part.123.tmp').write_bytes(b'x')
  (folder.book / 'stale.json').write_text('{}')
  folder.clean(plan_lib.make_plan(small.folder, CONFIG))
  assert [path.name for path in folder.incomplete.iterdir()] == [
    f'{shard.fingerprint}.part'
  ]
  assert sorted(path.name for path in folder.book.iterdir()) == sorted(
    ['lock', f'{shard.fingerprint}.json']
  )


def test_a_second_job_is_kept_out(folder):
  with pytest.raises(JobError, match='another job is writing'), folder.locked():
    raise AssertionError('two jobs at once')


def test_a_folder_that_cannot_be_written(tmp_path):
  (tmp_path / 'file').touch()
  folder = job_folder.JobFolder(tmp_path / 'file' / '1.0.0')
  with (
    pytest.raises(UsageError, match=r'cannot be written.* give a --data_dir'),
    folder.locked(),
  ):
    raise AssertionError('a file was taken for a folder')


def test_reading_whole_or_regions_writes_the_same(small, folder, monkeypatch):
  shard, whole = write(small, folder)
  by_whole = folder.part(shard).read_bytes()

  def regions(grid, centers_zyx, spec, reads_regions, bytes_per_voxel=2):
    return extractor.ReadPlan('regions' if reads_regions else 'whole', 1)

  monkeypatch.setattr(extractor, 'plan_reading', regions)
  shard, by_region = write(small, folder)
  assert by_region.stats.bytes_read == 3 != whole.stats.bytes_read
  assert folder.part(shard).read_bytes() == by_whole


def test_scans_are_opened_once_each(small, folder, monkeypatch):
  opened = []
  open_scan = scan_lib.open_scan
  monkeypatch.setattr(scan_lib, 'open_scan', lambda p: opened.append(p) or open_scan(p))
  write(small, folder)
  assert sorted(opened) == sorted(small.paths.values())


def test_spec_decides_the_image(small, folder):
  plan = plan_lib.make_plan(small.folder, CONFIG)
  folder.clean(plan)
  spec = patches.PatchSpec((4, 5, 6), 1.0, 'cube')
  (shard,) = plan.shards
  shard_writer.write_shard(shard, spec, 0, folder)
  import tensorflow as tf

  dataset = tf.data.TFRecordDataset(str(folder.part(shard))).batch(100)
  parsed = records.parse_batch(next(iter(dataset)), spec.image_shape)
  assert parsed['image'].shape == (len(small.candidates), 4, 5, 6, 1)
  assert (parsed['spacing_xyz_mm'].numpy() == 1).all()
