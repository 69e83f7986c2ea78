import json
import pathlib
import re
import shutil

import fake_data
import pytest

from luna_tfds.command_line import progress
from luna_tfds.errors import JobError
from luna_tfds.errors import UsageError
from trainer.data import audit
from trainer.data import dataset as dataset_lib


@pytest.fixture
def copy(data_dir, tmp_path):
  """The folder of a copy of the dataset that a test may damage."""
  folder = tmp_path / 'luna16_patches' / 'axial_50px_all'
  shutil.copytree(data_dir / 'luna16_patches' / 'axial_50px_all', folder)
  return next(path.parent for path in folder.glob('*/dataset_info.json'))


def open_copy(folder):
  return dataset_lib.open_dataset('', str(folder))


def find_problems(folder, patients_csv=None):
  """The message of the audit, which must fail."""
  with pytest.raises(JobError, match=r'fails the audit: .*; extract it again') as error:
    audit.audit(open_copy(folder), patients_csv)
  return str(error.value)


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
  rows = ''.join(f'{uid},{patient}\n' for uid, patient in patient_of.items())
  path.write_text('seriesuid,patient\n' + rows)
  return str(path)


def scan_of_subset(download, subset):
  return next(uid for uid, s in download.scans.items() if s.subset == subset)


def test_an_extracted_dataset_passes(dataset, download, tmp_path):
  patients = write_patients(tmp_path / 'patients.csv', download)
  text = audit.audit(dataset, patients)
  total = sum(dataset.open_split(name).num_records for name in dataset.split_names)
  assert text.splitlines() == [
    f'luna16_patches/axial_50px_all/1.0.0: {total} records, no key twice',
    '  12 scans (train 10, validation 1, test 1), none in two splits',
    '  11 nodules (train 9, validation 1, test 1), none in two splits',
    '  12 patients (train 10, validation 1, test 1), none in two splits',
    '  counts of every shard, class and subset as in the metadata',
  ]
  audit.check_metadata(dataset)


def test_a_scan_and_its_nodule_in_two_splits(copy):
  # As a split that leaks would store it: the shard of subset 0 replaces that of the test
  # set. It holds one scan, so that every problem is listed.
  shutil.copy(shard(copy, 'train'), shard(copy, 'test'))
  text = find_problems(copy)
  assert re.search(r'tfrecord-\S+: \d+ records are stored twice', text)
  assert re.search(r'scan 1\.2\.826\.0\.\d+ is in train and in test', text)
  problems = audit_problems_without_limit(copy)
  assert re.search(r'nodule \d+ is in train and in test', problems)


def audit_problems_without_limit(folder):
  """All problems: those of the metadata are repaired first, so that fewer are listed."""

  def repair(fields):
    for name in ('shard_label_counts', 'shard_subsets'):
      fields[name].pop('test')

  edit_metadata(folder, repair)
  return find_problems(folder)


def test_only_the_first_problems_are_listed(copy):
  for path in copy.glob('*.tfrecord-*'):
    path.write_bytes(path.read_bytes()[:-9])
  count = len(list(copy.glob('*.tfrecord-*')))
  assert f'; and {count - 5} more; extract it again' in find_problems(copy)


def test_a_patient_in_two_splits(copy, download, tmp_path):
  path = tmp_path / 'patients.csv'
  shared = {scan_of_subset(download, k): 'Smith' for k in (3, 9)}
  problems = find_problems(copy, write_patients(path, download, **shared))
  assert 'patient Smith is in train and in test' in problems
  # Both scans in the training split: no leak.
  shared = {scan_of_subset(download, k): 'Smith' for k in (3, 4)}
  text = audit.audit(open_copy(copy), write_patients(path, download, **shared))
  assert '11 patients (train 9, validation 1, test 1)' in text


def test_records_stored_twice(copy):
  path = shard(copy, 'validation')
  path.write_bytes(path.read_bytes() * 2)
  problems = find_problems(copy)
  assert f'{path.name} holds ' in problems
  assert 'records are stored twice' in problems


def test_a_damaged_or_missing_file(copy):
  path = shard(copy, 'test')
  path.write_bytes(path.read_bytes()[:-9])
  assert f'{path.name} cannot be read' in find_problems(copy)
  path.unlink()
  assert f'{path.name} cannot be read' in find_problems(copy)


def swap_classes(fields):
  fields['shard_label_counts']['train'][1].reverse()


def omit_a_record(fields):
  fields['shard_label_counts']['train'][1][0] -= 1


def mix_subsets(fields):
  fields['shard_subsets']['test'][0] = 3


def omit_a_shard(fields):
  fields['shard_subsets']['train'].pop()


@pytest.mark.parametrize(
  ('change', 'problem', 'seen_in_metadata'),
  [
    (swap_classes, 'of each class, metadata.json says', False),
    (omit_a_record, 'class counts of the shards of train do not add up', True),
    (mix_subsets, 'subset 3 is in train and in test', True),
    (omit_a_shard, r'train has \d+ shards, but metadata.json lists the subsets', True),
  ],
)
def test_metadata_that_contradict_themselves_or_the_records(
  copy, change, problem, seen_in_metadata
):
  edit_metadata(copy, change)
  assert re.search(problem, find_problems(copy))
  if seen_in_metadata:
    with pytest.raises(JobError, match=problem):
      audit.check_metadata(open_copy(copy))
  else:
    audit.check_metadata(open_copy(copy))


def test_a_wrong_subset_is_found_in_the_records(copy):
  # A subset that no other split has, so that only the records show it.
  edit_metadata(copy, lambda fields: fields['shard_subsets']['train'].__setitem__(0, 1))
  audit.check_metadata(open_copy(copy))
  assert 'holds subsets [0], metadata.json says 1' in find_problems(copy)


def test_patches_of_unknown_scans(tmp_path, extract):
  fake_data.write_article(tmp_path / 'article')
  assert extract(tmp_path / 'article', tmp_path / 'data', '--config=article') == 0
  dataset = dataset_lib.open_dataset(str(tmp_path / 'data'), 'article')
  text = audit.audit(dataset)
  assert 'scans are unknown: only candidates can be compared' in text
  assert 'nodules' not in text


@pytest.mark.parametrize(
  ('text', 'problem'),
  [
    ('seriesuid,name\n', 'the column patient is missing'),
    ('seriesuid,patient\n1.2,\n', 'line 2: a value is missing'),
    ('seriesuid,patient\n1.2,a\n1.2,b\n', 'line 3: scan 1.2 has two patients, a and b'),
    ('seriesuid,patient\n1.2,a\n1.2,"b\nc"\n', r'patients, a and b\\nc; remove one'),
    ('seriesuid,patient\n1.2,a\n', 'no row for scan .* and 11 more'),
    (None, 'cannot be read'),
  ],
)
def test_a_wrong_list_of_patients_is_refused(dataset, tmp_path, text, problem):
  path = tmp_path / 'patients.csv'
  if text is not None:
    path.write_text(text)
  with pytest.raises(UsageError, match=rf'patients\.csv.*{problem}'):
    audit.audit(dataset, str(path))


def test_a_dataset_without_metadata_is_checked_by_its_lengths(copy):
  pathlib.Path(copy / 'metadata.json').unlink()
  audit.check_metadata(open_copy(copy))
  text = audit.audit(open_copy(copy))
  assert 'no metadata.json: only the lengths of shards could be compared' in text


def test_progress_is_displayed(opened_dataset, monkeypatch, capsys):
  monkeypatch.setattr(progress, '_LINE_SECS', 0.0)
  audit.audit(opened_dataset)
  assert capsys.readouterr().err.splitlines()[-1].startswith('audit: 10/10 shards, ')
