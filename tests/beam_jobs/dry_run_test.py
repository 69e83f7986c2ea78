import collections
import shutil

import fake_data
import pytest

from beam_jobs import dry_run
from luna_tfds import CONFIGS
from luna_tfds import UsageError

ALL = CONFIGS['axial_50px_all']


def rows_of(text):
  """Returns the rows of the table: columns as words, by split."""
  lines = text.splitlines()
  start = next(i for i, line in enumerate(lines) if line.startswith('split'))
  return {line.split()[0]: line.split()[1:] for line in lines[start + 1 :] if line}


def test_table_has_the_counts_of_each_split(small, out):
  text = dry_run.summary(small.folder, ALL, out / '1.0.0')
  found = rows_of(text)
  subset_of = {name: scan.subset for name, scan in small.scans.items()}
  for split, subsets in {'train': {0, 1}, 'validation': {8}, 'test': {9}}.items():
    labels = [row[4] for row in small.candidates if subset_of[row[0]] in subsets]
    scans, candidates, nodules, shards = map(int, found[split][:4])
    assert scans == shards == len(subsets)
    assert candidates == len(labels)
    assert nodules == sum(labels)


def test_bytes_to_read_are_those_of_the_scans(small, out):
  text = dry_run.summary(small.folder, ALL, out / '1.0.0')
  # Scans this small are read completely.
  num_bytes = sum(scan.voxels.nbytes for scan in small.scans.values())
  assert num_bytes == 337_920
  assert 'total: 56 records in 4 shards; 338 kB to read, ' in text
  assert 'regions are read of 0 scans, all voxels of 4 scans' in text


def test_header_names_the_config(small, out):
  first, _ = dry_run.summary(small.folder, ALL, out / '1.0.0').split('\n', 1)
  assert first == f'axial_50px_all: {ALL.description}'


def test_columns_are_aligned(small, out):
  text = dry_run.summary(small.folder, ALL, out / '1.0.0')
  lines = text.splitlines()[1:5]
  assert len({len(line) for line in lines}) == 1


def test_candidates_without_scan_are_counted(small, out):
  shutil.rmtree(small.folder / 'subset8')
  missing = sum(row[0] == '1.2.826.0.8' for row in small.candidates)
  text = dry_run.summary(small.folder, ALL, out / '1.0.0')
  assert f'\n{missing} candidates without a scan on disk; not extracted\n' in text
  assert 'validation' not in rows_of(text)


def test_unreadable_scans_are_counted(small, out):
  text = dry_run.summary(small.folder, ALL, out / '1.0.0')
  assert 'cannot be read' not in text
  path = small.paths['1.2.826.0.8']
  fake_data.truncate(path.with_suffix('.raw'), 2)
  text = dry_run.summary(small.folder, ALL, out / '1.0.0')
  assert f'\n1 scan cannot be read, e.g. {path}: ' in text


@pytest.mark.parametrize(('free', 'expected'), [(10**12, 'enough'), (10, 'NOT ENOUGH')])
def test_free_disk_space_is_compared(free, expected, small, out, monkeypatch):
  usage = collections.namedtuple('usage', 'total used free')
  asked = []

  def disk_usage(path):
    asked.append(path)
    return usage(free, 0, free)

  monkeypatch.setattr(dry_run.shutil, 'disk_usage', disk_usage)
  text = dry_run.summary(small.folder, ALL, out / 'luna16_patches' / '1.0.0')
  (line,) = [s for s in text.splitlines() if s.startswith('disk space at ')]
  assert line.endswith(f' free, {expected}')
  assert asked == [out.parent]  # the nearest folder that exists


def test_the_article_has_no_scans(tmp_path, out):
  fake_data.write_article(tmp_path / 'article')
  text = dry_run.summary(tmp_path / 'article', CONFIGS['article'], out / '1.0.0')
  assert rows_of(text)['train'][:4] == ['0', '4', '2', '1']
  assert 'regions are read' not in text


def test_a_missing_download_is_an_error(tmp_path, out):
  with pytest.raises(UsageError, match='no such folder'):
    dry_run.summary(tmp_path / 'absent', ALL, out / '1.0.0')
