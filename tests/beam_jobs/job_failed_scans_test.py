"""Jobs with scans that cannot be read."""

import os

import fake_data
import fake_job
import oracles
import pytest

from luna_tfds import ScanError
from luna_tfds.scans import scan as scan_lib

ALL = '--config=axial_50px_all'


def modify(path):
  """Reverses the voxels; the size stays."""
  path.write_bytes(path.read_bytes()[::-1])


def test_an_unreadable_scan_fails_the_job(extract, small, out, failure):
  bad = '1.2.826.0.8'
  fake_data.truncate(small.paths[bad].with_suffix('.raw'), 2)
  assert extract(small.folder, out, ALL) == 1
  assert '1 scan cannot be read' in failure()
  assert not oracles.dataset_folder(out).exists()
  # The other scans were extracted.
  assert len(fake_job.part_times(oracles.incomplete_folder(out))) == 4
  lost = sum(row[0] == bad for row in small.candidates)
  lines = (oracles.incomplete_folder(out) / 'failed_scans.csv').read_text().splitlines()
  assert lines[0] == 'seriesuid,candidates_lost,reason'
  assert lines[1].startswith(f'{bad},{lost},')
  assert 'truncated' in lines[1]
  assert len(lines) == 2


def test_unreadable_scans_within_the_limit(extract, small, out, capfd):
  bad = '1.2.826.0.1'
  fake_data.truncate(small.paths[bad].with_suffix('.raw'), 2)
  assert extract(small.folder, out, ALL, '--max_failed_scans=1') == 0
  assert '1 scan could not be read, see ' in capfd.readouterr().err
  lines = (oracles.dataset_folder(out) / 'failed_scans.csv').read_text().splitlines()
  assert [line.split(',')[0] for line in lines[1:]] == [bad]
  rows = [i for i, row in enumerate(small.candidates) if row[0] != bad]
  expected = oracles.expected_of(small, rows, (1, 50, 50))
  found = oracles.records_by_key(oracles.read_dataset(oracles.dataset_folder(out)))
  assert found.keys() == expected.keys()
  for key, record in found.items():
    oracles.assert_same_record(record, expected[key])


def test_unreadable_scans_beyond_the_limit(extract, small, out, failure):
  for name in ('1.2.826.0.0', '1.2.826.0.9'):
    fake_data.truncate(small.paths[name].with_suffix('.raw'), 2)
  assert extract(small.folder, out, ALL, '--max_failed_scans=1') == 1
  assert '2 scans cannot be read' in failure()


def test_all_scans_are_unreadable(extract, small, out, failure):
  for path in small.paths.values():
    path.write_text('garbage')
  assert extract(small.folder, out, ALL, '--max_failed_scans=9') == 1
  assert 'no scan could be read' in failure()
  assert extract(small.folder, out, ALL) == 1
  line = failure()
  assert '4 scans cannot be read' in line
  assert 'finished shards are kept' not in line
  assert not oracles.dataset_folder(out).exists()


def test_fixed_scans_complete_the_dataset(extract, small, out, tmp_path):
  expected = fake_job.uninterrupted(extract, small, tmp_path)
  data_file = small.paths['1.2.826.0.8'].with_suffix('.raw')
  content, status = data_file.read_bytes(), data_file.stat()
  times = (status.st_atime_ns, status.st_mtime_ns)
  fake_data.truncate(data_file, 2)
  assert extract(small.folder, out, ALL) == 1
  before = fake_job.part_times(oracles.incomplete_folder(out))
  data_file.write_bytes(content)
  os.utime(data_file, ns=times)  # shard_results.json contains them
  published = []
  replace = os.replace

  def watch(source, target):
    if target.name.startswith('luna16_patches-'):
      published.append((source.name, source.stat().st_mtime_ns))
    replace(source, target)

  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(os, 'replace', watch)
    assert extract(small.folder, out, ALL) == 0
  assert len(published) == 4
  assert len(set(published) & set(before.items())) == 3
  assert oracles.files_of(oracles.dataset_folder(out)) == expected


def test_an_unreadable_scan_is_tried_again(extract, small, out, tmp_path, monkeypatch):
  open_scan = scan_lib.open_scan

  def fail(path):
    if path.stem == '1.2.826.0.1':
      raise ScanError(f'{path}: network error')
    return open_scan(path)

  with monkeypatch.context() as patch:
    patch.setattr(scan_lib, 'open_scan', fail)
    assert extract(small.folder, out, ALL) == 1
  # No file was modified in between.
  assert extract(small.folder, out, ALL) == 0
  assert oracles.files_of(oracles.dataset_folder(out)) == fake_job.uninterrupted(
    extract, small, tmp_path
  )


def test_a_scan_modified_while_it_is_read_is_a_failed_scan(
  extract, small, out, monkeypatch, failure
):
  open_scan = scan_lib.open_scan

  def open_and_modify(path):
    scan = open_scan(path)
    if path.stem == '1.2.826.0.1':
      modify(path.with_suffix('.raw'))
    return scan

  with monkeypatch.context() as patch:
    patch.setattr(scan_lib, 'open_scan', open_and_modify)
    assert extract(small.folder, out, ALL) == 1
  assert '1 scan cannot be read' in failure()
  line = (
    (oracles.incomplete_folder(out) / 'failed_scans.csv').read_text().splitlines()[1]
  )
  assert line.startswith('1.2.826.0.1,')
  assert 'the scan was modified while it was read' in line
  assert extract(small.folder, out, ALL) == 0
