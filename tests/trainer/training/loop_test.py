import json

import keras
import numpy as np
import pytest

from luna_tfds.errors import JobError
from trainer import config as config_lib
from trainer import train
from trainer import workdir as workdir_lib
from trainer.data import split_source
from trainer.scoring import inference
from trainer.training import callbacks

FEW = ['--epochs=2', '--steps_per_epoch=2', '--batch_size=8', '--precision=float32']


@pytest.fixture(scope='module')
def arguments(data_dir):
  return [f'--data_dir={data_dir}', '--dataset=luna16_patches/axial_50px_all', *FEW]


def run(arguments, workdir, *more):
  return train.run(['luna16-train', *arguments, f'--workdir={workdir}', *more])


@pytest.fixture(scope='module')
def trained(arguments, tmp_path_factory):
  """A run of two short epochs."""
  folder = tmp_path_factory.mktemp('run')
  assert run(arguments, folder, '--deterministic') == 0
  return workdir_lib.Workdir(folder)


def weights(path):
  return keras.models.load_model(path, compile=False).get_weights()


def assert_same_weights(path_a, path_b):
  for a, b in zip(weights(path_a), weights(path_b), strict=True):
    np.testing.assert_array_equal(a, b)


def test_workdir_holds_what_is_promised(trained):
  for path in (trained.model, trained.best, trained.last, trained.operating_point):
    assert path.is_file()
  assert [row['epoch'] for row in trained.read_history()] == [0, 1]
  assert {'loss', 'val_loss', 'val_pr_auc'} <= set(trained.read_history()[0])
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
  assert config_lib.load(trained.config).to_json() == {
    **fields['config'],
    'recipe': fields['config']['recipe'],
  }


def test_model_undoes_the_prior_of_the_balanced_stream(trained, data_dir):
  builder = split_source.open_builder(str(data_dir), 'luna16_patches/axial_50px_all')
  source = split_source.open_source(builder, 'train')
  point = json.loads(trained.operating_point.read_text())
  assert point['trained_prior'] == 0.5
  assert point['deployed_prior'] == pytest.approx(source.prior)
  model = keras.models.load_model(trained.model, compile=False)
  network = keras.models.load_model(trained.best, compile=False)
  images = inference.images_at(source, [0, 1, 2])
  odds = source.prior / (1 - source.prior)
  logits = np.asarray(network(images), np.float64)[:, 0] + np.log(odds)
  expected = 1 / (1 + np.exp(-logits))
  np.testing.assert_allclose(model(images)[:, 0], expected, rtol=1e-5)
  np.testing.assert_allclose(inference.predict([model], images), expected, rtol=1e-5)


@pytest.mark.slow
def test_same_seed_same_run(arguments, trained, tmp_path):
  assert run(arguments, tmp_path, '--deterministic') == 0
  assert_same_weights(trained.last, tmp_path / 'checkpoints' / 'last.keras')


def test_run_that_is_interrupted_goes_on_to_the_same_end(
  arguments, trained, tmp_path, monkeypatch, capfd
):
  """Ctrl-C in the middle of the second epoch, then the same command again."""

  class Interrupt(callbacks.SeedDropout):
    def on_train_batch_end(self, batch, logs=None):
      if int(self.model.optimizer.iterations) == 3:
        raise KeyboardInterrupt

  with monkeypatch.context() as patch:
    patch.setattr(callbacks, 'SeedDropout', Interrupt)
    assert run(arguments, tmp_path, '--deterministic') == 130
  assert not (tmp_path / 'model.keras').exists()
  assert run(arguments, tmp_path, '--deterministic') == 0
  assert 'going on after epoch 1, step 1' in capfd.readouterr().err
  assert_same_weights(trained.last, tmp_path / 'checkpoints' / 'last.keras')
  history = workdir_lib.Workdir(tmp_path).read_history()
  assert [row['epoch'] for row in history] == [0, 1]
  assert history[1]['val_loss'] == trained.read_history()[1]['val_loss']


@pytest.mark.slow
def test_run_that_is_killed_after_an_epoch_goes_on_to_the_same_end(
  arguments, trained, tmp_path, monkeypatch
):
  class Kill(callbacks.StopEarly):
    def on_epoch_end(self, epoch, logs=None):
      raise JobError('killed')

  with monkeypatch.context() as patch:
    patch.setattr(callbacks, 'StopEarly', Kill)
    assert run(arguments, tmp_path, '--deterministic') == 1
  assert run(arguments, tmp_path, '--deterministic') == 0
  assert_same_weights(trained.last, tmp_path / 'checkpoints' / 'last.keras')
  assert_same_weights(trained.best, tmp_path / 'checkpoints' / 'best.keras')


def test_finished_run_is_not_trained_again(arguments, trained):
  before = trained.last.stat().st_mtime_ns
  assert run(arguments, trained.path, '--deterministic') == 0
  assert trained.last.stat().st_mtime_ns == before


def test_other_settings_in_the_same_workdir_are_refused(arguments, trained, error_line):
  assert run(arguments, trained.path, '--deterministic', '--seed=7') == 2
  assert 'input.seed=0, not 7' in error_line()


def test_nan_loss_stops_and_names_the_records(
  arguments, data_dir, tmp_path, monkeypatch, capfd
):
  use_network_that_gives_nan(monkeypatch)
  assert run(arguments, tmp_path) == 1
  last = capfd.readouterr().err.splitlines()[-1]
  assert 'the loss is nan in epoch 1, step 1' in last
  builder = split_source.open_builder(str(data_dir), 'luna16_patches/axial_50px_all')
  scores = split_source.open_source(builder, 'train')
  stored = set()
  from trainer.data import input_pipeline

  for batch in input_pipeline.evaluation_batches(
    scores, names=('seriesuid', 'candidate_id')
  ):
    pairs = zip(batch['seriesuid'].numpy(), batch['candidate_id'].numpy())
    stored |= {f'{s.decode()}/{c}' for s, c in pairs}
  named = last.split('Records of the batch: ')[1].split()
  # Some records share their pixels: patches that lie outside of their tiny scans.
  assert set(named) < stored
  assert named


def use_network_that_gives_nan(monkeypatch):
  from model.networks import registry

  def build(name, image_shape):
    image = keras.Input(image_shape, name='image')
    x = keras.layers.Flatten()(image)
    x = keras.layers.Lambda(lambda v: v * float('nan'))(x)
    logit = keras.layers.Dense(1, name='logit')(x)
    return keras.Model(image, logit)

  monkeypatch.setattr(registry, 'build', build)


def test_early_stopping_knows_earlier_runs():
  assert not callbacks.should_stop([], 3)
  assert not callbacks.should_stop([0.5, 0.4, 0.3], 3)
  assert callbacks.should_stop([0.5, 0.4, 0.3, 0.2], 3)
  assert not callbacks.should_stop([0.5, 0.4, 0.3, 0.2], 0)
  history = [{'epoch': i, callbacks.MONITOR: v} for i, v in enumerate((0.5, 0.4))]
  callback = callbacks.StopEarly(2, history)
  callback.set_model(keras.Sequential())
  callback.on_epoch_end(2, {callbacks.MONITOR: 0.45})
  assert callback.model.stop_training


def test_a_checkpoint_is_whole_or_not_there(tmp_path, monkeypatch):
  network = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
  path = tmp_path / 'last.keras'
  callbacks.save_atomically(network, path)
  good = path.read_bytes()

  def broken(self, target):
    target.write_bytes(b'half')
    raise OSError('no space left on device')

  monkeypatch.setattr(type(network), 'save', broken)
  with pytest.raises(OSError, match='no space'):
    callbacks.save_atomically(network, path)
  assert path.read_bytes() == good


@pytest.mark.parametrize(
  ('flag', 'told'),
  [
    ('--batch_size=0', 'batch_size must be at least 1. Received: 0'),
    ('--epochs=0', 'epochs must be at least 1'),
    ('--model=resnet', 'article_cnn, nodule_net'),
    ('--augment=crazy', 'standard'),
    ('--balance=sometimes', 'rejection'),
    ('--positive_fraction=1', 'positive_fraction'),
    ('--threshold=best', 'max_f1'),
    ('--learning_rate=0', 'learning_rate must be positive'),
    ('--augment_scale=-1', 'scale must be 0 or more'),
    ('--precision=float8', 'mixed_bfloat16'),
    ('--strategy=multiworker', 'mirrored'),
    ('--train_split=trian', 'no split'),
    ('--epohcs=3', 'epochs'),
    ('--batch_size=many', 'batch_size'),
  ],
)
def test_bad_flag_is_told_in_one_line(arguments, tmp_path, error_line, flag, told):
  assert run(arguments, tmp_path, flag) == 2
  assert told in error_line()


def test_dataset_that_was_never_extracted(tmp_path, error_line):
  code = train.run(
    ['luna16-train', f'--data_dir={tmp_path}', f'--workdir={tmp_path / "run"}']
  )
  assert code == 2
  assert 'luna16-extract' in error_line()


@pytest.mark.slow
def test_training_on_two_devices(arguments, tmp_path, fresh_python):
  """Two virtual CPU devices must be set up before TensorFlow starts."""
  code = """
import json, sys
import tensorflow as tf
cpu = tf.config.list_physical_devices('CPU')[0]
two = [tf.config.LogicalDeviceConfiguration()] * 2
tf.config.set_logical_device_configuration(cpu, two)
from trainer import train
from trainer.training import distribution
replicas = distribution.make_strategy('mirrored').num_replicas_in_sync
code = train.run(['luna16-train', *sys.argv[1:]])
print(json.dumps([replicas, code]))
"""
  flags = [*arguments, f'--workdir={tmp_path}', '--strategy=mirrored']
  assert fresh_python(code, *flags) == [2, 0]
  assert (tmp_path / 'model.keras').is_file()
