"""Readers of the text files of a training run: settings, history, predictions."""

import json
import math
import shutil

import input_files
import mutations
from readers import Reader
from readers import mutate_one

from luna_tfds import patches
from trainer import config as config_lib
from trainer import workdir as workdir_lib
from trainer.data import hard_negatives
from trainer.history import History
from trainer.scoring.calibration_result import CalibrationResult
from trainer.scoring.operating_point import OperatingPoint

_CONFIG = config_lib.TrainConfig(
  dataset='luna16_patches/axial_50px',
  data_dir='/data',
  model='nodule_net',
  recipe=config_lib.Recipe(),
  input=config_lib.InputConfig(batch_size=96),
)
_POINT = OperatingPoint('max_f1', 0.5, 'validation', False, 0.5, 0.1)
_CALIBRATION = {
  'method': 'temperature',
  'fitted_on': 'validation',
  'records': 100,
  'nodules': 25,
  'methods': [
    {'method': 'prior_shift', 'scale': 1.0, 'offset': -1.5, 'ece': 0.04},
    {'method': 'temperature', 'scale': 0.5, 'offset': -0.75, 'ece': None},
  ],
}
_HISTORY = b'epoch,loss,val_pr_auc\n0,0.5,0.25\n1,0.25,NA\n'
_PREDICTIONS = (
  b'seriesuid,candidate_id,label,probability\na,0,0,0.9\na,1,1,0.8\nb,2,0,0\n'
)
_MODULES = ('trainer.config', 'trainer.workdir', 'trainer.scoring.operating_point')


def _config_seeds(folder):
  workdir_lib.Workdir(folder).prepare(_CONFIG, 'abc', patches.PatchSpec())
  (folder / 'model.keras').touch()
  (folder / 'operating_point.json').write_text('{}')
  return [input_files.read(folder)]


def _mutate_config(files, rng):
  changed = mutations.mutate_json(files['config.json'], rng)
  return {**files, 'config.json': changed}


def _read_config(folder):
  workdir, config = workdir_lib.open_workdir(folder)
  assert config_lib.TrainConfig.from_json(config.to_json()) == config
  assert isinstance(workdir.dataset_fingerprint, str)
  assert len(workdir.patch_spec().image_shape) in (3, 4)
  workdir_lib.flatten(config.to_json())


def _read_operating_point(folder):
  point = OperatingPoint.read(folder / 'operating_point.json')
  assert math.isfinite(point.threshold)


def _read_calibration(folder):
  result = CalibrationResult.read(folder / 'calibration.json')
  str(result)
  assert all(1 / fit.scale > 0 for fit in result.methods)


def _read_history(folder):
  history = History(folder / 'history.csv')
  history.read()
  history.truncate(1)


def _seeds_of(name, content):
  def make_seeds(folder):
    shutil.rmtree(folder, ignore_errors=True)
    return [{name: content}]

  return make_seeds


_ALL = (
  Reader('config', _config_seeds, _mutate_config, _read_config, _MODULES),
  Reader(
    'operating_point',
    _seeds_of('operating_point.json', json.dumps(vars(_POINT)).encode()),
    mutate_one(_json=mutations.mutate_json),
    _read_operating_point,
    _MODULES,
  ),
  Reader(
    'calibration',
    _seeds_of('calibration.json', json.dumps(_CALIBRATION).encode()),
    mutate_one(_json=mutations.mutate_json),
    _read_calibration,
    ('trainer.scoring.calibration_result',),
  ),
  Reader(
    'history',
    _seeds_of('history.csv', _HISTORY),
    mutate_one(_csv=mutations.mutate_csv),
    _read_history,
    ('trainer.history',),
  ),
  Reader(
    'predictions',
    _seeds_of('predictions.csv', _PREDICTIONS),
    mutate_one(_csv=mutations.mutate_csv),
    lambda folder: hard_negatives.read_hard_negatives(str(folder / 'predictions.csv')),
    ('trainer.data.hard_negatives',),
  ),
)
READERS = {reader.name: reader for reader in _ALL}
