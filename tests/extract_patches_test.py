import fcntl
import os
import shutil

import fake_data
import numpy as np
import oracles
from PIL import Image
import pytest

from beam_jobs import extract_patches
from beam_jobs import job_folder
from beam_jobs import shard_writer

ALL = '--config=axial_50px_all'


@pytest.fixture
def small(tmp_path):
  """A download of four scans, one a shard: two of train, validation and test."""
  scans = [fake_data.make_scan(seed, seed) for seed in (0, 1, 8, 9)]
  return fake_data.write_download(tmp_path / 'luna16', scans)


@pytest.fixture
def out(tmp_path):
  return tmp_path / 'data'


@pytest.fixture
def failure(capfd):
  """Returns a function: the error after what the job says; no traceback with it."""

  def read():
    text = capfd.readouterr().err
    assert 'Traceback' not in text
    errors = [line for line in text.splitlines() if 'luna16-extract: error: ' in line]
    assert errors == text.splitlines()[-1:]
    return errors[0]

  return read


def final(out, config='axial_50px_all'):
  return out / 'luna16_patches' / config / '1.0.0'


def incomplete(out):
  return final(out).with_name('1.0.0.incomplete')


def undisturbed(extract, download, tmp_path):
  """The files of a job that was never disturbed."""
  assert extract(download.folder, tmp_path / 'undisturbed', ALL) == 0
  return oracles.files_of(final(tmp_path / 'undisturbed'))


def stamps(folder):
  return {path.name: path.stat().st_mtime_ns for path in folder.glob('*.part')}


def merged(found):
  return {key: record for records in found.values() for key, record in records.items()}


# What is written


@pytest.mark.parametrize('config', ['axial_50px', 'axial_50px_all'])
def test_records_are_those_of_a_plain_loop(config, download, data_dir):
  subset_of = {name: scan.subset for name, scan in download.scans.items()}
  ratio = 5 if config == 'axial_50px' else None
  rows = oracles.chosen_rows(download.candidates, subset_of, ratio)
  assert (len(rows) < len(download.candidates)) == (ratio is not None)
  expected = oracles.expected_of(download, rows, (1, 50, 50))
  found = oracles.read_dataset(final(data_dir, config))
  for split, records in found.items():
    assert set(records) == {
      key for key, r in expected.items() if oracles.split_of(r['subset']) == split
    }
    for key, record in records.items():
      oracles.assert_same_record(record, expected[key])
  assert len(merged(found)) == len(expected)
  # The download holds every kind of candidate.
  for name in ('label', 'excluded'):
    assert {bool(record[name]) for record in expected.values()} == {True, False}


def test_two_workers_write_the_same_bytes(extract, download, data_dir, tmp_path):
  assert extract(download.folder, tmp_path, ALL, '--num_workers=2') == 0
  assert oracles.files_of(final(tmp_path)) == oracles.files_of(final(data_dir))


def test_nothing_is_left_beside_the_dataset(data_dir):
  folder = data_dir / 'luna16_patches' / 'axial_50px_all'
  assert [path.name for path in folder.iterdir()] == ['1.0.0']
  shards = oracles.shards_of(final(data_dir))
  assert sorted(set(oracles.files_of(final(data_dir))) - set(shards)) == [
    'dataset_info.json',
    'features.json',
    'label.labels.txt',
    'metadata.json',
  ]
  assert len(shards) == 10


def test_the_job_says_what_it_does(extract, small, out, capfd):
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
    '1 candidates are left out: their scans are not among the 4 on disk'
  )
  nodules = sum(row[4] == 1 for row in small.candidates)
  assert lines[-2].startswith(
    f'wrote {count} records ({nodules} nodules, {count} padded'
  )
  assert lines[-1] == f'dataset: {final(out)}'


def test_a_part_of_the_download(extract, small, out):
  shutil.rmtree(small.folder / 'subset8')
  assert extract(small.folder, out, ALL) == 0
  found = oracles.read_dataset(final(out))
  assert set(found) == {'train', 'test'}
  left = [row for row in small.candidates if row[0] != '1.2.826.0.8']
  assert len(merged(found)) == len(left)


def test_flags_make_a_config(extract, small, out):
  flags = ['--patch_shape=4,9,8', '--spacing_mm=2', '--negatives_per_positive=1']
  assert extract(small.folder, out, *flags, '--subsets=1,9', '--seed=7') == 0
  name = 'cube_4x9x8at2mm_neg1_subsets19_seed7'
  found = merged(oracles.read_dataset(final(out, name)))
  subset_of = {'1.2.826.0.1': 1, '1.2.826.0.9': 9}
  rows = oracles.chosen_rows(small.candidates, subset_of, 1, seed=7)
  assert {int(record['candidate_id']) for record in found.values()} == rows
  for record in found.values():
    image = oracles.world_image(small.paths[record['seriesuid'].decode()])
    expected = oracles.mm_block(image, record['center_xyz_mm'], (4, 9, 8), 2.0)
    np.testing.assert_allclose(record['image'][..., 0], expected, atol=1)
    assert record['spacing_xyz_mm'].tolist() == [2, 2, 2]


def test_stack(extract, small, out):
  assert extract(small.folder, out, '--config=stack_50px', '--subsets=0') == 0
  found = merged(oracles.read_dataset(final(out, 'stack_50px_subsets0')))
  rows = [int(record['candidate_id']) for record in found.values()]
  expected = oracles.expected_of(small, rows, (3, 50, 50))
  assert found.keys() == expected.keys()
  for key, record in found.items():
    oracles.assert_same_record(record, expected[key])


@pytest.mark.parametrize('runner', ['DirectRunner', 'FnApiRunner'])
def test_local_runner_by_name(runner, extract, small, out):
  assert extract(small.folder, out, ALL, f'--runner={runner}') == 0
  assert final(out).is_dir()


def test_dry_run_writes_nothing(extract, small, out, capfd):
  assert extract(small.folder, out, ALL, '--dry_run') == 0
  text = capfd.readouterr().out
  assert f'in all {len(small.candidates)} records in 4 shards' in text
  assert not out.exists()


# Scans that cannot be read


def test_an_unreadable_scan_fails_the_job(extract, small, out, failure):
  bad = '1.2.826.0.8'
  fake_data.truncate(small.paths[bad].with_suffix('.raw'), 2)
  assert extract(small.folder, out, ALL) == 1
  assert '1 scans cannot be read' in failure()
  assert not final(out).exists()
  # All others were done before.
  assert len(stamps(incomplete(out))) == 4
  lost = sum(row[0] == bad for row in small.candidates)
  lines = (incomplete(out) / 'failed_scans.csv').read_text().splitlines()
  assert lines[0] == 'seriesuid,candidates_lost,reason'
  assert lines[1].startswith(f'{bad},{lost},')
  assert 'truncated' in lines[1]
  assert len(lines) == 2


def test_some_scans_may_fail(extract, small, out, capfd):
  bad = '1.2.826.0.1'
  fake_data.truncate(small.paths[bad].with_suffix('.raw'), 2)
  assert extract(small.folder, out, ALL, '--max_failed_scans=1') == 0
  assert '1 scans could not be read: ' in capfd.readouterr().err
  lines = (final(out) / 'failed_scans.csv').read_text().splitlines()
  assert [line.split(',')[0] for line in lines[1:]] == [bad]
  rows = [i for i, row in enumerate(small.candidates) if row[0] != bad]
  expected = oracles.expected_of(small, rows, (1, 50, 50))
  found = merged(oracles.read_dataset(final(out)))
  assert found.keys() == expected.keys()
  for key, record in found.items():
    oracles.assert_same_record(record, expected[key])


def test_more_scans_fail_than_may(extract, small, out, failure):
  for name in ('1.2.826.0.0', '1.2.826.0.9'):
    fake_data.truncate(small.paths[name].with_suffix('.raw'), 2)
  assert extract(small.folder, out, ALL, '--max_failed_scans=1') == 1
  assert '2 scans cannot be read' in failure()


def test_all_scans_fail(extract, small, out, failure):
  for path in small.paths.values():
    path.write_text('garbage')
  assert extract(small.folder, out, ALL, '--max_failed_scans=9') == 1
  assert 'every scan failed' in failure()
  assert not final(out).exists()


def test_mended_scans_complete_the_dataset(extract, small, out, tmp_path):
  expected = undisturbed(extract, small, tmp_path)
  data_file = small.paths['1.2.826.0.8'].with_suffix('.raw')
  content = data_file.read_bytes()
  fake_data.truncate(data_file, 2)
  assert extract(small.folder, out, ALL) == 1
  before = stamps(incomplete(out))
  data_file.write_bytes(content)
  kept = []
  replace = os.replace

  def watch(source, target):
    if str(source).endswith('.part'):
      kept.append((source.name, source.stat().st_mtime_ns))
    replace(source, target)

  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(job_folder.os, 'replace', watch)
    assert extract(small.folder, out, ALL) == 0
  assert len(kept) == 4
  assert len(set(kept) & set(before.items())) == 3
  assert oracles.files_of(final(out)) == expected


# Going on after a crash


def crash(monkeypatch, after):
  """Makes the job fail once `after` shards are written."""
  write_shard = shard_writer.write_shard
  written = []

  def fail(*arguments):
    if len(written) == after:
      raise OSError('the disk broke')
    written.append(arguments[0].fingerprint)
    return write_shard(*arguments)

  monkeypatch.setattr(shard_writer, 'write_shard', fail)


@pytest.mark.parametrize('after', [0, 1, 3])
def test_a_job_goes_on_where_it_broke_off(
  after, extract, small, out, tmp_path, monkeypatch, failure
):
  with monkeypatch.context() as patch:
    crash(patch, after)
    assert extract(small.folder, out, ALL) == 1
  line = failure()
  assert 'the disk broke' in line
  assert 'finished shards are kept' in line
  assert len(stamps(incomplete(out))) == after
  written = []
  write_shard = shard_writer.write_shard

  def watch(*arguments):
    written.append(arguments[0].fingerprint)
    return write_shard(*arguments)

  finished = {name.removesuffix('.part') for name in stamps(incomplete(out))}
  with monkeypatch.context() as patch:
    patch.setattr(shard_writer, 'write_shard', watch)
    assert extract(small.folder, out, ALL) == 0
  assert len(written) == 4 - after
  assert not finished & set(written)
  assert oracles.files_of(final(out)) == undisturbed(extract, small, tmp_path)


def test_finished_parts_are_not_touched(extract, small, out, monkeypatch):
  with monkeypatch.context() as patch:
    crash(patch, 2)
    assert extract(small.folder, out, ALL) == 1
  before = stamps(incomplete(out))
  with monkeypatch.context() as patch:
    crash(patch, 1)
    assert extract(small.folder, out, ALL) == 1
  after = stamps(incomplete(out))
  assert len(before) == 2
  assert len(after) == 3
  assert before.items() <= after.items()


def test_what_changed_since_is_built_anew(
  extract, small, out, tmp_path, monkeypatch, failure
):
  with monkeypatch.context() as patch:
    crash(patch, 3)
    assert extract(small.folder, out, ALL) == 1
  rows = list(small.candidates)
  row = next(i for i, r in enumerate(rows) if r[0] == '1.2.826.0.0' and r[4] == 0)
  rows[row] = (*rows[row][:4], 1)
  fake_data.write_candidates(small.folder / 'candidates.csv', rows)
  assert extract(small.folder, out, ALL) == 0
  assert oracles.files_of(final(out)) == undisturbed(extract, small, tmp_path)
  labels = {k: r['label'] for k, r in merged(oracles.read_dataset(final(out))).items()}
  assert labels[f'1.2.826.0.0/{row}'] == 1


def test_voxels_that_changed_since_are_read_anew(
  extract, small, out, tmp_path, monkeypatch
):
  with monkeypatch.context() as patch:
    crash(patch, 3)
    assert extract(small.folder, out, ALL) == 1
  # The same size and header: nothing in the plan tells.
  for path in small.paths.values():
    data_file = path.with_suffix('.raw')
    voxels = np.frombuffer(data_file.read_bytes(), np.int16)
    data_file.write_bytes(voxels[::-1].tobytes())
  assert extract(small.folder, out, ALL) == 0
  assert oracles.files_of(final(out)) == undisturbed(extract, small, tmp_path)


@pytest.mark.parametrize(
  'name', ['finalizing', 'luna16_patches-train.tfrecord-00001-of-00002', '1.0.0']
)
def test_a_crash_while_the_dataset_is_finished(
  name, extract, small, out, tmp_path, monkeypatch, failure
):
  replace = os.replace

  def fail(source, target):
    if target.name == name:
      raise OSError('power cut')
    replace(source, target)

  with monkeypatch.context() as patch:
    patch.setattr(job_folder.os, 'replace', fail)
    assert extract(small.folder, out, ALL) == 1
  assert failure() == 'luna16-extract: error: power cut'
  assert not final(out).exists()
  with monkeypatch.context() as patch:
    crash(patch, 0)  # nothing has to be cut again
    assert extract(small.folder, out, ALL) == 0
  assert oracles.files_of(final(out)) == undisturbed(extract, small, tmp_path)


def test_a_complete_dataset_is_left_alone(extract, small, out, capfd):
  assert extract(small.folder, out, ALL) == 0
  before = {p.name: p.stat().st_mtime_ns for p in final(out).iterdir()}
  capfd.readouterr()
  assert extract(small.folder, out, ALL) == 0
  assert f'complete already: {final(out)}' in capfd.readouterr().err
  assert {p.name: p.stat().st_mtime_ns for p in final(out).iterdir()} == before
  assert [p.name for p in final(out).parent.iterdir()] == ['1.0.0']


def test_other_inputs_need_overwrite(extract, small, out, tmp_path, failure):
  assert extract(small.folder, out, ALL) == 0
  before = oracles.files_of(final(out))
  fake_data.write_candidates(small.folder / 'candidates.csv', small.candidates[:-3])
  assert extract(small.folder, out, ALL) == 2
  assert 'was made from other inputs; give --overwrite' in failure()
  assert oracles.files_of(final(out)) == before
  assert extract(small.folder, out, ALL, '--overwrite') == 0
  assert oracles.files_of(final(out)) == undisturbed(extract, small, tmp_path)
  assert len(merged(oracles.read_dataset(final(out)))) == len(small.candidates) - 3


def test_overwrite_keeps_the_old_until_the_new_is_complete(
  extract, small, out, monkeypatch
):
  assert extract(small.folder, out, ALL) == 0
  before = oracles.files_of(final(out))
  fake_data.write_candidates(small.folder / 'candidates.csv', small.candidates[:-3])
  with monkeypatch.context() as patch:
    crash(patch, 2)
    assert extract(small.folder, out, ALL, '--overwrite') == 1
  assert oracles.files_of(final(out)) == before


def test_a_second_job_on_the_same_dataset(extract, small, out, failure):
  book = final(out).with_name('1.0.0.job')
  book.mkdir(parents=True)
  with open(book / 'lock', 'a') as lock:
    fcntl.flock(lock, fcntl.LOCK_EX)
    assert extract(small.folder, out, ALL) == 1
    assert 'another job is writing' in failure()
  assert extract(small.folder, out, ALL) == 0


def test_a_shard_of_wrong_length_is_not_registered(
  extract, small, out, monkeypatch, failure
):
  write_shard = shard_writer.write_shard

  def lose_one(shard, spec, seed, folder):
    (task,) = shard.tasks
    fields = ('candidate_ids', 'labels', 'centers_xyz_mm')
    shorter = type(task)(
      **{
        name: getattr(task, name)[:-1] if name in fields else getattr(task, name)
        for name in task.__dataclass_fields__
      }
    )
    fewer = type(shard)(
      shard.split, shard.index, shard.subset, (shorter,), shard.fingerprint
    )
    return write_shard(fewer, spec, seed, folder)

  monkeypatch.setattr(shard_writer, 'write_shard', lose_one)
  assert extract(small.folder, out, ALL) == 1
  assert 'were planned; the dataset is not registered' in failure()
  assert not final(out).exists()


# The article's patches


def test_article(extract, tmp_path, out):
  rows = fake_data.write_article(tmp_path / 'article')
  assert extract(tmp_path / 'article', out, '--config=article') == 0
  found = oracles.read_dataset(final(out, 'article'))
  assert set(found) == {'train', 'validation'}
  for split, records in found.items():
    assert len(records) == 4
    for path, label, candidate_id in rows[split]:
      record = records[f'/{candidate_id}']
      grey = np.asarray(Image.open(path), np.float64)
      expected = np.full((50, 50), -1000)
      expected[: grey.shape[0], : grey.shape[1]] = np.rint(-1000 + grey * 1400 / 255)
      np.testing.assert_array_equal(record['image'][..., 0], expected)
      assert record['label'] == label
      assert (record['seriesuid'], record['subset']) == (b'', -1)


def test_article_with_equal_lists(extract, tmp_path, out):
  folder = tmp_path / 'article'
  fake_data.write_article(folder)
  shutil.copy(folder / 'valdatalabels.txt', folder / 'testdatalabels.txt')
  assert extract(folder, out, '--config=article') == 0
  found = oracles.read_dataset(final(out, 'article'))
  assert set(found['test']) == set(found['validation'])


@pytest.mark.parametrize('workers', [1, 2])
def test_article_with_a_truncated_image(workers, extract, tmp_path, out, failure):
  rows = fake_data.write_article(tmp_path / 'article')
  fake_data.truncate(rows['train'][2][0], 500)
  flags = ['--config=article', f'--num_workers={workers}']
  assert extract(tmp_path / 'article', out, *flags) in (1, 2)
  line = failure()
  assert rows['train'][2][0].name in line
  assert 'cannot be read as an image' in line


# Wrong inputs: exit code 2 and one line


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


# Real data


def test_real_scans(extract, real_data, out):
  folder = real_data / 'luna16'
  assert extract(folder, out, ALL) == 0
  candidates = oracles.read_csv(folder / 'candidates.csv')
  found = oracles.read_dataset(final(out))
  assert {split: len(records) for split, records in found.items()} == {
    'train': sum('179049373636438705059720603192' in row[0] for row in candidates),
    'test': sum('170706757615202213033480003264' in row[0] for row in candidates),
  }
  paths = {path.stem: path for path in folder.glob('subset*/*.mhd')}
  expected = dict(
    oracles.expected_records(
      candidates,
      oracles.read_csv(folder / 'annotations.csv'),
      oracles.read_csv(folder / 'annotations_excluded.csv'),
      paths,
      {name: int(path.parent.name[-1]) for name, path in paths.items()},
      range(len(candidates)),
      (1, 50, 50),
    )
  )
  found = merged(found)
  assert len(found) == 935
  assert found.keys() == expected.keys()
  for key, record in found.items():
    oracles.assert_same_record(record, expected[key])
  hits = [record for record in found.values() if record['nodule_id'] >= 0]
  assert sum(record['label'] for record in hits) == 4
  assert {float(record['diameter_mm']) for record in hits} == {
    float(
      np.float32(
        expected[f'{r["seriesuid"].decode()}/{r["candidate_id"]}']['diameter_mm']
      )
    )
    for r in hits
  }


def test_real_article_patches(extract, real_data, out, capfd):
  folder = real_data / 'article_patches'
  assert extract(folder, out, '--config=article') == 0
  assert 'wrote 6484 records (1069 nodules, 1 padded' in capfd.readouterr().err
  found = oracles.read_dataset(final(out, 'article'))
  counts = {
    split: (len(records), sum(int(r['label']) for r in records.values()))
    for split, records in found.items()
  }
  assert counts == {'train': (5187, 845), 'validation': (1297, 224)}
  for split, name in (('train', 'train'), ('validation', 'val')):
    for line in (folder / f'{name}datalabels.txt').read_text().splitlines():
      file, label = line.split()
      candidate_id = int(file.partition('image_')[2].removesuffix('.jpg'))
      record = found[split][f'/{candidate_id}']
      grey = np.asarray(Image.open(folder / file), np.float64)
      expected = np.full((50, 50), -1000)
      expected[: grey.shape[0], : grey.shape[1]] = np.rint(-1000 + grey * 1400 / 255)
      np.testing.assert_array_equal(record['image'][..., 0], expected)
      assert record['label'] == int(label)
      assert (grey.shape != (50, 50)) == (candidate_id == 393762)
