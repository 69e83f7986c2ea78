import shutil

import fake_data
import fake_source
import matplotlib.image
import pytest

from trainer import inspect
from trainer.data import dataset as dataset_lib


def run(*arguments):
  return inspect.run(['luna16-inspect', *arguments])


@pytest.fixture
def flags(data_dir):
  return [f'--data_dir={data_dir}', '--dataset=axial_50px_all']


def test_split_balance_and_rate_are_printed(flags, data_dir, tmp_path, capsys):
  code = run(
    *flags, '--split=test', '--secs=0.05', f'--output_dir={tmp_path}', '--batch_size=8'
  )
  assert code == 0
  lines = capsys.readouterr().out.splitlines()
  source = dataset_lib.open_dataset(str(data_dir), 'axial_50px_all').open_split('test')
  negatives, nodules = source.label_counts
  assert lines[0].startswith(
    f'test: {source.num_records} records (50, 50, 1), {nodules} nodule'
  )
  # The whole split is of one subset and of one spacing.
  counts = f'{negatives:>12}{nodules:>9}'
  assert [line for line in lines if line.endswith(counts)] == [
    f'  {"9":<12}{counts}',
    f'  {"0.70-0.70":<12}{counts}',
    f'  {"1.50-1.50":<12}{counts}',
  ]
  assert lines[-3].startswith('balance: rejection, 50.0% of class nodule')
  assert lines[-2].startswith('input: ')
  assert lines[-2].endswith(' records/s, balanced and augmented')
  assert lines[-1] == f'examples: {tmp_path / "examples.png"}'
  # Eight records, before and after augmentation.
  picture = matplotlib.image.imread(tmp_path / 'examples.png')
  assert picture[..., :3].std() > 0.1


def test_no_rate_is_measured_in_0_secs(flags, capsys):
  assert run(*flags, '--secs=0', '--split=test') == 0
  text = capsys.readouterr().out
  assert 'records/s' not in text
  assert 'examples' not in text


def test_excluded_records_are_counted(flags, data_dir, capsys):
  assert run(*flags, '--secs=0') == 0
  source = dataset_lib.open_dataset(str(data_dir), 'axial_50px_all').open_split('train')
  excluded = fake_source.read_columns(source, ('excluded',))['excluded'].sum()
  assert f', {excluded} excluded, ' in capsys.readouterr().out


def test_old_name_of_an_augmentation_is_accepted(flags):
  assert run(*flags, '--secs=0', '--split=test', '--augment=turns') == 0


def test_audit_of_a_whole_dataset(flags, capsys):
  assert run(*flags, '--audit') == 0
  text = capsys.readouterr().out
  assert 'no key twice' in text
  assert '12 scans (train 10, validation 1, test 1), none in two splits' in text


def test_audit_of_a_damaged_dataset_fails(data_dir, tmp_path, error_line):
  folder = tmp_path / 'axial_50px_all' / '1.0.0'
  shutil.copytree(data_dir / 'luna16_patches' / 'axial_50px_all' / '1.0.0', folder)
  path = next(iter(folder.glob('*-test.tfrecord-*')))
  path.write_bytes(path.read_bytes() * 2)
  assert run(f'--dataset={folder}', '--audit') == 1
  line = error_line()
  assert 'fails the audit' in line
  assert f'{path.name} holds ' in line


def test_published_patches_have_no_scans(tmp_path, extract, capsys):
  fake_data.write_article(tmp_path / 'article')
  assert extract(tmp_path / 'article', tmp_path / 'data', '--config=article') == 0
  capsys.readouterr()
  assert run(f'--data_dir={tmp_path / "data"}', '--dataset=article', '--audit') == 0
  assert 'scans are unknown' in capsys.readouterr().out


@pytest.mark.parametrize(
  ('arguments', 'problem'),
  [
    (['--patients=x.csv'], '--patients needs --audit'),
    (['--audit', '--patients=x.csv'], 'x.csv: cannot be read'),
    (['--augment=wild'], '--augment=wild: value should be one of <none|'),
    (['--balance=wild'], '--balance=wild: value should be one of <auto|'),
    (['--batch_size=0'], '--batch_size must be 1 or more. Received: 0'),
    (['--positive_fraction=1'], '--positive_fraction must lie between 0 and 1'),
    (['--secs=-1'], '--secs must be 0 or more. Received: -1.0'),
    (['--secs=nan'], '--secs must be 0 or more. Received: nan'),
    (['--secs=inf'], '--secs must be 0 or more. Received: inf'),
    (['--secs=long'], '--secs=long: must be a number'),
    (['--split=nowhere'], "has no split 'nowhere'"),
    (['--dataset=cube_48mm'], 'make it with luna16-extract'),
  ],
)
def test_usage_errors(flags, error_line, arguments, problem):
  assert run(*flags, *arguments) == 2
  line = error_line()
  assert problem in line
  if problem.startswith('--'):
    assert line.startswith(f'luna16-inspect: error: {problem}')


def test_output_folder_that_cannot_be_made_is_refused(flags, tmp_path, error_line):
  (tmp_path / 'file').write_text('')
  assert run(*flags, f'--output_dir={tmp_path / "file" / "folder"}') == 2
  assert error_line().startswith('luna16-inspect: error: --output_dir: the folder ')
