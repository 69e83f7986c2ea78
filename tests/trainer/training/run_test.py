import dataclasses
import json
import shutil

import fake_data
import fake_source
import pytest

from luna_tfds.errors import JobError
from luna_tfds.errors import UsageError
from trainer import config as config_lib
from trainer import run_versions
from trainer import workdir as workdir_lib
from trainer.data import dataset as dataset_lib
from trainer.scoring import inference
from trainer.training import distribution
from trainer.training import inference_model
from trainer.training import run as run_lib


def train_config(data_dir, dataset='luna16_patches/axial_50px_all', **fields):
  return config_lib.TrainConfig(
    dataset=str(dataset),
    data_dir=str(data_dir),
    model='nodule_net',
    recipe=config_lib.Recipe(epochs=1, steps_per_epoch=1),
    input=config_lib.InputConfig(batch_size=8),
    **{'precision': 'float32', **fields},
  )


def test_workdir_holds_all_files_of_a_run(trained):
  for path in (trained.model, trained.best, trained.last, trained.operating_point):
    assert path.is_file()
  history = trained.history.read()
  assert [row['epoch'] for row in history] == [0, 1]
  assert {'loss', 'val_loss', 'val_pr_auc'} <= set(history[0])
  assert list(trained.tensorboard.glob('pictures/events*'))
  fields = json.loads(trained.config.read_text())
  assert fields['config']['input']['batch_size'] == 8
  assert fields['patch'] == {
    'shape_zyx': [1, 50, 50],
    'spacing_mm': None,
    'layout': 'axial',
  }
  assert fields['dataset_fingerprint']
  assert 'keras' in fields['versions']
  assert fields['precision_used'] in ('float32', 'mixed_bfloat16')
  assert config_lib.load(trained.config).to_json() == fields['config']
  opened, config = workdir_lib.open_workdir(trained.path)
  assert opened == trained
  assert config.input.batch_size == 8


def test_a_split_that_cannot_be_balanced_leaves_the_folder_free(data_dir, tmp_path):
  config = train_config(data_dir, train_split='train[:1]')
  with pytest.raises(UsageError, match='both are needed to balance them'):
    run_lib.train(config, tmp_path)
  assert not (tmp_path / 'config.json').exists()


def test_metadata_that_contradict_themselves_are_refused(data_dir, tmp_path):
  folder = tmp_path / 'axial_50px_all' / '1.0.0'
  shutil.copytree(data_dir / 'luna16_patches' / 'axial_50px_all' / '1.0.0', folder)
  path = folder / 'metadata.json'
  fields = json.loads(path.read_text())
  fields['shard_label_counts']['train'][0][0] += 1
  path.write_text(json.dumps(fields))
  with pytest.raises(JobError, match='fails the audit'):
    run_lib.train(train_config('', folder), tmp_path / 'run')


def test_overlapping_splits_are_refused(data_dir, tmp_path):
  config = train_config(
    data_dir, train_split='train[5:]', validation_split='validation+train[:8]'
  )
  with pytest.raises(UsageError, match=r'--validation_split=.* 3 records in common'):
    run_lib.train(config, tmp_path / 'run')
  assert not (tmp_path / 'run').exists()


def test_another_validation_split_that_is_missing_is_refused(data_dir, tmp_path):
  config = train_config(data_dir, validation_split='val')
  with pytest.raises(UsageError, match="has no split 'val'"):
    run_lib.train(config, tmp_path)


@pytest.mark.parametrize(('split', 'is_warned'), [('test[:1]', True), ('test', False)])
def test_a_validation_split_of_one_class_is_warned_of(
  data_dir, tmp_path, capsys, monkeypatch, split, is_warned
):
  def stop(run):
    raise KeyboardInterrupt

  monkeypatch.setattr(run_lib.loop, 'fit', stop)
  with pytest.raises(KeyboardInterrupt):
    run_lib.train(train_config(data_dir, validation_split=split), tmp_path / 'run')
  warned = f'{split} holds one class only, without excluded findings: the best epoch is'
  assert (warned in capsys.readouterr().err) is is_warned


@pytest.mark.slow
def test_a_validation_split_of_excluded_findings_only_is_not_used(
  data_dir, opened_dataset, tmp_path, capsys
):
  source = opened_dataset.open_split('test')
  excluded = fake_source.read_columns(source, ('excluded',))['excluded']
  position = [bool(value) for value in excluded].index(True)
  split = f'test[{position}:{position + 1}]'
  text = run_lib.train(train_config(data_dir, validation_split=split), tmp_path / 'run')
  assert (
    'holds excluded findings only: the last epoch is used' in capsys.readouterr().err
  )
  assert 'threshold 0.5 (no validation records of both classes)' in text


def test_without_a_validation_split_the_last_epoch_is_used(tmp_path, extract, capsys):
  scans = [fake_data.make_scan(seed, subset=0) for seed in (0, 1)]
  download = fake_data.write_download(tmp_path / 'luna16', scans)
  assert extract(download.folder, tmp_path / 'data', '--config=axial_50px_all') == 0
  capsys.readouterr()
  text = run_lib.train(train_config(tmp_path / 'data'), tmp_path / 'run')
  assert 'has no validation split: the last epoch is used' in capsys.readouterr().err
  assert text.startswith('nodule_net: 1 epoch, threshold 0.5 (')
  assert text.endswith(f'; model: {tmp_path / "run" / "model.keras"}')
  assert (tmp_path / 'run' / 'checkpoints' / 'best.keras').is_file()


@pytest.mark.parametrize(
  ('fields', 'message'),
  [
    ({'strategy': 'multiworker'}, 'use --strategy=mirrored'),
    ({'strategy': 'mirrored'}, '--batch_size=8 must be a multiple of the 3 devices'),
  ],
)
def test_a_run_that_cannot_start_leaves_the_folder_free(
  data_dir, tmp_path, monkeypatch, fields, message
):
  make = distribution.make_strategy

  class ThreeDevices:
    num_replicas_in_sync = 3

  monkeypatch.setattr(
    distribution,
    'make_strategy',
    lambda name: ThreeDevices() if name == 'mirrored' else make(name),
  )
  with pytest.raises(UsageError, match=message):
    run_lib.train(train_config(data_dir, **fields), tmp_path / 'run')
  assert not (tmp_path / 'run').exists()


def test_a_second_training_in_a_folder_is_refused(data_dir, tmp_path, monkeypatch):
  def fit(run):
    # What the first one does is not shown to the second.
    with pytest.raises(JobError, match=r'another training is writing .*run; wait'):
      run_lib.train(train_config(data_dir), tmp_path / 'run')
    raise JobError('both were started')

  monkeypatch.setattr(run_lib.loop, 'fit', fit)
  with pytest.raises(JobError, match='both were started'):
    run_lib.train(train_config(data_dir), tmp_path / 'run')
  assert not list((tmp_path / 'run').glob('*.lock'))


def write_predictions(path, data_dir):
  """Predictions of the training split, as luna16-evaluate writes them."""
  opened = dataset_lib.open_dataset(str(data_dir), 'luna16_patches/axial_50px_all')
  names = ('seriesuid', 'candidate_id', 'label')
  columns = fake_source.read_columns(opened.open_split('train'), names)
  rows = zip(*(columns[name] for name in names))
  lines = ['seriesuid,candidate_id,label,probability']
  lines += [f'{u.decode()},{c},{y},{k / 1000}' for k, (u, c, y) in enumerate(rows)]
  path.write_text('\n'.join(lines) + '\n')


@pytest.mark.slow
def test_hard_negatives_are_kept_and_the_output_is_calibrated(
  data_dir, tmp_path, capsys, monkeypatch
):
  monkeypatch.setattr(inference_model, '_MIN_CALIBRATION_RECORDS', 1)
  path = tmp_path / 'predictions.csv'
  write_predictions(path, data_dir)
  config = train_config(data_dir)
  inputs = dataclasses.replace(config.input, hard_negatives=str(path))
  config = dataclasses.replace(config, input=inputs)
  run_lib.train(config, tmp_path / 'run')
  assert 'calibration: platt; calibration error (ECE) on validation' in (
    capsys.readouterr().err
  )
  model = inference.load_model(tmp_path / 'run' / 'model.keras').keras_model
  assert model.get_layer('calibration').scale > 0
  # The rerun needs the file no more.
  path.unlink()
  run_lib.train(config, tmp_path / 'run')


def test_changed_versions_are_warned_of_once(data_dir, tmp_path, capsys, monkeypatch):
  def stop(run):
    raise KeyboardInterrupt

  monkeypatch.setattr(run_lib.loop, 'fit', stop)
  warnings = []
  for version in ('2.19.0', '2.21.0', '2.21.0'):
    versions = {'tensorflow': version}
    monkeypatch.setattr(run_versions, '_versions', lambda versions=versions: versions)
    with pytest.raises(KeyboardInterrupt):
      run_lib.train(train_config(data_dir), tmp_path / 'run')
    lines = capsys.readouterr().err.splitlines()
    warnings.append([line for line in lines if 'warning' in line])
  assert warnings == [
    [],
    [
      f'luna16-train: warning: {tmp_path / "run"}: continues with other versions or '
      'another precision than before: tensorflow 2.19.0 -> 2.21.0'
    ],
    [],
  ]


def test_splits_that_share_a_scan_are_refused(data_dir, tmp_path):
  config = train_config(
    data_dir, train_split='train[20:]', validation_split='train[:20]'
  )
  with pytest.raises(UsageError, match=r'records of \d+ scans? in common, .*shard'):
    run_lib.train(config, tmp_path / 'run')
  assert not (tmp_path / 'run').exists()
