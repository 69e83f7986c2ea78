import importlib.metadata
import os
import pathlib
import shutil

import fake_data
import numpy as np
import oracles
import pytest

from beam_jobs import disk_job_folder
from beam_jobs import job
from beam_jobs import job_results
from beam_jobs import plan as plan_lib
from beam_jobs.tasks import ArticleTask
import luna_tfds
from luna_tfds import JobError
from luna_tfds import article_patches

ALL = '--config=axial_50px_all'


@pytest.mark.parametrize('config', ['axial_50px', 'axial_50px_all'])
def test_records_equal_those_of_a_plain_loop(config, download, data_dir):
  subset_of = {name: scan.subset for name, scan in download.scans.items()}
  ratio = 5 if config == 'axial_50px' else None
  rows = oracles.selected_rows(download.candidates, subset_of, ratio)
  assert (len(rows) < len(download.candidates)) == (ratio is not None)
  expected = oracles.expected_of(download, rows, (1, 50, 50))
  found = oracles.read_dataset(oracles.dataset_folder(data_dir, config))
  for split, records in found.items():
    assert set(records) == {
      key for key, r in expected.items() if oracles.split_of(r['subset']) == split
    }
    for key, record in records.items():
      oracles.assert_same_record(record, expected[key])
  assert len(oracles.records_by_key(found)) == len(expected)
  # All kinds of candidates are tested.
  for name in ('label', 'excluded'):
    assert {bool(record[name]) for record in expected.values()} == {True, False}


def test_two_workers_write_the_same_bytes(extract, download, data_dir, tmp_path):
  assert extract(download.folder, tmp_path, ALL, '--num_workers=2') == 0
  assert oracles.files_of(oracles.dataset_folder(tmp_path)) == oracles.files_of(
    oracles.dataset_folder(data_dir)
  )


def test_only_the_dataset_remains(data_dir):
  folder = data_dir / 'luna16_patches' / 'axial_50px_all'
  assert [path.name for path in folder.iterdir()] == ['1.0.0']
  shards = oracles.shards_of(oracles.dataset_folder(data_dir))
  assert sorted(
    set(oracles.files_of(oracles.dataset_folder(data_dir))) - set(shards)
  ) == [
    'dataset_info.json',
    'features.json',
    'label.labels.txt',
    'metadata.json',
    'record_index.json',
    'shard_results.json',
  ]
  assert len(shards) == 10


def test_a_partial_download(extract, small, out):
  shutil.rmtree(small.folder / 'subset8')
  assert extract(small.folder, out, ALL) == 0
  found = oracles.read_dataset(oracles.dataset_folder(out))
  assert set(found) == {'train', 'test'}
  left = [row for row in small.candidates if row[0] != '1.2.826.0.8']
  assert len(oracles.records_by_key(found)) == len(left)


def test_stack(extract, small, out):
  assert extract(small.folder, out, '--config=stack_50px', '--subsets=0') == 0
  found = oracles.records_by_key(
    oracles.read_dataset(oracles.dataset_folder(out, 'stack_50px_subsets0'))
  )
  rows = [int(record['candidate_id']) for record in found.values()]
  expected = oracles.expected_of(small, rows, (3, 50, 50))
  assert found.keys() == expected.keys()
  for key, record in found.items():
    oracles.assert_same_record(record, expected[key])


def test_article(extract, tmp_path, out):
  rows = fake_data.write_article(tmp_path / 'article')
  assert extract(tmp_path / 'article', out, '--config=article') == 0
  found = oracles.read_dataset(oracles.dataset_folder(out, 'article'))
  assert set(found) == {'train', 'validation'}
  for split, records in found.items():
    assert len(records) == 4
    for path, label, candidate_id in rows[split]:
      record = records[f'/{candidate_id}']
      np.testing.assert_array_equal(record['image'][..., 0], oracles.article_hu(path))
      assert record['label'] == label
      assert (record['seriesuid'], record['subset']) == (b'', -1)


def test_article_with_equal_lists(extract, tmp_path, out):
  folder = tmp_path / 'article'
  fake_data.write_article(folder)
  shutil.copy(folder / 'valdatalabels.txt', folder / 'testdatalabels.txt')
  assert extract(folder, out, '--config=article') == 0
  found = oracles.read_dataset(oracles.dataset_folder(out, 'article'))
  assert set(found['test']) == set(found['validation'])


@pytest.mark.parametrize('workers', [1, 2])
def test_truncated_image_of_the_article(workers, extract, tmp_path, out, failure):
  rows = fake_data.write_article(tmp_path / 'article')
  fake_data.truncate(rows['train'][2][0], 500)
  flags = ['--config=article', f'--num_workers={workers}']
  assert extract(tmp_path / 'article', out, *flags) in (1, 2)
  line = failure()
  assert rows['train'][2][0].name in line
  assert 'cannot be read as an image' in line


def test_real_scans(extract, real_data, out):
  folder = real_data / 'luna16'
  assert extract(folder, out, ALL) == 0
  candidates = oracles.read_csv(folder / 'candidates.csv')
  found = oracles.read_dataset(oracles.dataset_folder(out))
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
  found = oracles.records_by_key(found)
  assert len(found) == 935
  assert found.keys() == expected.keys()
  for key, record in found.items():
    oracles.assert_same_record(record, expected[key])
  # Four candidates are nodules at their annotated centres; no negative hits a nodule.
  nodules = [record for record in found.values() if record['label'] == 1]
  assert len({int(record['nodule_id']) for record in nodules}) == 4
  assert all(record['diameter_mm'] > 3 for record in nodules)


@pytest.mark.slow
def test_real_article_patches(extract, real_data, out, capfd):
  folder = real_data / 'article_patches'
  assert extract(folder, out, '--config=article') == 0
  assert 'complete: 6484 records (1069 nodules, 1 padded' in capfd.readouterr().err
  found = oracles.read_dataset(oracles.dataset_folder(out, 'article'))
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
      expected = oracles.article_hu(folder / file)
      np.testing.assert_array_equal(record['image'][..., 0], expected)
      assert record['label'] == int(label)


# `prepare` without the command.


def test_prepare_writes_what_the_command_writes(extract, small, out, tmp_path):
  assert extract(small.folder, out, ALL) == 0
  builder = luna_tfds.Builder(config='axial_50px_all', data_dir=str(tmp_path / 'other'))
  job.prepare(builder, small.folder)
  assert oracles.files_of(pathlib.Path(builder.data_path)) == oracles.files_of(
    oracles.dataset_folder(out)
  )


def test_workers_get_absolute_paths(small, tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  folders, paths = [], []

  def read_specs(work, *unused):
    folders.append(work.folder)
    for fingerprint in work.fingerprints:
      shard = work.folder.read_shard_spec(fingerprint)
      paths.extend(pathlib.Path(task.path) for task in shard.tasks)

  monkeypatch.setattr(job.pipeline, 'run', read_specs)
  builder = luna_tfds.Builder(config='axial_50px_all', data_dir='data')
  with pytest.raises(
    JobError, match='was not written; check that all workers can write'
  ):
    job.prepare(builder, pathlib.Path(small.folder.name))
  (folder,) = folders
  assert folder.final == tmp_path / 'data/luna16_patches/axial_50px_all/1.0.0'
  assert paths
  assert all(path.is_relative_to(tmp_path) for path in paths)


def test_a_default_config_that_is_missing_is_stored_again(extract, small, out):
  assert extract(small.folder, out, ALL) == 0
  path = out / 'luna16_patches' / '.config' / 'metadata.json'
  before = path.read_bytes()
  path.unlink()
  assert extract(small.folder, out, ALL) == 0
  assert path.read_bytes() == before


def test_the_builder_finds_prepare_by_its_entry_point():
  (entry_point,) = importlib.metadata.entry_points(group='luna16_patches.preparer')
  assert entry_point.load() is job.prepare


@pytest.mark.parametrize(
  ('num_records', 'requested', 'num_shards', 'expected'),
  [
    (1_000, 0, 5, 1),  # too few for worker processes
    (100_000, 0, 5, 3),  # one per core
    (100_000, 0, 2, 2),  # not more than shards
    (100_000, 7, 20, 7),
    (1_000, 2, 5, 2),
  ],
)
def test_number_of_workers(
  num_records, requested, num_shards, expected, tmp_path, monkeypatch
):
  config = luna_tfds.CONFIGS['axial_50px']
  tasks = [
    ArticleTask(
      (article_patches.ArticleImage(tmp_path / 'absent.jpg', 0, 1),)
      * (num_records // num_shards)
    )
    for _ in range(num_shards)
  ]
  shards = [
    plan_lib.Shard('train', i, -1, (task,), f'{i:016x}', ('',))
    for i, task in enumerate(tasks)
  ]
  folder = disk_job_folder.DiskJobFolder(tmp_path / '1.0.0')
  monkeypatch.setattr(job.cores, 'num_usable_cores', lambda: 3)
  started = []
  monkeypatch.setattr(job.pipeline, 'run', lambda *unused: started.append(1))
  monkeypatch.setattr(
    job.pipeline, 'run_in_processes', lambda work, options, num: started.append(num)
  )
  with folder.locked():
    job.run_pipeline(
      plan_lib.Plan(tuple(shards), 100), config, folder, None, None, requested
    )
  assert started == [expected]


def test_a_missing_shard_is_an_error(small, tmp_path):
  plan = plan_lib.make_plan(small.folder, luna_tfds.CONFIGS['axial_50px_all'])
  folder = disk_job_folder.DiskJobFolder(tmp_path / '1.0.0')
  with folder.locked(), pytest.raises(JobError, match='shard 0 of train was not writ'):
    job_results.verified_results(plan, folder, max_failed_scans=0)


@pytest.mark.parametrize(
  ('make', 'problem'),
  [
    (lambda path: path.symlink_to('absent.mhd'), 'no such file'),
    (lambda path: path.mkdir(), 'must hold one DICOM series'),
    (os.mkfifo, 'not a file'),
  ],
  ids=['dangling_link', 'folder', 'named_pipe'],
)
def test_an_entry_that_is_no_file_is_a_failed_scan(make, problem, small, out, extract):
  bad, other = sorted(small.folder.glob('subset[01]/*.mhd'))
  bad.unlink()
  make(bad)
  other.rename(other.with_suffix('.MHD'))
  assert extract(small.folder, out, ALL, '--max_failed_scans=1') == 0
  dataset = oracles.dataset_folder(out)
  _, line = (dataset / 'failed_scans.csv').read_text().splitlines()
  assert line.startswith(f'{bad.stem},')
  assert problem in line
  found = oracles.records_by_key(oracles.read_dataset(dataset))
  assert {key.partition('/')[0] for key in found} == set(small.paths) - {bad.stem}
