import json

import fake_job

from beam_jobs import dataset_metadata
from beam_jobs import shard_result
from luna_tfds import record_index


def result_of(split='train', **stats):
  return shard_result.ShardResult(
    split=split,
    index=0,
    subset=0,
    fingerprint='0123456789abcdef',
    num_records=5,
    num_bytes=1000,
    stats=shard_result.ShardStats(**stats),
    sha256='f' * 64,
    record_index=record_index.ShardIndex(5, (), (), (0,)),
  )


def test_failed_scans_are_written_in_order(tmp_path):
  failed = [
    shard_result.FailedScan('1.2.9', 3, 'a.mhd: truncated'),
    shard_result.FailedScan('1.2.4', 12, 'b.mhd: "x", damaged'),
  ]
  results = [result_of(failed=failed[:1]), result_of('test', failed=failed[1:])]
  path = dataset_metadata.write_failed_scans(results, tmp_path)
  assert path == tmp_path / 'failed_scans.csv'
  assert path.read_text().splitlines() == [
    'seriesuid,candidates_lost,reason',
    '1.2.4,12,"b.mhd: ""x"", damaged"',
    '1.2.9,3,a.mhd: truncated',
  ]
  assert list(tmp_path.iterdir()) == [path]


def test_without_failed_scans_no_file_is_written(tmp_path):
  dataset_metadata.write_failed_scans([result_of()], tmp_path)
  assert list(tmp_path.iterdir()) == []


def test_metadata_of_a_dataset(data_dir, download):
  folder = data_dir / 'luna16_patches' / 'axial_50px_all' / '1.0.0'
  metadata = json.loads((folder / 'metadata.json').read_text())
  assert len(metadata['fingerprint']) == 16
  assert metadata['patch'] == {
    'shape_zyx': [1, 50, 50],
    'spacing_mm': None,
    'layout': 'axial',
  }
  assert metadata['selection'] == {
    'candidate_list': 'V1',
    'negatives_per_positive': None,
    'seed': 0,
  }
  counts = [c for shards in metadata['shard_label_counts'].values() for c in shards]
  labels = [row[4] for row in download.candidates]
  assert [sum(column) for column in zip(*counts)] == [labels.count(0), labels.count(1)]
  assert metadata['counts']['bytes_read'] == fake_job.bytes_to_read(
    (download.paths[name], point_xyz_mm)
    for name, *point_xyz_mm, _ in download.candidates
    if not download.scans[name].compressed
  ) + sum(s.voxels.nbytes for s in download.scans.values() if s.compressed)
  # The keys are published: readers depend on them.
  assert set(metadata) == {
    'fingerprint',
    'patch',
    'selection',
    'shard_subsets',
    'shard_label_counts',
    'shard_sha256',
    'shard_keys_sha256',
    'counts',
  }
  assert set(metadata['counts']) == {
    'candidates_elsewhere',
    'candidates_outside',
    'patches_padded',
    'bytes_read',
    'scans_failed',
  }
