import dataclasses
import json

import pytest

from luna_tfds import patches
from luna_tfds.errors import UsageError
from trainer import config as config_lib
from trainer import run_versions
from trainer import workdir as workdir_lib

PATCH = patches.PatchSpec((1, 50, 50), None, 'axial')
CONFIG = config_lib.TrainConfig(
  dataset='luna16_patches/axial_50px',
  data_dir='/data',
  model='nodule_net',
  recipe=config_lib.Recipe(),
  input=config_lib.InputConfig(batch_size=96),
)


@pytest.fixture
def workdir(tmp_path):
  workdir = workdir_lib.Workdir(tmp_path / 'run')
  workdir.prepare(CONFIG, 'abc', PATCH)
  return workdir


def test_settings_are_written(workdir):
  assert config_lib.load(workdir.config) == CONFIG
  assert workdir.dataset_fingerprint == 'abc'
  assert workdir.patch_spec() == PATCH
  fields = json.loads(workdir.config.read_text())
  assert fields['versions'].keys() >= {'python', 'tensorflow', 'keras', 'numpy'}
  assert fields['code_version']


def test_a_run_may_be_longer_and_its_data_elsewhere(workdir):
  longer = dataclasses.replace(
    CONFIG,
    data_dir='/elsewhere',
    threshold='recall:0.9',
    tta=True,
    deployed_prior=0.1,
    recipe=dataclasses.replace(CONFIG.recipe, epochs=99),
  )
  workdir.prepare(longer, 'abc', PATCH)
  assert config_lib.load(workdir.config) == longer


@pytest.mark.parametrize(
  ('change', 'problem'),
  [
    ({'model': 'article_cnn'}, 'model=nodule_net, not article_cnn'),
    ({'train_split': 'test'}, 'train_split=train, not test'),
    (
      {'recipe': config_lib.Recipe(learning_rate=0.5)},
      r'recipe\.learning_rate=0\.001, not 0\.5',
    ),
    (
      {
        'input': config_lib.InputConfig(
          batch_size=96, augment=config_lib.AugmentConfig(scale=0.5)
        )
      },
      r'input\.augment\.scale=0\.0, not 0\.5',
    ),
  ],
)
def test_a_run_with_other_settings_is_refused(workdir, change, problem):
  before = workdir.config.read_bytes()
  with pytest.raises(UsageError, match=f'holds a run with {problem}; give another --w'):
    workdir.prepare(dataclasses.replace(CONFIG, **change), 'abc', PATCH)
  assert workdir.config.read_bytes() == before


def test_a_run_on_another_dataset_is_refused(workdir):
  with pytest.raises(UsageError, match='--workdir'):
    workdir.prepare(CONFIG, 'other', PATCH)


def test_published_patches_cannot_be_cut_from_scans(tmp_path):
  workdir = workdir_lib.Workdir(tmp_path)
  workdir.prepare(CONFIG, '', None)
  with pytest.raises(UsageError, match='was trained on published patches'):
    workdir.patch_spec()


def test_a_folder_that_cannot_be_made_is_refused(tmp_path):
  (tmp_path / 'file').write_text('')
  workdir = workdir_lib.Workdir(tmp_path / 'file' / 'run')
  with pytest.raises(UsageError, match='cannot be written: '):
    workdir.prepare(CONFIG, 'abc', PATCH)


def test_only_a_finished_run_can_be_opened(workdir, tmp_path):
  with pytest.raises(UsageError, match=r'no run in it .*; train one with luna16-train'):
    workdir_lib.open_workdir(tmp_path / 'nothing')
  for name in ('model.keras', 'operating_point.json'):
    with pytest.raises(
      UsageError, match=rf'training has not finished \({name} is missing\)'
    ):
      workdir_lib.open_workdir(workdir.path)
    (workdir.path / name).write_text('')
  assert workdir_lib.open_workdir(str(workdir.path)) == (workdir, CONFIG)


def test_names_of_nested_fields_are_joined():
  fields = {'a': 1, 'b': {'c': 2, 'd': {'e': [3]}}}
  assert workdir_lib.flatten(fields) == {'a': 1, 'b.c': 2, 'b.d.e': [3]}


@pytest.mark.parametrize(
  ('patch', 'problem'),
  [
    ({'shape_zyx': [1, 50]}, 'positive size on 3 axes'),
    ({'shape_zyx': 5}, 'not iterable'),
    ({'shape_zyx': [1, 'a', 2]}, 'shape_zyx must be'),
    ({'other': 1}, 'shape_zyx'),
    ([1], 'mapping'),
  ],
)
def test_a_damaged_patch_is_rejected(patch, problem, workdir):
  fields = json.loads(workdir.config.read_text())
  workdir.config.write_text(json.dumps({**fields, 'patch': patch}))
  with pytest.raises(UsageError, match=rf'config\.json: patch: .*{problem}'):
    workdir.patch_spec()


@pytest.mark.parametrize(
  'text', ['[1]', '{}', '{"dataset_fingerprint": 5}', 'x', '[' * 99_999]
)
def test_a_config_without_fingerprint_is_rejected(text, workdir):
  workdir.config.write_text(text)
  with pytest.raises(UsageError, match=r'config\.json: .*train again'):
    _ = workdir.dataset_fingerprint


def set_versions(monkeypatch, **versions):
  monkeypatch.setattr(run_versions, '_versions', lambda: versions)


def test_a_run_keeps_the_versions_it_was_started_with(tmp_path, monkeypatch):
  workdir = workdir_lib.Workdir(tmp_path / 'run')
  monkeypatch.setattr(run_versions, '_code_version', lambda: '1.1.0')
  set_versions(monkeypatch, keras='3.10.0', numpy='2.0.0')
  assert workdir.prepare(CONFIG, 'abc', PATCH, 'float32') == []
  assert workdir.prepare(CONFIG, 'abc', PATCH, 'float32') == []
  workdir.history.append(0, {'loss': 1.0})
  set_versions(monkeypatch, keras='3.11.0', numpy='2.0.0')
  changes = workdir.prepare(CONFIG, 'abc', PATCH, 'mixed_bfloat16')
  assert changes == [
    'precision_used float32 -> mixed_bfloat16',
    'keras 3.10.0 -> 3.11.0',
  ]
  # A change is reported once.
  assert workdir.prepare(CONFIG, 'abc', PATCH, 'mixed_bfloat16') == []
  fields = json.loads(workdir.config.read_text())
  assert fields['versions'] == {'keras': '3.10.0', 'numpy': '2.0.0'}
  assert fields['precision_used'] == 'float32'
  assert fields['code_version'] == '1.1.0'
  assert fields['changed'] == [
    {
      'epoch': 1,
      'name': 'precision_used',
      'before': 'float32',
      'after': 'mixed_bfloat16',
    },
    {'epoch': 1, 'name': 'versions.keras', 'before': '3.10.0', 'after': '3.11.0'},
  ]


def test_versions_that_change_back_are_reported(tmp_path, monkeypatch):
  workdir = workdir_lib.Workdir(tmp_path / 'run')
  for version in ('1.0.0', '1.1.0'):
    monkeypatch.setattr(run_versions, '_code_version', lambda version=version: version)
    workdir.prepare(CONFIG, 'abc', PATCH)
  monkeypatch.setattr(run_versions, '_code_version', lambda: '1.0.0')
  assert workdir.prepare(CONFIG, 'abc', PATCH) == ['code_version 1.1.0 -> 1.0.0']


def test_a_run_of_version_1_0_0_has_no_precision_to_compare(workdir):
  fields = json.loads(workdir.config.read_text())
  del fields['precision_used'], fields['changed']
  workdir.config.write_text(json.dumps(fields))
  assert workdir.prepare(CONFIG, 'abc', PATCH, 'float32') == []
  assert json.loads(workdir.config.read_text())['precision_used'] == 'float32'


def test_hard_negatives_of_a_command_that_was_killed_are_replaced(tmp_path):
  """It was killed between writing the copy and writing config.json."""
  workdir = workdir_lib.Workdir(tmp_path / 'run')
  workdir.path.mkdir()
  workdir.hard_negatives.write_text('of the killed command')
  given = tmp_path / 'predictions.csv'
  given.write_text('of this command')
  inputs = dataclasses.replace(CONFIG.input, hard_negatives=str(given))
  config = dataclasses.replace(CONFIG, input=inputs)
  for _ in range(2):
    workdir.prepare(config, 'abc', PATCH)
    assert workdir.stored_hard_negatives.read_text() == 'of this command'
    given.write_text('changed while the run lasts')


@pytest.mark.parametrize('changed', ['x', 5, {'a': 1}, [1], [{'after': 1}]])
def test_a_damaged_list_of_changes_is_rejected(changed, workdir):
  fields = json.loads(workdir.config.read_text())
  workdir.config.write_text(json.dumps({**fields, 'changed': changed}))
  with pytest.raises(UsageError, match=r'config\.json: changed must list objects'):
    workdir.prepare(CONFIG, 'abc', PATCH)
