import pytest

from luna_tfds import download as download_lib
from luna_tfds.errors import UsageError


def test_missing_csv(tmp_path):
  assert download_lib.find_file(tmp_path, 'candidates.csv') is None
  with pytest.raises(
    UsageError, match=r'candidates\.csv .* is missing; --luna_dir must'
  ):
    download_lib.require_file(tmp_path, 'candidates.csv')


def test_scans_of_a_download(tmp_path):
  for name in (
    'subset0/b.mhd',
    'subset3/deeper/a.mhd',
    'subset4/C.MHD',
    'subset10/x.mhd',
    'other/y.mhd',
  ):
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / name).touch()
  (tmp_path / 'subset0' / 'b.raw').touch()
  (tmp_path / 'subset5').touch()
  # Entries that are no files are scans that cannot be read, not errors of the download.
  (tmp_path / 'subset4' / 'd.mhd').symlink_to('absent.mhd')
  (tmp_path / 'subset4' / 'e.mhd').mkdir()
  assert download_lib.find_scans(tmp_path) == {
    'C': download_lib.ScanFile('C', 4, tmp_path / 'subset4/C.MHD'),
    'd': download_lib.ScanFile('d', 4, tmp_path / 'subset4/d.mhd'),
    'e': download_lib.ScanFile('e', 4, tmp_path / 'subset4/e.mhd'),
    'a': download_lib.ScanFile('a', 3, tmp_path / 'subset3/deeper/a.mhd'),
    'b': download_lib.ScanFile('b', 0, tmp_path / 'subset0/b.mhd'),
  }


def test_missing_download_folder(tmp_path):
  with pytest.raises(UsageError, match='absent: no such folder; --luna_dir must be'):
    download_lib.find_scans(tmp_path / 'absent')


def test_download_without_scans(tmp_path):
  (tmp_path / 'subset0').mkdir()
  with pytest.raises(
    UsageError, match=r'contains no scan; expected subset0\.\.subset9'
  ):
    download_lib.find_scans(tmp_path)


def test_scan_in_two_subsets(tmp_path):
  for folder in ('subset1', 'subset7'):
    (tmp_path / folder).mkdir()
    (tmp_path / folder / '1.2.3.mhd').touch()
  with pytest.raises(UsageError, match=r'1\.2\.3 is on disk twice: .*subset1.*subset7'):
    download_lib.find_scans(tmp_path)
