import dataclasses
import json
import shutil

import fake_run
import fake_source
from hypothesis import given
from hypothesis import strategies as st
import keras
import numpy as np
import pytest

from luna_tfds.errors import UsageError
from model.networks import registry
from trainer import workdir as workdir_lib
from trainer.data import dataset as dataset_lib
from trainer.data import input_pipeline
from trainer.training import checkpoints
from trainer.training import determinism
from trainer.training import distribution
from trainer.training import loop
from trainer.training import network as network_lib
from trainer.training.loop import FitRange


@pytest.mark.parametrize(
  ('done', 'expected'),
  [
    (0, FitRange(epoch=0, step=0, last_epoch=3, steps_per_epoch=10)),
    (20, FitRange(epoch=2, step=0, last_epoch=3, steps_per_epoch=10)),
    # An interrupted epoch is finished first, alone.
    (7, FitRange(epoch=0, step=7, last_epoch=1, steps_per_epoch=10)),
    (25, FitRange(epoch=2, step=5, last_epoch=3, steps_per_epoch=10)),
    # Nothing is left to do.
    (30, FitRange(epoch=3, step=0, last_epoch=3, steps_per_epoch=10)),
  ],
)
def test_range_after_some_steps(done, expected):
  assert FitRange.after(done, steps_per_epoch=10, epochs=3) == expected


@given(st.integers(1, 12), st.integers(1, 6), st.data())
def test_ranges_do_every_step_once(steps_per_epoch, epochs, data):
  """However often a run is interrupted, its ranges meet and end with the last epoch."""
  total, done = steps_per_epoch * epochs, 0
  while done < total:
    fit_range = FitRange.after(done, steps_per_epoch, epochs)
    assert fit_range.epoch * steps_per_epoch + fit_range.step == done
    end = fit_range.last_epoch * steps_per_epoch
    assert done < end <= total
    # The whole range, or up to where it is interrupted.
    done = data.draw(st.integers(done + 1, end))
  assert FitRange.after(total, steps_per_epoch, epochs).epoch == epochs


@pytest.mark.slow
def test_a_run_that_is_interrupted_continues_to_the_same_end(
  run_train, trained, tmp_path, monkeypatch, capfd, assert_same_weights
):
  """Ctrl-C in the middle of the second epoch, then the same command again."""

  class Interrupt(determinism.SeedDropout):
    def on_train_batch_end(self, batch, logs=None):
      if int(self.model.optimizer.iterations) == 3:
        raise KeyboardInterrupt

  with monkeypatch.context() as patch:
    patch.setattr(determinism, 'SeedDropout', Interrupt)
    assert run_train(tmp_path) == 130
  assert not (tmp_path / 'model.keras').exists()
  assert run_train(tmp_path) == 0
  assert 'continuing after epoch 1, step 1' in capfd.readouterr().err
  assert_same_weights(trained.last, tmp_path / 'checkpoints' / 'last.keras')
  history = workdir_lib.Workdir(tmp_path).history.read()
  assert [row['epoch'] for row in history] == [0, 1]
  assert history[1]['val_loss'] == trained.history.read()[1]['val_loss']


@pytest.mark.slow
def test_runs_of_one_seed_are_equal(run_train, trained, tmp_path, assert_same_weights):
  assert run_train(tmp_path) == 0
  assert_same_weights(trained.last, tmp_path / 'checkpoints' / 'last.keras')


def test_a_finished_run_is_not_trained_again(run_train, trained):
  before = trained.last.stat().st_mtime_ns
  assert run_train(trained.path) == 0
  assert trained.last.stat().st_mtime_ns == before


def test_other_settings_in_the_same_workdir_are_refused(run_train, trained, error_line):
  assert run_train(trained.path, '--seed=7') == 2
  assert 'input.seed=0, not 7' in error_line()


@pytest.mark.slow
def test_a_run_of_version_1_0_0_is_continued(run_train, trained, tmp_path, capfd):
  folder = tmp_path / 'run'
  shutil.copytree(trained.path, folder)
  path = folder / 'config.json'
  fields = json.loads(path.read_text())
  augment = fields['config']['input']['augment']
  for old, new in {
    'turns': 'flips_and_rot90',
    'mirror': 'flip_left_right',
    'intensity': 'contrast_brightness',
    'soften': 'sharpness',
  }.items():
    augment[old] = augment.pop(new)
  path.write_text(json.dumps(fields))
  assert run_train(folder, '--epochs=3') == 0
  assert 'continuing after epoch 2, step 0' in capfd.readouterr().err
  assert len(workdir_lib.Workdir(folder).history.read()) == 3
  # It is written with the present names.
  written = json.loads(path.read_text())['config']
  assert written['input']['augment']['flips_and_rot90']
  assert written['recipe']['epochs'] == 3


def use_network_that_gives_nan(monkeypatch):
  def build(name, image_shape, window_hu):
    image = keras.Input(image_shape, name='image')
    x = keras.layers.Flatten()(image)
    x = keras.layers.Lambda(lambda v: v * float('nan'))(x)
    logit = keras.layers.Dense(1, name='logit')(x)
    return keras.Model(image, logit)

  monkeypatch.setattr(registry, 'build', build)


@keras.saving.register_keras_serializable(package='tests')
class NaNInValidation(keras.layers.Layer):
  """Passes its input on; gives NaN outside training."""

  def call(self, x, training=False):
    return x if training else x * float('nan')


def test_without_a_finite_validation_loss_the_reason_is_told(
  run_train, tmp_path, monkeypatch, capfd
):
  def build(name, image_shape, window_hu):
    image = keras.Input(image_shape, name='image')
    x = keras.layers.Rescaling(1e-4)(keras.layers.Flatten()(image))
    logit = keras.layers.Dense(1, name='logit')(NaNInValidation()(x))
    return keras.Model(image, logit)

  monkeypatch.setattr(registry, 'build', build)
  for _ in range(2):  # the same command again too
    assert run_train(tmp_path, '--epochs=1') == 1
    last = capfd.readouterr().err.splitlines()[-1]
    assert 'no epoch has a finite validation loss' in last
    assert 'another --workdir with a lower --learning_rate' in last
  assert len(workdir_lib.Workdir(tmp_path).history.read()) == 1


def test_a_missing_best_checkpoint_is_named(run_train, trained, tmp_path, capfd):
  workdir = workdir_lib.Workdir(shutil.copytree(trained.path, tmp_path / 'run'))
  workdir.best.unlink()
  assert run_train(workdir.path) == 1
  last = capfd.readouterr().err.splitlines()[-1]
  assert f'{workdir.best}: the best checkpoint is missing' in last


def test_nan_loss_stops_and_names_the_records(
  run_train, data_dir, tmp_path, monkeypatch, capfd
):
  use_network_that_gives_nan(monkeypatch)
  assert run_train(tmp_path) == 1
  last = capfd.readouterr().err.splitlines()[-1]
  assert 'the loss is nan in epoch 1, step 1' in last
  source = dataset_lib.open_dataset(str(data_dir), 'axial_50px_all').open_split('train')
  columns = fake_source.read_columns(source, ('seriesuid', 'candidate_id'))
  stored = {
    f'{uid.decode()}/{candidate}'
    for uid, candidate in zip(columns['seriesuid'], columns['candidate_id'])
  }
  named = last.split('Records of the batch: ')[1].split()
  # Some records share their pixels: patches that lie outside of their tiny scans.
  assert named
  assert set(named) < stored


@pytest.mark.slow
@pytest.mark.parametrize('scrambled', [False, True])
def test_training_learns_what_can_be_learned(tmp_path, scrambled):
  run = fake_run.make_run(tmp_path, scrambled=scrambled)
  assert loop.fit(run) == 3
  areas = [row['val_roc_auc'] for row in run.workdir.history.read()]
  assert len(areas) == 3
  if scrambled:
    # 200 records: the standard error of 0.5 is about 0.04.
    assert max(areas) < 0.7
  else:
    assert areas[-1] > 0.95


@pytest.mark.slow
def test_training_stops_early_and_knows_it_has_stopped(tmp_path, capsys):
  run = fake_run.make_run(tmp_path, patience=1, epochs=50, steps=1)
  done = loop.fit(run)
  assert 1 < done < 50
  values = [row['val_pr_auc'] for row in run.workdir.history.read()]
  assert len(values) == done
  # The last epoch is the first that is no better than all before it.
  for k in range(1, done):
    assert (values[k] <= max(values[:k])) == (k == done - 1)
  before = run.workdir.last.stat().st_mtime_ns
  assert loop.fit(run) == done
  assert run.workdir.last.stat().st_mtime_ns == before


@pytest.mark.slow
def test_the_balance_is_printed(tmp_path, capsys):
  run = fake_run.make_run(tmp_path, epochs=1, steps=1)
  loop.fit(run)
  first = capsys.readouterr().err.splitlines()[0]
  assert first.startswith(
    'balance: rejection, 50.0% of class nodule; rejection reads 1.'
  )
  assert first.endswith('; held in memory')


def test_the_last_epochs_of_a_run_are_without_distortion(tmp_path, monkeypatch):
  run = fake_run.make_run(tmp_path, epochs=4)
  recipe = dataclasses.replace(run.config.recipe, undistorted_share=0.25)
  run = dataclasses.replace(run, config=dataclasses.replace(run.config, recipe=recipe))

  class Stop(Exception):
    pass

  def train_batches(*arguments, undistorted_from_epoch):
    raise Stop(undistorted_from_epoch)

  monkeypatch.setattr(input_pipeline, 'train_batches', train_batches)
  with pytest.raises(Stop) as stop:
    loop.fit(run)
  assert stop.value.args == (3,)


def test_a_batch_that_the_devices_cannot_share_is_refused(tmp_path, monkeypatch):
  run = fake_run.make_run(tmp_path, strategy='mirrored')

  class ThreeDevices:
    num_replicas_in_sync = 3

  monkeypatch.setattr(distribution, 'make_strategy', lambda name: ThreeDevices())
  with pytest.raises(UsageError, match=r'--batch_size=32 must be a multiple of the 3'):
    loop.check(run)


@pytest.mark.slow
@pytest.mark.parametrize('labels_of_excluded', [(), (0,) * 10])
def test_one_class_in_validation_does_not_choose_the_first_epoch(
  tmp_path, labels_of_excluded
):
  run = fake_run.make_run(tmp_path, epochs=3, steps=5)
  noise = np.random.default_rng(6).normal(-700, 200, (50, 16, 16, 1)).astype(np.int16)
  rows = [(image, 1, False) for image in noise[:40]]
  rows += [(image, label, True) for image, label in zip(noise[40:], labels_of_excluded)]
  (tmp_path / 'one').mkdir()
  one_class = fake_source.write_records(tmp_path / 'one', rows, 1, 'validation')
  loop.fit(dataclasses.replace(run, validation=one_class))
  losses = [row['val_loss'] for row in run.workdir.history.read()]
  assert min(losses) < losses[0]
  note = checkpoints.read_note(run.workdir.best)
  assert note.metrics['val_loss'] == pytest.approx(min(losses))


def test_excluded_findings_do_not_count_in_validation(tmp_path):
  rows = fake_run.make_rows(60, np.random.default_rng(3), scrambled=True)
  rows = [(x, label, not label and k % 3 == 0) for k, (x, label, _) in enumerate(rows)]
  kept = [row for row in rows if not row[2]]
  assert len(kept) < 60
  run = fake_run.make_run(tmp_path / 'run')
  network = network_lib.build_network(run.config, (16, 16, 1), 0.3, 1)
  found = []
  for name, some in (('all', rows), ('kept', kept)):
    (tmp_path / name).mkdir()
    validation = fake_source.write_records(tmp_path / name, some, 2, 'validation')
    batches = loop._validation_batches(validation, 1)
    found.append(network.evaluate(batches, return_dict=True, verbose=0))
  assert set(found[0]) == {'loss', 'accuracy', 'roc_auc', 'pr_auc'}
  assert found[0] == pytest.approx(found[1], rel=1e-5)
