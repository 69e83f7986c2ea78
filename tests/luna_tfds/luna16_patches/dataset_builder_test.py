"""Reading the dataset with TFDS."""

import pathlib
import tempfile

import fake_data
import numpy as np
import oracles
import pytest
import tensorflow_datasets as tfds

import luna_tfds
from luna_tfds import CONFIGS
from luna_tfds import Builder
from luna_tfds import custom_config
from luna_tfds import fold_splits

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


@pytest.mark.parametrize('split', ['train', 'validation', 'test'])
def test_load_returns_every_feature(split, data_dir, expected):
  dataset = tfds.load('luna16_patches/axial_50px_all', split=split, data_dir=data_dir)
  found = {oracles.record_key(record): record for record in tfds.as_numpy(dataset)}
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
  found = oracles.read_split(builder, 'train[:2shard]')
  assert found.keys() == {k for k, r in expected['train'].items() if r['subset'] < 2}
  assert {int(record['subset']) for record in found.values()} == {0, 1}


def test_slices_by_percent(builder, expected):
  first, rest = (
    oracles.read_split(builder, 'train[:25%]'),
    oracles.read_split(builder, 'train[25%:]'),
  )
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
      records = oracles.read_split(
        builder, f'{split}[{index}shard:{index + 1}shard]'
      ).values()
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
  found = {name: oracles.read_split(builder, split) for name, split in splits.items()}
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
    found = oracles.read_split(builder, 'train+validation+test')
    assert found.keys() == expected.keys()
    for k, record in found.items():
      oracles.assert_same_record(record, expected[k])


def test_a_split_without_readable_scans_is_omitted(extract, small, tmp_path):
  fake_data.truncate(small.paths['1.2.826.0.8'].with_suffix('.raw'), 2)
  flags = ['--config=axial_50px_all', '--max_failed_scans=1']
  assert extract(small.folder, tmp_path / 'data', *flags) == 0
  builder = tfds.builder('luna16_patches/axial_50px_all', data_dir=tmp_path / 'data')
  assert builder.info.metadata['counts']['scans_failed'] == 1
  # TFDS cannot read a split without records.
  assert list(builder.info.splits) == ['train', 'test']
  for split, name in (('train', '1.2.826.0.0'), ('test', '1.2.826.0.9')):
    assert len(oracles.read_split(builder, split)) == sum(
      r[0] == name for r in small.candidates
    )


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
  assert {
    int(r['subset']) for r in oracles.read_split(builder, folds['train']).values()
  } == {0, 2}
  with pytest.raises(ValueError, match='only records of subsets'):
    fold_splits(builder.info.metadata, 1)
