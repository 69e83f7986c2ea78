import json
import pathlib
import re
import shutil

import fake_data
import pytest

from luna_tfds.errors import JobError
from trainer import inspect
from trainer.data import audit
from trainer.data import split_source


@pytest.fixture
def copy(data_dir, tmp_path):
  """The folder of a copy of the dataset that a test may damage."""
  folder = tmp_path / 'luna16_patches' / 'axial_50px_all'
  shutil.copytree(data_dir / 'luna16_patches' / 'axial_50px_all', folder)
  return next(path.parent for path in folder.glob('*/dataset_info.json'))


def run(*arguments):
  return inspect.run(['luna16-inspect', *arguments])


def audited(folder, *arguments):
  return run(f'--dataset={folder}', '--audit', *arguments)


def opened(folder):
  return split_source.open_builder('', str(folder))


def shard(folder, split, index=0):
  return sorted(folder.glob(f'*-{split}.tfrecord-*'))[index]


def edit_metadata(folder, change):
  path = folder / 'metadata.json'
  fields = json.loads(path.read_text())
  change(fields)
  path.write_text(json.dumps(fields))


def write_patients(path, download, **changes):
  patient_of = {uid: f'p{k}' for k, uid in enumerate(download.scans)}
  patient_of.update(changes)
  rows = ''.join(f'{uid},{patient}\n' for uid, patient in patient_of.items() if patient)
  path.write_text('seriesuid,patient\n' + rows)
  return path


def scan_of_subset(download, subset):
  return next(uid for uid, s in download.scans.items() if s.subset == subset)


def test_it_tells_what_is_there(data_dir, download, tmp_path, capsys):
  flags = [f'--data_dir={data_dir}', '--dataset=axial_50px_all', '--secs=0.05']
  assert run(*flags, '--split=test', f'--output_dir={tmp_path}', '--batch_size=8') == 0
  text = capsys.readouterr().out
  source = split_source.open_source(
    split_source.open_builder(str(data_dir), 'axial_50px_all'), 'test'
  )
  first = text.splitlines()[0]
  assert first.startswith(f'test: {source.num_records} records (50, 50, 1), ')
  assert f' {source.label_counts[1]} nodules ' in first
  counts = f'{source.label_counts[0]:>12}{source.label_counts[1]:>9}'
  # The whole split is of one subset and of one spacing.
  assert [line for line in text.splitlines() if line.endswith(counts)] == [
    f'  {"9":<12}{counts}',
    f'  {"0.70-0.70":<12}{counts}',
    f'  {"1.50-1.50":<12}{counts}',
  ]
  assert 'balance: rejection, 50.0% nodules' in text
  assert 'records/s delivered' in text
  png = tmp_path / 'examples.png'
  assert png.read_bytes().startswith(b'\x89PNG')


def test_a_whole_dataset_passes(data_dir, download, tmp_path, capsys):
  patients = write_patients(tmp_path / 'patients.csv', download)
  flags = [f'--data_dir={data_dir}', '--dataset=axial_50px_all', '--audit']
  assert run(*flags, f'--patients={patients}') == 0
  text = capsys.readouterr().out
  assert 'no key twice' in text
  assert 'scans: 12 (train 10, validation 1, test 1), none in two splits' in text
  assert 'nodules: 11 (train 9, validation 1, test 1)' in text
  assert 'patients: 12' in text
  assert 'as in the metadata' in text
  audit.check_metadata(split_source.open_builder(str(data_dir), 'axial_50px_all'))


def test_a_scan_and_its_nodule_in_two_splits(copy, capsys, monkeypatch):
  # As a leaking split would store it: the records of subset 0 stand for the test set.
  shutil.copy(shard(copy, 'train'), shard(copy, 'test'))
  assert audited(copy) == 1
  error = capsys.readouterr().err
  assert 'fails the audit' in error
  assert 'records are stored twice' in error
  assert re.search(r'; and \d+ more; extract it again', error)
  monkeypatch.setattr(audit, '_MOST_PROBLEMS', 99)
  for problem in (r'scan 1\.2\.826\.0\.\d+', r'nodule \d+'):
    with pytest.raises(JobError, match=f'{problem} lies in train and in test'):
      audit.audit(opened(copy))


def test_a_patient_in_two_splits(copy, download, tmp_path, capsys):
  shared = {scan_of_subset(download, 3): 'Smith', scan_of_subset(download, 9): 'Smith'}
  patients = write_patients(tmp_path / 'patients.csv', download, **shared)
  assert audited(copy, f'--patients={patients}') == 1
  assert 'patient Smith lies in train and in test' in capsys.readouterr().err
  # Both in the training split: no leak.
  shared = {scan_of_subset(download, 3): 'Smith', scan_of_subset(download, 4): 'Smith'}
  patients = write_patients(tmp_path / 'patients.csv', download, **shared)
  assert audited(copy, f'--patients={patients}') == 0


def test_a_record_stored_twice(copy, capsys):
  path = shard(copy, 'validation')
  path.write_bytes(path.read_bytes() * 2)
  assert audited(copy) == 1
  error = capsys.readouterr().err
  assert f'{path.name} holds ' in error
  assert 'records are stored twice' in error


def test_a_damaged_file(copy, capsys):
  path = shard(copy, 'test')
  path.write_bytes(path.read_bytes()[:-9])
  assert audited(copy) == 1
  assert f'{path.name} cannot be read' in capsys.readouterr().err
  path.unlink()
  assert audited(copy) == 1
  assert f'{path.name} cannot be read' in capsys.readouterr().err


def swap_classes(fields):
  fields['shard_label_counts']['train'][1].reverse()


def lose_a_record(fields):
  fields['shard_label_counts']['train'][1][0] -= 1


def mix_subsets(fields):
  fields['shard_subsets']['test'][0] = 3


def forget_a_shard(fields):
  fields['shard_subsets']['train'].pop()


@pytest.mark.parametrize(
  ('change', 'problem', 'cheap'),
  [
    (swap_classes, 'of each class, metadata says', False),
    (lose_a_record, 'class counts of the shards of train do not add up', True),
    (mix_subsets, 'subset 3 lies in train and in test', True),
    (forget_a_shard, 'train has .* shards, but subsets of', True),
  ],
)
def test_counts_that_are_not_the_metadatas(copy, change, problem, cheap):
  edit_metadata(copy, change)
  with pytest.raises(JobError, match=problem):
    audit.audit(opened(copy))
  if cheap:
    with pytest.raises(JobError, match=problem):
      audit.check_metadata(opened(copy))
  else:
    audit.check_metadata(opened(copy))


def test_a_wrong_subset_is_seen_in_the_records(copy):
  # To a subset that no other split has, so that only the records tell.
  edit_metadata(copy, lambda fields: fields['shard_subsets']['train'].__setitem__(0, 1))
  audit.check_metadata(opened(copy))
  with pytest.raises(JobError, match=r'holds subsets \[0\], metadata says 1'):
    audit.audit(opened(copy))


def test_patches_of_unknown_scans_are_told_as_such(tmp_path, extract, capsys):
  fake_data.write_article(tmp_path / 'article')
  assert extract(tmp_path / 'article', tmp_path / 'data', '--config=article') == 0
  capsys.readouterr()
  assert run(f'--data_dir={tmp_path / "data"}', '--dataset=article', '--audit') == 0
  assert 'scans unknown: only candidates can be compared' in capsys.readouterr().out


@pytest.mark.parametrize(
  ('text', 'problem'),
  [
    ('seriesuid,name\n', 'no column patient'),
    ('seriesuid,patient\n1.2,\n', 'line 2: a value is missing'),
    ('seriesuid,patient\n1.2,a\n1.2,b\n', 'line 3: scan 1.2 has two patients, a and b'),
    ('seriesuid,patient\n1.2,a\n', 'no row for scan .* and 11 more'),
    (None, 'cannot be read'),
  ],
)
def test_bad_patient_lists(data_dir, tmp_path, error_line, text, problem):
  path = tmp_path / 'patients.csv'
  if text is not None:
    path.write_text(text)
  flags = [f'--data_dir={data_dir}', '--dataset=axial_50px_all', '--audit']
  assert run(*flags, f'--patients={path}') == 2
  assert re.search(f'patients.csv.*{problem}', error_line())


@pytest.mark.parametrize(
  ('flags', 'problem'),
  [
    (['--patients=x.csv'], '--patients is for --audit'),
    (['--augment=wild'], 'no such recipe'),
    (['--balance=wild'], 'balance must be one of'),
    (['--secs=-1'], '--secs must be 0 or more'),
    (['--split=nowhere'], "no split 'nowhere'"),
    (['--dataset=cube_48mm'], 'make it with luna16-extract'),
  ],
)
def test_usage_errors(data_dir, error_line, flags, problem):
  assert run(f'--data_dir={data_dir}', '--dataset=axial_50px_all', *flags) == 2
  assert problem in error_line()


def test_its_name_hides_no_module_of_python():
  import inspect as of_python

  assert (
    pathlib.Path(of_python.__file__).parent != pathlib.Path(inspect.__file__).parent
  )
