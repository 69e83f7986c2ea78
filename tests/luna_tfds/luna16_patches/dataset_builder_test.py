import pathlib
import shutil
import tempfile

import fake_data
import numpy as np
import oracles
import pytest
import tensorflow_datasets as tfds
from tensorflow_datasets.scripts.cli import main as tfds_command

import luna_tfds
from luna_tfds import CONFIGS
from luna_tfds import Builder
from luna_tfds import UsageError
from luna_tfds import custom_config
from luna_tfds import fold_splits
from luna_tfds.files import atomic_files

# Reads a dataset with TFDS alone.
WITHOUT_THE_PACKAGE = """
import hashlib, json, sys
import tensorflow_datasets as tfds
builder = tfds.builder_from_directory(sys.argv[1])
found = {}
for split in builder.info.splits:
  for record in tfds.as_numpy(builder.as_dataset(split=split)):
    key = f"{split}/{record['seriesuid'].decode()}/{record['candidate_id']}"
    found[key] = [
      hashlib.sha256(record['image'].tobytes()).hexdigest(),
      int(record['label']),
      record['center_xyz_mm'].tolist(),
      bool(record['excluded']),
    ]
roots = {name.partition('.')[0] for name in sys.modules}
print(json.dumps({
  'found': found,
  'loaded': sorted(roots & {'luna_tfds', 'beam_jobs', 'SimpleITK', 'apache_beam'}),
  'labels': builder.info.features['label'].names,
  'first_shards': builder.as_dataset(split='train[:2shard]').cardinality().numpy().item(),
}))
"""

WITH_THE_PACKAGE = """
import json, sys
import luna_tfds
import tensorflow_datasets as tfds
ds = tfds.load('luna16_patches/axial_50px', split='train', data_dir=sys.argv[1])
count = len(list(ds.as_numpy_iterator()))
roots = {name.partition('.')[0] for name in sys.modules}
packages = {'SimpleITK', 'apache_beam', 'beam_jobs', 'model', 'trainer'}
print(json.dumps({'count': count, 'loaded': sorted(roots & packages)}))
"""


@pytest.fixture(scope='module')
def expected(download):
  """Every record of `axial_50px_all`, by split and key."""
  records = oracles.expected_of(download, range(len(download.candidates)), (1, 50, 50))
  found = {'train': {}, 'validation': {}, 'test': {}}
  for key, record in records.items():
    found[oracles.split_of(record['subset'])][key] = record
  return found


@pytest.fixture(scope='module')
def builder(data_dir):
  return tfds.builder('luna16_patches/axial_50px_all', data_dir=data_dir)


@pytest.fixture
def small(tmp_path):
  scans = [fake_data.make_scan(seed, seed) for seed in (0, 8, 9)]
  return fake_data.write_download(tmp_path / 'luna16', scans)


def key(record):
  return f'{record["seriesuid"].decode()}/{record["candidate_id"]}'


def read(builder, split):
  records = list(tfds.as_numpy(builder.as_dataset(split=split)))
  found = {key(record): record for record in records}
  assert len(found) == len(records)
  return found


# Reading


@pytest.mark.parametrize('split', ['train', 'validation', 'test'])
def test_load_returns_every_feature(split, data_dir, expected):
  dataset = tfds.load('luna16_patches/axial_50px_all', split=split, data_dir=data_dir)
  found = {key(record): record for record in tfds.as_numpy(dataset)}
  assert found.keys() == expected[split].keys()
  for name, record in found.items():
    oracles.assert_same_record(record, expected[split][name])


def test_load_takes_the_default_config(data_dir, download):
  dataset, info = tfds.load('luna16_patches', data_dir=data_dir, with_info=True)
  assert info.full_name == 'luna16_patches/axial_50px/1.0.0'
  assert set(dataset) == {'train', 'validation', 'test'}
  subset_of = {name: scan.subset for name, scan in download.scans.items()}
  rows = oracles.selected_rows(download.candidates, subset_of, 5)
  assert sum(len(split) for split in dataset.values()) == len(rows)


def test_load_as_supervised(data_dir, expected):
  dataset = tfds.load(
    'luna16_patches/axial_50px_all', split='test', data_dir=data_dir, as_supervised=True
  )
  found = sorted((image.tobytes(), label) for image, label in tfds.as_numpy(dataset))
  records = expected['test'].values()
  assert found == sorted(
    (record['image'].astype(np.int16).tobytes(), record['label']) for record in records
  )


def test_dtypes_and_shapes(builder):
  spec = builder.as_dataset(split='train').element_spec
  assert {name: (s.dtype.name, s.shape.as_list()) for name, s in spec.items()} == {
    'image': ('int16', [50, 50, 1]),
    'label': ('int64', []),
    'seriesuid': ('string', []),
    'candidate_id': ('int64', []),
    'subset': ('int64', []),
    'center_xyz_mm': ('float64', [3]),
    'center_zyx': ('float32', [3]),
    'spacing_xyz_mm': ('float32', [3]),
    'nodule_id': ('int64', []),
    'diameter_mm': ('float32', []),
    'excluded': ('bool', []),
  }


def test_sizes_of_splits(builder, expected):
  sizes = {name: split.num_examples for name, split in builder.info.splits.items()}
  assert sizes == {name: len(records) for name, records in expected.items()}
  for split in builder.info.splits.values():
    assert sum(split.shard_lengths) == split.num_examples
    assert split.num_shards == (8 if split.name == 'train' else 1)
    files = oracles.files_of(pathlib.Path(builder.data_path))
    assert split.num_bytes == sum(len(files[name]) for name in split.filenames)


def test_shards_by_number(builder, expected):
  found = read(builder, 'train[:2shard]')
  assert found.keys() == {k for k, r in expected['train'].items() if r['subset'] < 2}
  assert {int(record['subset']) for record in found.values()} == {0, 1}


def test_slices_by_percent(builder, expected):
  first, rest = read(builder, 'train[:25%]'), read(builder, 'train[25%:]')
  assert len(first) == round(len(expected['train']) / 4)
  assert not first.keys() & rest.keys()
  assert first.keys() | rest.keys() == expected['train'].keys()


def test_metadata(builder, expected, download):
  metadata = builder.info.metadata
  assert metadata['shard_subsets'] == {
    'train': [0, 1, 2, 3, 4, 5, 6, 7],
    'validation': [8],
    'test': [9],
  }
  for split, counts in metadata['shard_label_counts'].items():
    for index, (negatives, positives) in enumerate(counts):
      records = read(builder, f'{split}[{index}shard:{index + 1}shard]').values()
      labels = [int(record['label']) for record in records]
      assert (labels.count(0), labels.count(1)) == (negatives, positives)
  counts = metadata['counts']
  assert counts['candidates_elsewhere'] == 0
  assert counts['scans_failed'] == 0
  # In each scan, one candidate is 2 voxels beyond the last corner.
  assert counts['candidates_outside'] >= len(download.scans)
  assert counts['patches_padded'] >= counts['candidates_outside']


def test_info(builder):
  assert builder.info.features['label'].names == ['non_nodule', 'nodule']
  assert builder.info.supervised_keys == ('image', 'label')
  assert 'LUNA16' in builder.info.description
  assert 'all candidates of the V1 list' in builder.builder_config.description
  assert '@article' in builder.info.citation
  assert builder.version == '1.0.0'


@pytest.mark.parametrize('fold', [0, 4, 9])
def test_folds_are_disjoint_and_complete(fold, builder, expected):
  splits = fold_splits(builder.info.metadata, fold)
  found = {name: read(builder, split) for name, split in splits.items()}
  scans = [{r['seriesuid'] for r in records.values()} for records in found.values()]
  assert not scans[0] & scans[1] | scans[0] & scans[2] | scans[1] & scans[2]
  everything = {k for records in expected.values() for k in records}
  assert {k for records in found.values() for k in records} == everything
  assert {int(r['subset']) for r in found['test'].values()} == {fold}
  if fold == 9:
    for name, records in expected.items():
      assert found[name].keys() == records.keys()


def test_reading_without_the_package(fresh_python, data_dir, builder, expected):
  seen = fresh_python(WITHOUT_THE_PACKAGE, builder.data_path)
  assert seen['loaded'] == []
  assert seen['labels'] == ['non_nodule', 'nodule']
  assert seen['first_shards'] == sum(
    r['subset'] < 2 for r in expected['train'].values()
  )
  found = seen['found']
  here = {
    f'{split}/{name}': [
      oracles.digest(record['image'].astype(np.int16)),
      record['label'],
      record['center_xyz_mm'].tolist(),
      record['excluded'],
    ]
    for split, records in expected.items()
    for name, record in records.items()
  }
  assert found == here


@pytest.mark.slow
def test_reading_loads_neither_beam_nor_simpleitk(fresh_python, data_dir, builder):
  seen = fresh_python(WITH_THE_PACKAGE, data_dir)
  there = tfds.builder('luna16_patches/axial_50px', data_dir=data_dir)
  assert seen == {'count': there.info.splits['train'].num_examples, 'loaded': []}


DEFAULT_CONFIG = """
import json, sys
import tensorflow_datasets as tfds
ds, info = tfds.load('luna16_patches', split='train', data_dir=sys.argv[1], with_info=True)
print(json.dumps([info.full_name, len(list(ds.as_numpy_iterator()))]))
"""


@pytest.mark.slow
def test_default_config_without_the_package(fresh_python, data_dir):
  there = tfds.builder('luna16_patches', data_dir=data_dir)
  assert fresh_python(DEFAULT_CONFIG, data_dir) == [
    'luna16_patches/axial_50px/1.0.0',
    there.info.splits['train'].num_examples,
  ]


def test_show_examples_names_its_limit(data_dir):
  dataset, info = tfds.load(
    'luna16_patches', split='train', data_dir=data_dir, with_info=True
  )
  # TFDS draws only images of unsigned integers.
  with pytest.raises(ValueError, match='Visualisation not supported'):
    tfds.show_examples(dataset, info)
  assert len(tfds.as_dataframe(dataset.take(3), info)) == 3


@pytest.mark.filterwarnings('ignore')  # TFDS's mock calls its own deprecated methods
@pytest.mark.parametrize('with_files', [False, True])
def test_mock_data(with_files, data_dir):
  folder = {'data_dir': str(data_dir)} if with_files else {}
  with tfds.testing.mock_data(num_examples=5, **folder):
    records = list(tfds.load('luna16_patches', split='train').as_numpy_iterator())
    cubes = tfds.load('luna16_patches/cube_48mm', split='test', as_supervised=True)
    images = [image.shape for image, _ in cubes]
  assert len(records) == 5
  assert {record['image'].shape for record in records} == {(50, 50, 1)}
  assert images == [(48, 48, 48, 1)] * 5


# Custom configs


def test_custom_config_is_read_by_its_name(extract, small, tmp_path):
  flags = ['--patch_shape=16,12', '--negatives_per_positive=2', '--seed=3']
  assert extract(small.folder, tmp_path / 'data', *flags) == 0
  name = 'axial_16x12px_neg2_seed3'
  assert name not in CONFIGS
  by_name = tfds.builder(f'luna16_patches/{name}', data_dir=tmp_path / 'data')
  config = custom_config(
    CONFIGS['axial_50px'], patch_shape=(16, 12), negatives_per_positive=2, seed=3
  )
  by_class = tfds.builder('luna16_patches', config=config, data_dir=tmp_path / 'data')
  subset_of = {name: scan.subset for name, scan in small.scans.items()}
  rows = oracles.selected_rows(small.candidates, subset_of, 2, seed=3)
  expected = oracles.expected_of(small, rows, (1, 16, 12))
  for builder in (by_name, by_class):
    found = read(builder, 'train+validation+test')
    assert found.keys() == expected.keys()
    for k, record in found.items():
      oracles.assert_same_record(record, expected[k])


# Preparing


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
  assert len(read(builder, 'train')) == builder.info.splits['train'].num_examples


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
  assert len(read(again, 'all')) == len(small.candidates) - 5


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
  assert len(read(again, 'all')) == len(small.candidates) - 5
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


def test_a_split_without_readable_scans_is_omitted(extract, small, tmp_path):
  fake_data.truncate(small.paths['1.2.826.0.8'].with_suffix('.raw'), 2)
  flags = ['--config=axial_50px_all', '--max_failed_scans=1']
  assert extract(small.folder, tmp_path / 'data', *flags) == 0
  builder = tfds.builder('luna16_patches/axial_50px_all', data_dir=tmp_path / 'data')
  assert builder.info.metadata['counts']['scans_failed'] == 1
  # TFDS cannot read a split without records.
  assert list(builder.info.splits) == ['train', 'test']
  for split, name in (('train', '1.2.826.0.0'), ('test', '1.2.826.0.9')):
    assert len(read(builder, split)) == sum(r[0] == name for r in small.candidates)


def test_a_builder_leaves_no_temporary_folder(tmp_path, monkeypatch):
  monkeypatch.setattr(tempfile, 'tempdir', str(tmp_path))
  Builder(config='axial_50px', data_dir=str(tmp_path / 'data'))
  assert list(tmp_path.iterdir()) == []


def test_the_package_registers_the_dataset():
  assert 'luna16_patches' in tfds.list_builders()


def test_public_names_of_the_package():
  assert luna_tfds.CONFIGS is CONFIGS
  assert tfds.builder_cls('luna16_patches') is luna_tfds.Builder
  for error in (luna_tfds.UsageError, luna_tfds.ScanError):
    assert issubclass(error, ValueError)


def test_folds_without_the_records_of_a_subset(extract, tmp_path):
  """The only scan of subset 1 cannot be read, so its shard has no record."""
  scans = [fake_data.make_scan(seed, seed) for seed in (0, 1, 2, 8, 9)]
  download = fake_data.write_download(tmp_path / 'luna16', scans)
  fake_data.truncate(download.paths['1.2.826.0.1'].with_suffix('.raw'), 2)
  flags = ['--config=axial_50px_all', '--max_failed_scans=1']
  assert extract(download.folder, tmp_path / 'data', *flags) == 0
  builder = tfds.builder('luna16_patches/axial_50px_all', data_dir=tmp_path / 'data')
  folds = fold_splits(builder.info.metadata, 9)
  assert {int(r['subset']) for r in read(builder, folds['train']).values()} == {0, 2}
  with pytest.raises(ValueError, match='only records of subsets'):
    fold_splits(builder.info.metadata, 1)
