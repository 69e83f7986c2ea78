import os
import shutil

import fake_data
from PIL import Image
import pytest

from beam_jobs import extract_patches

ALL = '--config=axial_50px_all'


def no_folder(folder):
  shutil.rmtree(folder)
  return [], 'no such folder; --luna_dir must be'


def no_scan(folder):
  for path in folder.glob('subset*'):
    shutil.rmtree(path)
  return [], 'no scan in it'


def scan_twice(folder):
  shutil.copytree(folder / 'subset0', folder / 'subset5')
  return [], '1.2.826.0.0 is on disk twice'


def no_candidates(folder):
  (folder / 'candidates.csv').unlink()
  return [], 'candidates.csv (or candidates.csv.zip) is missing'


def no_column(folder):
  text = (folder / 'candidates.csv').read_text()
  (folder / 'candidates.csv').write_text(text.replace('coordZ', 'depth'))
  return [], 'candidates.csv: the column coordZ is missing'


def no_number(folder):
  path = folder / 'candidates.csv'
  fake_data.write_candidates(
    path, [('1.2.826.0.0', 1.0, 2.0, 3.0, 0), ('1.2.826.0.0', 1.0, 'two', 3.0, 0)]
  )
  return [], "candidates.csv, row 1 (from 0): coordY must be a number, found 'two'"


def no_number_in_annotations(folder):
  path = folder / 'annotations.csv'
  fake_data.write_findings(path, [('1.2.826.0.0', 1.0, 2.0, 3.0, 'large')])
  return (
    [],
    "annotations.csv, row 0 (from 0): diameter_mm must be a number, found 'large'",
  )


def empty_csv(folder):
  (folder / 'candidates.csv').write_text('')
  return [], 'candidates.csv: is empty'


def header_only(folder):
  fake_data.write_candidates(folder / 'candidates.csv', [])
  return [], 'candidates.csv: holds a header and no rows'


def unknown_config(folder):
  return [
    '--config=axial'
  ], '--config=axial: no such config; there are axial_50px, axial_'


def unknown_flag(folder):
  return [
    '--patch_shpae=5,5'
  ], 'unknown argument --patch_shpae; did you mean --patch_sha'


def flag_without_a_number(folder):
  return ['--num_workers=many'], '--num_workers=many'


def negative_workers(folder):
  return ['--num_workers=-1'], 'must be 0 or more'


def patch_shape_of_words(folder):
  return ['--patch_shape=50,x'], '--patch_shape lists whole numbers'


def patch_of_nothing(folder):
  return ['--patch_shape=50,0'], 'positive size'


def subset_out_of_range(folder):
  return ['--subsets=3,12'], 'subsets must be among 0..9'


def unknown_list(folder):
  return ['--candidates=V3'], "candidate list must be one of ['V1', 'V2']"


def stray_argument(folder):
  return ['extra'], 'unknown argument extra'


def no_data_folder(folder):
  return ['--data_dir='], '--data_dir is required'


def article_without_lists(folder):
  return ['--config=article'], 'none of traindatalabels.txt'


@pytest.mark.parametrize(
  'mistake',
  [
    no_folder,
    no_scan,
    scan_twice,
    no_candidates,
    no_column,
    no_number,
    no_number_in_annotations,
    empty_csv,
    header_only,
    unknown_config,
    unknown_flag,
    flag_without_a_number,
    negative_workers,
    patch_shape_of_words,
    patch_of_nothing,
    subset_out_of_range,
    unknown_list,
    stray_argument,
    no_data_folder,
    article_without_lists,
  ],
  ids=lambda mistake: mistake.__name__,
)
def test_mistakes_are_told_in_one_line(mistake, extract, small, out, error_line):
  arguments, problem = mistake(small.folder)
  assert extract(small.folder, out, *arguments) == 2
  assert problem in error_line()
  assert not out.exists()


def empty_list(folder):
  (folder / 'valdatalabels.txt').write_text('')
  return [], 'valdatalabels.txt: is empty'


def listed_file_missing(folder):
  (folder / 'tra' / 'image_1001.jpg').unlink()
  return [], 'image_1001.jpg: missing, but traindatalabels.txt line 2 lists it'


def large_image(folder):
  Image.new('L', (51, 50)).save(folder / 'tra' / 'image_1001.jpg')
  return [], 'image_1001.jpg: 51x50 pixels, larger than the 50x50'


def file_outside(folder):
  (folder / 'traindatalabels.txt').write_text('/tmp/image_1.jpg 0\n')
  return [], 'leaves the folder of the list'


def other_seed(folder):
  return ['--seed=3'], '--config=article takes no --seed'


@pytest.mark.parametrize(
  'mistake',
  [empty_list, listed_file_missing, large_image, file_outside, other_seed],
  ids=lambda mistake: mistake.__name__,
)
def test_article_mistakes_are_told_in_one_line(
  mistake, extract, tmp_path, out, error_line
):
  folder = tmp_path / 'article'
  fake_data.write_article(folder)
  arguments, problem = mistake(folder)
  assert extract(folder, out, '--config=article', *arguments) == 2
  assert problem in error_line()


def test_luna_dir_is_required(error_line):
  assert extract_patches.run(['luna16-extract']) == 2
  assert '--luna_dir is required' in error_line()


def test_no_candidate_in_a_scan_on_disk(extract, small, out, failure):
  fake_data.write_candidates(small.folder / 'candidates.csv', [('x', 1.0, 2.0, 3.0, 0)])
  assert extract(small.folder, out, ALL) == 2
  assert 'no candidate lies in a scan on disk' in failure()


def test_data_dir_is_a_file(extract, small, out, failure):
  out.touch()
  assert extract(small.folder, out, ALL) == 2
  assert 'cannot be written' in failure()


def test_data_dir_is_read_only(extract, small, out, failure):
  out.mkdir()
  out.chmod(0o500)
  if os.access(out, os.W_OK):
    pytest.skip('this user writes whatever the mode says')
  assert extract(small.folder, out, ALL) == 2
  assert 'cannot be written' in failure()
