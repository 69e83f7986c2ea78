import collections
import pathlib
import shutil

import fake_data
import fake_job
import fake_store
import oracles
import pytest

from beam_jobs import dry_run
from luna_tfds import CONFIGS
from luna_tfds import JobError
from luna_tfds import UsageError
from luna_tfds import text_format
from luna_tfds.files import store_path

ALL = CONFIGS['axial_50px_all']


def rows_of(text):
  """Returns the rows of the table: columns as words, by split."""
  lines = text.splitlines()
  start = next(i for i, line in enumerate(lines) if line.startswith('split'))
  return {line.split()[0]: line.split()[1:] for line in lines[start + 1 :] if line}


def test_a_complete_dataset(extract, small, out, capsys):
  folder = oracles.dataset_folder(out)
  assert extract(small.folder, out, '--config=axial_50px_all') == 0
  dry_run.run(small.folder, ALL, folder)
  complete = f'already complete, nothing to read or write: {folder}\n'
  assert capsys.readouterr().out == complete
  dry_run.run(small.folder, ALL, folder, overwrite=True)
  assert 'to read' in capsys.readouterr().out
  next(folder.glob('*.tfrecord-*')).unlink()
  dry_run.run(small.folder, ALL, folder)
  assert 'disk space' in capsys.readouterr().out


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


def test_a_compressed_scan_is_read_completely(tmp_path, out):
  scans = [fake_data.make_scan(seed, seed, compressed=True) for seed in range(2)]
  download = fake_data.write_download(tmp_path / 'compressed', scans)
  text = dry_run.summary(download.folder, ALL, out / '1.0.0')
  num_bytes = sum(scan.voxels.nbytes for scan in download.scans.values())
  assert num_bytes == 168_960
  assert ' in 2 shards; 169 kB to read, ' in text
  assert 'regions are read of 0 scans, all voxels of 2 scans' in text


def test_regions_of_an_uncompressed_scan_are_read(small, out):
  text = dry_run.summary(small.folder, ALL, out / '1.0.0')
  num_bytes = fake_job.bytes_to_read(
    (small.paths[name], point_xyz_mm) for name, *point_xyz_mm, _ in small.candidates
  )
  assert f'{text_format.bytes_text(num_bytes)} to read, ' in text
  assert 'regions are read of 4 scans, all voxels of 0 scans' in text


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

  monkeypatch.setattr(shutil, 'disk_usage', disk_usage)
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


# What the job would reject.


def test_other_inputs_need_overwrite(extract, small, out, capsys):
  assert extract(small.folder, out, '--config=axial_50px_all') == 0
  fake_data.write_candidates(small.folder / 'candidates.csv', small.candidates[:-3])
  final = oracles.dataset_folder(out)
  with pytest.raises(UsageError, match='was made from other inputs; give --overwrite'):
    dry_run.run(small.folder, ALL, final)
  dry_run.run(small.folder, ALL, final, overwrite=True)
  assert 'total: 53 records' in capsys.readouterr().out


def test_no_candidate_in_a_scan_on_disk(small, out):
  fake_data.write_candidates(small.folder / 'candidates.csv', [('x', 1.0, 2.0, 3.0, 0)])
  with pytest.raises(UsageError, match='no candidate is in a scan on disk'):
    dry_run.run(small.folder, ALL, out / '1.0.0')


def test_the_data_folder_is_a_file(small, out):
  out.touch()
  with pytest.raises(UsageError, match='cannot be written'):
    dry_run.run(small.folder, ALL, out / 'luna16_patches' / '1.0.0')


def test_the_data_folder_is_read_only(small, out, monkeypatch):
  out.mkdir()
  monkeypatch.setattr(dry_run.os, 'access', lambda path, mode: False)
  with pytest.raises(UsageError, match=f'^{out}: cannot be written; give a writable'):
    dry_run.run(small.folder, ALL, out / '1.0.0')
  expected = f'^{out}/new: cannot be written, because of {out}; give a writable'
  with pytest.raises(UsageError, match=expected):
    dry_run.run(small.folder, ALL, out / 'new' / '1.0.0')


def test_too_many_unreadable_scans(small, out, capsys):
  fake_data.truncate(small.paths['1.2.826.0.8'].with_suffix('.raw'), 2)
  with pytest.raises(JobError, match='1 scan cannot be read, more than --max_failed_s'):
    dry_run.run(small.folder, ALL, out / '1.0.0')
  assert '1 scan cannot be read, e.g. ' in capsys.readouterr().out
  dry_run.run(small.folder, ALL, out / '1.0.0', max_failed_scans=1)


def test_not_enough_disk_space(small, out, monkeypatch, capsys):
  usage = collections.namedtuple('usage', 'total used free')
  monkeypatch.setattr(shutil, 'disk_usage', lambda path: usage(10, 0, 10))
  with pytest.raises(OSError, match='not enough disk space'):
    dry_run.run(small.folder, ALL, out / 'luna16_patches' / '1.0.0')
  assert 'NOT ENOUGH' in capsys.readouterr().out


def test_a_download_and_a_dataset_in_a_store(memory_url, extract, small, out, capsys):
  root = store_path.as_path(memory_url)
  fake_store.upload_folder(small.folder, root / 'luna16')
  flags = ['--config=axial_50px_all', '--dry_run']
  assert extract(small.folder, out, *flags) == 0
  local = capsys.readouterr().out
  before = fake_store.contents(root)
  assert extract(root / 'luna16', root / 'data', *flags) == 0
  assert fake_store.contents(root) == before
  lines = [line for line in local.splitlines() if not line.startswith('disk space')]
  assert capsys.readouterr().out.splitlines() == lines


@pytest.mark.parametrize('url', ['file:///data', 'https://a.b/c'])
def test_other_urls_are_rejected(url, extract, small, out, error_line):
  flags = ['--config=axial_50px_all']
  for more in ([], ['--dry_run']):
    assert extract(small.folder, url, *flags, *more) == 2
    assert '--data_dir: ' in (line := error_line())
    assert 'URLs are not supported' in line
    assert extract(url, out, *flags, *more) == 2
    assert '--luna_dir: ' in error_line()
  assert not out.exists()
  assert not pathlib.Path(url.split('/')[0]).exists()


def test_an_unknown_runner_is_rejected(extract, small, out, error_line):
  flags = ['--dry_run', '--runner=NoSuchRunner']
  assert extract(small.folder, out, *flags) == 2
  assert '--runner=NoSuchRunner' in error_line()


def test_the_data_folder_is_a_link_to_a_missing_folder(small, out, tmp_path):
  out.symlink_to(tmp_path / 'missing')
  with pytest.raises(UsageError, match=rf'cannot be written, because of {out}; give'):
    dry_run.run(small.folder, ALL, oracles.dataset_folder(out))
