import dataclasses
import json
import shutil

import fake_source
import keras
import numpy as np
import pytest
from scipy import special

from trainer import config as config_lib
from trainer import workdir as workdir_lib
from trainer.data import dataset as dataset_lib
from trainer.data import single_records
from trainer.scoring import calibration
from trainer.scoring import inference
from trainer.scoring import scored_records
from trainer.scoring.calibration_result import CalibrationResult
from trainer.training import inference_model
from trainer.training import run as run_lib
from trainer.training.inference_model import build_inference_model


def network_of_one_weight():
  """A network whose logit is the mean of the image."""
  image = keras.Input((2, 2, 1), name='image')
  logit = keras.layers.Dense(
    1, kernel_initializer=keras.initializers.Constant(0.25), name='logit'
  )(keras.layers.Flatten()(image))
  return keras.Model(image, logit)


def probability_at(model, value):
  return float(model(np.full((1, 2, 2, 1), value, np.float32))[0, 0])


@pytest.mark.parametrize(
  ('trained_prior', 'deployed_prior', 'expected'),
  [
    # A logit of log 3 is a probability of 3/4, odds of 3 : 1.
    (0.5, 0.5, 0.75),
    # Odds of 1 : 9 in place of 1 : 1 make 3 : 9.
    (0.5, 0.1, 0.25),
    (0.1, 0.5, 27 / 28),
    # A stream of one class: there is nothing to undo.
    (0.0, 0.1, 0.75),
    (0.5, 0.0, 0.75),
  ],
)
def test_prior_of_the_training_stream_is_undone(
  trained_prior, deployed_prior, expected
):
  model = build_inference_model(network_of_one_weight(), trained_prior, deployed_prior)
  assert probability_at(model, np.log(3)) == pytest.approx(expected, rel=1e-5)
  assert model.output.dtype == 'float32'


def test_model_is_the_same_after_saving(tmp_path):
  model = build_inference_model(network_of_one_weight(), 0.5, 0.1)
  model.save(tmp_path / 'model.keras')
  loaded = inference.load_model(tmp_path / 'model.keras').keras_model
  for value in (-3.0, 0.5, 20.0):
    assert probability_at(loaded, value) == probability_at(model, value)


def test_inference_model_of_a_run(trained, data_dir):
  dataset = dataset_lib.open_dataset(str(data_dir), 'axial_50px_all')
  source = dataset.open_split('train')
  point = json.loads(trained.operating_point.read_text())
  assert point['trained_prior'] == 0.5
  # Of the records that the headline metrics count.
  columns = fake_source.read_columns(source, ('label', 'excluded'))
  labels = np.array(columns['label'])[~np.array(columns['excluded'])]
  assert len(labels) < source.num_records
  assert point['deployed_prior'] == pytest.approx(labels.mean())
  assert point['rule'] == 'max_f1'
  assert 0 <= point['threshold'] <= 1
  network = keras.models.load_model(trained.best, compile=False)
  images = single_records.read_images(source, [0, 1, 2])
  # From even odds to those of these records.
  shift = special.logit(labels.mean())
  logits = np.asarray(network(images), np.float64)[:, 0] + shift
  expected = 1 / (1 + np.exp(-logits))
  model = inference.load_model(trained.model)
  np.testing.assert_allclose(model.keras_model(images)[:, 0], expected, rtol=1e-5)
  np.testing.assert_allclose(
    inference.mean_probabilities([model], images), expected, rtol=1e-5
  )


@pytest.fixture
def rewrite(trained, tmp_path, monkeypatch):
  """Returns a function: writes the inference model of the run again.

  The few nodules of the validation split are enough here.
  """
  monkeypatch.setattr(inference_model, '_MIN_CALIBRATION_RECORDS', 1)
  workdir = workdir_lib.Workdir(shutil.copytree(trained.path, tmp_path / 'run'))

  def run(**changes):
    config = dataclasses.replace(config_lib.load(workdir.config), **changes)
    run_lib.train(config, workdir.path)
    return workdir

  return run


@pytest.mark.parametrize('method', ['temperature', 'platt'])
def test_fitted_calibration_is_part_of_the_model(
  rewrite, trained, data_dir, method, capsys
):
  workdir = rewrite(calibration=method, deployed_prior=0.3)
  dataset = dataset_lib.open_dataset(str(data_dir), 'axial_50px_all')
  validation = dataset.open_split('validation')
  network = keras.models.load_model(trained.best, compile=False)
  plain = inference.InferenceModel(build_inference_model(network))
  records = scored_records.score_split([plain], validation)
  logit = calibration.logits(records.probability)
  kept = ~records.excluded
  assert not kept.all()
  fitted = calibration.fit(
    method, calibration.LabelledLogits(records.label[kept], logit[kept], 0.5)
  )
  shift = special.logit(0.3) - special.logit(records.label[kept].mean())
  model = inference.load_model(workdir.model)
  found = scored_records.score_split([model], validation).probability
  expected = special.expit(fitted.scale * logit + fitted.offset + shift)
  np.testing.assert_allclose(found, expected, rtol=1e-4)

  result = CalibrationResult.read(workdir.calibration)
  assert result.method == method
  assert result.chosen.map == fitted
  assert (result.fitted_on, result.records) == ('validation', kept.sum())
  assert [m.method for m in result.methods] == ['prior_shift', 'temperature', 'platt']
  assert f'calibration: {method}; calibration error (ECE) on validation' in (
    capsys.readouterr().err
  )


def test_default_calibration_is_the_prior_shift_and_the_others_are_compared(
  rewrite, trained, assert_same_weights
):
  workdir = rewrite()
  result = CalibrationResult.read(workdir.calibration)
  assert result.method == 'prior_shift'
  assert len(result.methods) == 3
  names = [
    [layer.name for layer in keras.models.load_model(path, compile=False).layers]
    for path in (workdir.model, trained.model)
  ]
  assert names[0] == names[1]
  assert 'calibration' not in names[0]
  assert workdir.operating_point.read_bytes() == trained.operating_point.read_bytes()


def test_too_few_records_leave_the_prior_shift(rewrite, monkeypatch, capsys):
  monkeypatch.setattr(inference_model, '_MIN_CALIBRATION_RECORDS', 1000)
  workdir = rewrite(calibration='temperature')
  warning = 'luna16-train: warning: the probabilities are not calibrated by temperature'
  assert warning in capsys.readouterr().err
  result = CalibrationResult.read(workdir.calibration)
  assert (result.method, result.methods) == ('prior_shift', ())
