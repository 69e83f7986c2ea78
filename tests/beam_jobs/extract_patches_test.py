import json
import shutil

import fake_data
import numpy as np
import oracles
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
  return [], 'contains no scan'


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
  return [], 'candidates.csv: has a header but no rows'


def unknown_config(folder):
  return [
    '--config=axial'
  ], '--config=axial: value should be one of <axial_50px|axial_50px_all|'


def unknown_flag(folder):
  return [
    '--patch_shpae=5,5'
  ], 'unknown argument --patch_shpae; did you mean --patch_sha'


def flag_without_a_number(folder):
  return ['--num_workers=many'], '--num_workers=many'


def negative_workers(folder):
  return ['--num_workers=-1'], '--num_workers=-1: -1 is not a non-negative integer'


def patch_shape_of_words(folder):
  return ['--patch_shape=50,x'], '--patch_shape must list integers'


def empty_patch(folder):
  return ['--patch_shape=50,0'], 'patch_shape'


def subset_out_of_range(folder):
  return ['--subsets=3,12'], 'subsets must be in 0..9'


def unknown_candidate_list(folder):
  return ['--candidates=V3'], '--candidates=V3: value should be one of <V1|V2>'


def too_few_negatives(folder):
  return ['--negatives_per_positive=-2'], '--negatives_per_positive=-2: -2 is not'


def negative_limit(folder):
  return ['--max_failed_scans=-1'], '--max_failed_scans=-1: -1 is not a non-negative'


def stray_argument(folder):
  return ['extra'], 'unknown argument extra'


def no_data_folder(folder):
  return ['--data_dir='], '--data_dir is required'


def article_without_lists(folder):
  return ['--config=article'], 'contains none of traindatalabels.txt'


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
    empty_patch,
    subset_out_of_range,
    unknown_candidate_list,
    too_few_negatives,
    negative_limit,
    stray_argument,
    no_data_folder,
    article_without_lists,
  ],
  ids=lambda mistake: mistake.__name__,
)
def test_invalid_flags_and_files_are_reported_in_one_line(
  mistake, extract, small, out, error_line
):
  arguments, problem = mistake(small.folder)
  assert extract(small.folder, out, *arguments) == 2
  assert problem in error_line()
  assert not out.exists()


def empty_list(folder):
  (folder / 'valdatalabels.txt').write_text('')
  return [], 'valdatalabels.txt: is empty'


def listed_file_missing(folder):
  (folder / 'tra' / 'image_1001.jpg').unlink()
  return [], 'image_1001.jpg: missing, but listed in traindatalabels.txt, line 2'


def large_image(folder):
  Image.new('L', (51, 50)).save(folder / 'tra' / 'image_1001.jpg')
  return [], 'image_1001.jpg: 51x50 pixels; patches of the article have at most 50x50'


def file_outside(folder):
  (folder / 'traindatalabels.txt').write_text('/tmp/image_1.jpg 0\n')
  return [], 'is outside the folder of the list'


def other_seed(folder):
  return ['--seed=3'], "the config 'article' takes no options"


@pytest.mark.parametrize(
  'mistake',
  [empty_list, listed_file_missing, large_image, file_outside, other_seed],
  ids=lambda mistake: mistake.__name__,
)
def test_invalid_files_of_the_article_are_reported_in_one_line(
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
  assert 'no candidate is in a scan on disk' in failure()


def test_the_job_prints_what_it_does(extract, small, out, capfd):
  rows = [*small.candidates, ('not.on.disk', 1.0, 2.0, 3.0, 0)]
  fake_data.write_candidates(small.folder / 'candidates.csv', rows)
  assert extract(small.folder, out, ALL) == 0
  captured = capfd.readouterr()
  lines = captured.err.splitlines()
  assert captured.out == ''
  count = len(small.candidates)
  assert lines[0].startswith(
    f'luna16_patches/axial_50px_all/1.0.0: {count} records in 4'
  )
  assert lines[1] == (
    '1 candidate without a scan on disk (found 4 scans); not extracted'
  )
  nodules = sum(row[4] == 1 for row in small.candidates)
  assert lines[-2].startswith(
    f'complete: {count} records ({nodules} nodules, {count} padded'
  )
  assert lines[-1] == f'dataset: {oracles.dataset_folder(out)}'


def test_a_config_of_the_user_causes_no_warning(extract, small, out, capfd):
  assert extract(small.folder, out, '--seed=7') == 0
  assert 'warning' not in capfd.readouterr().err


def test_flags_change_the_config(extract, small, out):
  flags = ['--patch_shape=4,9,8', '--spacing_mm=2', '--negatives_per_positive=1']
  assert extract(small.folder, out, *flags, '--subsets=1,9', '--seed=7') == 0
  name = 'cube_4x9x8at2mm_neg1_subsets19_seed7'
  found = oracles.records_by_key(
    oracles.read_dataset(oracles.dataset_folder(out, name))
  )
  subset_of = {'1.2.826.0.1': 1, '1.2.826.0.9': 9}
  rows = oracles.selected_rows(small.candidates, subset_of, 1, seed=7)
  assert {int(record['candidate_id']) for record in found.values()} == rows
  for record in found.values():
    image = oracles.world_image(small.paths[record['seriesuid'].decode()])
    expected = oracles.mm_block(image, record['center_xyz_mm'], (4, 9, 8), 2.0)
    np.testing.assert_allclose(record['image'][..., 0], expected, atol=1)
    assert record['spacing_xyz_mm'].tolist() == [2, 2, 2]


@pytest.mark.parametrize('runner', ['DirectRunner', 'fnapirunner'])
def test_local_runner_by_name(runner, extract, small, out):
  assert extract(small.folder, out, ALL, f'--runner={runner}') == 0
  assert oracles.dataset_folder(out).is_dir()


def test_dry_run_writes_nothing(extract, small, out, capfd):
  assert extract(small.folder, out, ALL, '--dry_run') == 0
  text = capfd.readouterr().out
  assert f'total: {len(small.candidates)} records in 4 shards' in text
  assert not out.exists()


@pytest.mark.parametrize(
  ('arguments', 'name'),
  [
    (['--config=stack_50px', '--candidates=V1'], 'stack_50px'),
    (['--seed=0', '--subsets=0,8,9,1'], 'axial_50px_subsets0189'),
    (['--negatives_per_positive=-1'], 'axial_50px_all'),
    (['--spacing_mm=1'], 'axial_50mm'),
  ],
)
def test_flags_that_lead_to_a_built_in_config(arguments, name, extract, small, out):
  assert extract(small.folder, out, *arguments) == 0
  assert oracles.dataset_folder(out, name).is_dir()


# Fails if an invalid flag is reported after Beam was imported.
CODE = """
import contextlib, io, json, sys
from beam_jobs import extract_patches
found = {}
for argument in json.loads(sys.argv[1]):
  text = io.StringIO()
  with contextlib.redirect_stderr(text):
    code = extract_patches.run(['luna16-extract', '--luna_dir=x', argument])
  found[argument] = [code, 'apache_beam' in sys.modules, 'tensorflow' in sys.modules]
print(json.dumps(found))
"""


def test_invalid_flags_are_rejected_before_beam_is_imported(fresh_python):
  arguments = [
    '--patch_shape=0,5',
    '--patch_shape=5',
    '--patch_shape=a,b',
    '--spacing_mm=-1',
    '--candidates=V3',
    '--config=x',
    '--negatives_per_positive=-2',
    '--subsets=10',
    '--num_workers=-1',
    '--max_failed_scans=-1',
    '--seed=x',
    '--data_dir=',
  ]
  found = fresh_python(CODE, json.dumps(arguments))
  assert found == {argument: [2, False, False] for argument in arguments}


def test_help_shows_every_default(capsys):
  assert extract_patches.run(['luna16-extract', '--help']) == 0
  flags = [s for s in capsys.readouterr().out.splitlines() if s.startswith('  --')]
  assert len(flags) == 16
  for line in flags:
    explained = ('(default: ', '(required)', '--version')
    assert any(text in line for text in explained), line
