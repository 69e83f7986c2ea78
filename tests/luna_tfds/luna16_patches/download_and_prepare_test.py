"""Preparing the dataset with TFDS: `download_and_prepare`, `tfds.load`, `tfds build`."""

import pathlib
import shutil

import fake_data
import oracles
import pytest
import tensorflow_datasets as tfds
from tensorflow_datasets.scripts.cli import main as tfds_command

import luna_tfds
from luna_tfds import Builder
from luna_tfds import UsageError
from luna_tfds.files import atomic_files


def manual(folder, **fields):
  return tfds.download.DownloadConfig(manual_dir=str(folder), **fields)


def test_download_and_prepare_writes_what_the_command_writes(extract, small, tmp_path):
  assert extract(small.folder, tmp_path / 'command') == 0
  builder = Builder(config='axial_50px', data_dir=str(tmp_path / 'builder'))
  builder.download_and_prepare(download_config=manual(small.folder))
  by_command = tmp_path / 'command' / 'luna16_patches' / 'axial_50px' / '1.0.0'
  by_builder = pathlib.Path(builder.data_path)
  assert oracles.files_of(by_builder) == oracles.files_of(by_command)
  # The builder can read the dataset at once.
  assert set(builder.info.splits) == {'train', 'validation', 'test'}
  assert (
    len(oracles.read_split(builder, 'train'))
    == builder.info.splits['train'].num_examples
  )


def test_load_prepares_from_the_manual_folder(small, tmp_path):
  shutil.copytree(small.folder, tmp_path / 'downloads' / 'manual')
  dataset = tfds.load(
    'luna16_patches/axial_50px_all',
    split='train',
    data_dir=tmp_path / 'data',
    download_and_prepare_kwargs={'download_dir': str(tmp_path / 'downloads')},
  )
  expected = [row for row in small.candidates if row[0] == '1.2.826.0.0']
  assert len(list(dataset)) == len(expected)


def test_an_existing_dataset_is_reused(small, tmp_path):
  builder = Builder(config='axial_50px', data_dir=str(tmp_path / 'data'))
  builder.download_and_prepare(download_config=manual(small.folder))
  folder = pathlib.Path(builder.data_path)
  before = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
  shutil.rmtree(small.folder)
  builder.download_and_prepare(download_config=manual(small.folder))
  after = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
  assert after == before


def test_an_existing_dataset_is_replaced_on_request(small, tmp_path):
  builder = Builder(config='axial_50px_all', data_dir=str(tmp_path / 'data'))
  builder.download_and_prepare(download_config=manual(small.folder))
  fake_data.write_candidates(small.folder / 'candidates.csv', small.candidates[:-5])
  mode = tfds.download.GenerateMode.REUSE_CACHE_IF_EXISTS
  assert mode.overwrite_dataset
  builder.download_and_prepare(download_config=manual(small.folder, download_mode=mode))
  again = tfds.builder_from_directory(str(builder.data_path))
  assert len(oracles.read_split(again, 'all')) == len(small.candidates) - 5


def damage(folder, name):
  if name == 'a shard':
    next(folder.glob('*train.tfrecord-*')).unlink()
  elif name == 'a part of a shard':
    fake_data.truncate(next(folder.glob('*train.tfrecord-*')), 5)
  else:
    (folder / name).unlink()


@pytest.mark.parametrize('name', ['a shard', 'a part of a shard', 'label.labels.txt'])
def test_a_damaged_dataset_is_repaired(name, small, tmp_path):
  builder = Builder(config='axial_50px', data_dir=str(tmp_path / 'data'))
  builder.download_and_prepare(download_config=manual(small.folder))
  folder = pathlib.Path(builder.data_path)
  before = oracles.files_of(folder)
  damage(folder, name)
  with pytest.raises(UsageError, match=r'is damaged: .*; extract it with luna16-extr'):
    builder.download_and_prepare()
  builder.download_and_prepare(download_config=manual(small.folder))
  assert oracles.files_of(folder) == before


def test_download_mode_may_be_a_text(small, tmp_path):
  builder = Builder(config='axial_50px_all', data_dir=str(tmp_path / 'data'))
  builder.download_and_prepare(download_config=manual(small.folder))
  fake_data.write_candidates(small.folder / 'candidates.csv', small.candidates[:-5])
  config = manual(small.folder, download_mode='reuse_cache_if_exists')
  builder.download_and_prepare(download_config=config)
  again = tfds.builder_from_directory(str(builder.data_path))
  assert len(oracles.read_split(again, 'all')) == len(small.candidates) - 5
  with pytest.raises(UsageError, match='download_mode must be one of reuse_dataset_if'):
    builder.download_and_prepare(
      download_config=manual(small.folder, download_mode='again')
    )


@pytest.fixture
def tfds_build(small, tmp_path, monkeypatch):
  """Runs the command `tfds build` of TFDS."""

  def run(*flags):
    monkeypatch.chdir(tmp_path)
    module = pathlib.Path(luna_tfds.luna16_patches.__file__).parent
    folders = (f'--data_dir={tmp_path / "data"}', f'--manual_dir={small.folder}')
    command = ['tfds', 'build', str(module), '--config=axial_50px', *folders, *flags]
    tfds_command.main(tfds_command._parse_flags(command))

  return run


def test_tfds_build_writes_the_dataset(tfds_build, tmp_path):
  tfds_build()
  builder = tfds.builder('luna16_patches/axial_50px', data_dir=tmp_path / 'data')
  assert set(builder.info.splits) == {'train', 'validation', 'test'}


@pytest.mark.parametrize(
  ('flag', 'problem'),
  [
    ('--file_format=array_record', 'file_format must be tfrecord. Received: array_re'),
    ('--max_examples_per_split=3', 'max_examples_per_split=3 is not supported; '),
    ('--max_examples_per_split', 'max_examples_per_split=1 is not supported; '),
    ('--num_shards=3', 'num_shards=3 is not supported; '),
  ],
)
def test_tfds_build_rejects_options_without_effect(
  tfds_build, flag, problem, small, tmp_path
):
  with pytest.raises(UsageError, match=problem):
    tfds_build(flag)
  assert not (tmp_path / 'data').exists()


@pytest.mark.parametrize(
  ('options', 'problem'),
  [
    ({'max_examples_per_split': 3}, 'max_examples_per_split=3 is not supported; '),
    ({'max_examples_per_split': 0}, 'max_examples_per_split=0 is not supported; '),
    ({'num_shards': 4}, 'num_shards=4 is not supported; '),
    ({'max_shard_size': 10**6}, 'max_shard_size=1000000 is not supported; '),
  ],
)
def test_options_that_have_no_effect_are_rejected(options, problem, small, tmp_path):
  builder = Builder(config='axial_50px', data_dir=str(tmp_path / 'data'))
  with pytest.raises(UsageError, match=problem):
    builder.download_and_prepare(download_config=manual(small.folder, **options))
  assert not (tmp_path / 'data').exists()


@pytest.mark.parametrize('in_constructor', [False, True])
def test_other_file_formats_are_rejected(in_constructor, small, tmp_path):
  wanted = {'file_format': 'array_record'}
  builder = Builder(
    config='axial_50px',
    data_dir=str(tmp_path / 'data'),
    **(wanted if in_constructor else {}),
  )
  with pytest.raises(UsageError, match='file_format must be tfrecord'):
    builder.download_and_prepare(
      download_config=manual(small.folder), **({} if in_constructor else wanted)
    )
  assert not (tmp_path / 'data').exists()


def test_own_file_format_is_accepted(small, tmp_path):
  builder = Builder(
    config='axial_50px', data_dir=str(tmp_path / 'data'), file_format='tfrecord'
  )
  builder.download_and_prepare(
    download_config=manual(small.folder), file_format='tfrecord'
  )
  assert set(builder.info.splits) == {'train', 'validation', 'test'}


def test_update_of_the_dataset_info(extract, small, tmp_path):
  assert extract(small.folder, tmp_path) == 0
  path = tmp_path / 'luna16_patches' / 'axial_50px' / '1.0.0' / 'dataset_info.json'
  fields = atomic_files.read_json(path)
  atomic_files.write_json(path, {**fields, 'description': 'an old text'})
  mode = tfds.download.GenerateMode.UPDATE_DATASET_INFO
  Builder(config='axial_50px', data_dir=str(tmp_path)).download_and_prepare(
    download_config=tfds.download.DownloadConfig(download_mode=mode)
  )
  updated = atomic_files.read_json(path)
  assert updated == {**fields, 'description': updated['description']}
  assert 'LUNA16' in updated['description']


def test_a_missing_dataset_is_an_error_that_names_the_command(tmp_path):
  with pytest.raises(
    UsageError, match=r'luna16-extract --luna_dir=.*--config=axial_50px'
  ):
    tfds.load('luna16_patches', data_dir=tmp_path)
