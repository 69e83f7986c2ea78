import dataclasses
import json
import shutil

import fake_source
from hypothesis import given
from hypothesis import strategies as st
import keras
import numpy as np
import pytest

from luna_tfds.errors import JobError
from luna_tfds.errors import UsageError
from trainer import config as config_lib
from trainer import workdir as workdir_lib
from trainer.data import dataset as dataset_lib
from trainer.data.balance import plan_balance
from trainer.training import callbacks
from trainer.training import checkpoints
from trainer.training import distribution
from trainer.training import loop
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


def test_a_run_that_is_interrupted_continues_to_the_same_end(
  run_train, trained, tmp_path, monkeypatch, capfd, assert_same_weights
):
  """Ctrl-C in the middle of the second epoch, then the same command again."""

  class Interrupt(callbacks.SeedDropout):
    def on_train_batch_end(self, batch, logs=None):
      if int(self.model.optimizer.iterations) == 3:
        raise KeyboardInterrupt

  with monkeypatch.context() as patch:
    patch.setattr(callbacks, 'SeedDropout', Interrupt)
    assert run_train(tmp_path) == 130
  assert not (tmp_path / 'model.keras').exists()
  assert run_train(tmp_path) == 0
  assert 'continuing after epoch 1, step 1' in capfd.readouterr().err
  assert_same_weights(trained.last, tmp_path / 'checkpoints' / 'last.keras')
  history = workdir_lib.Workdir(tmp_path).read_history()
  assert [row['epoch'] for row in history] == [0, 1]
  assert history[1]['val_loss'] == trained.read_history()[1]['val_loss']


@pytest.fixture(scope='module')
def undisturbed(tmp_path_factory):
  """A finished run of two epochs of two steps, to compare with."""
  run = make_run(tmp_path_factory.mktemp('undisturbed'), **SMALL)
  loop.fit(run)
  return run


@pytest.mark.parametrize(
  ('name', 'hook', 'is_validated_later'),
  [
    # In the order in which they are called at the end of an epoch.
    ('StopOnNaN', 'on_test_begin', False),
    ('AverageWeights', 'on_test_begin', True),
    ('AverageWeights', 'on_test_end', True),
    ('SaveBest', 'on_epoch_end', True),
    ('WriteHistory', 'on_epoch_end', True),
    ('StopEarly', 'on_epoch_end', False),
  ],
)
def test_a_run_that_is_killed_at_the_end_of_an_epoch_loses_nothing(
  name,
  hook,
  is_validated_later,
  undisturbed,
  tmp_path,
  monkeypatch,
  capsys,
  assert_same_weights,
):
  run = make_run(tmp_path, **SMALL)

  def kill(self, *unused):
    raise RuntimeError('killed')

  with monkeypatch.context() as patch:
    patch.setattr(getattr(callbacks, name), hook, kill)
    with pytest.raises(RuntimeError, match='killed'):
      loop.fit(run)
  loop.fit(run)
  assert ('validating' in capsys.readouterr().err) == is_validated_later
  assert_same_run(run, undisturbed, assert_same_weights)


@pytest.mark.parametrize('hook', ['on_test_end', 'on_epoch_end'])
def test_an_interruption_in_validation_keeps_the_epoch(
  hook, undisturbed, tmp_path, monkeypatch, assert_same_weights
):
  run = make_run(tmp_path, **SMALL)

  def interrupt(self, *unused):
    raise KeyboardInterrupt

  with monkeypatch.context() as patch:
    patch.setattr(callbacks.AverageWeights, hook, interrupt)
    with pytest.raises(KeyboardInterrupt):
      loop.fit(run)
  loop.fit(run)
  assert_same_run(run, undisturbed, assert_same_weights)


def test_weights_that_are_not_finite_are_never_saved(tmp_path, monkeypatch):
  """The last update of the second epoch spoils them; a smaller learning rate helps."""
  run = make_run(tmp_path, **SMALL)
  run.workdir.prepare(run.config, 'fake', None)

  class Spoil(callbacks.CountSkippedSteps):
    def on_train_batch_end(self, batch, logs=None):
      if int(self.model.optimizer.iterations) == 4:
        kernel = self.model.trainable_variables[0]
        kernel.assign(np.full(kernel.shape, np.nan))

  with monkeypatch.context() as patch:
    patch.setattr(callbacks, 'CountSkippedSteps', Spoil)
    with pytest.raises(JobError, match='weights are not finite in epoch 2, step 2'):
      loop.fit(run)
  for path in (run.workdir.last, run.workdir.best):
    assert checkpoints.is_finite(keras.models.load_model(path))
  assert len(run.workdir.read_history()) == 1
  recipe = dataclasses.replace(run.config.recipe, learning_rate=1e-4)
  config = dataclasses.replace(run.config, recipe=recipe)
  run.workdir.prepare(config, 'fake', None)
  assert loop.fit(dataclasses.replace(run, config=config)) == 2
  # Another change is refused, now that this one works.
  with pytest.raises(UsageError, match='learning_rate'):
    run.workdir.prepare(run.config, 'fake', None)


def test_float16_finishes_and_resumes(tmp_path, monkeypatch, assert_same_weights):
  """Also if the optimizer skips steps, which it does not count."""
  fields = {**SMALL, 'precision': 'mixed_float16'}
  whole, stopped = (make_run(tmp_path / name, **fields) for name in ('a', 'b'))

  class Overflow(callbacks.SeedDropout):
    """Makes the loss scale overflow in the second step."""

    def on_train_batch_begin(self, batch, logs=None):
      optimizer = self.model.optimizer
      if int(optimizer.iterations) == 1 and float(optimizer.dynamic_scale) < 1e6:
        optimizer.dynamic_scale.assign(1e38)

  monkeypatch.setattr(callbacks, 'SeedDropout', Overflow)
  assert loop.fit(whole) == 2
  assert checkpoints.read_note(whole.workdir.last).skipped_steps > 0

  def interrupt(self, batch, logs=None):
    raise KeyboardInterrupt

  with monkeypatch.context() as patch:
    patch.setattr(callbacks.SaveLast, 'on_train_batch_end', interrupt)
    with pytest.raises(KeyboardInterrupt):
      loop.fit(stopped)
  assert loop.fit(stopped) == 2
  assert [row['epoch'] for row in stopped.workdir.read_history()] == [0, 1]
  assert_same_weights(whole.workdir.last, stopped.workdir.last)


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
  assert len(workdir_lib.Workdir(folder).read_history()) == 3
  # It is written with the present names.
  written = json.loads(path.read_text())['config']
  assert written['input']['augment']['flips_and_rot90']
  assert written['recipe']['epochs'] == 3


def use_network_that_gives_nan(monkeypatch):
  from model.networks import registry

  def build(name, image_shape, window_hu):
    image = keras.Input(image_shape, name='image')
    x = keras.layers.Flatten()(image)
    x = keras.layers.Lambda(lambda v: v * float('nan'))(x)
    logit = keras.layers.Dense(1, name='logit')(x)
    return keras.Model(image, logit)

  monkeypatch.setattr(registry, 'build', build)


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


def make_rows(count, rng, *, scrambled):
  """Patches of noise; those of nodules have a bright ball in the centre.

  Scrambled labels have nothing to do with the ball.
  """
  offsets = np.indices((16, 16)) - 7.5
  ball = 700 * (np.hypot(*offsets) < 4)
  rows = []
  for _ in range(count):
    has_ball = rng.random() < 0.5
    image = rng.normal(-700, 200, (16, 16)) + ball * has_ball
    label = rng.random() < 0.5 if scrambled else has_ball
    rows.append((image.astype(np.int16)[..., np.newaxis], int(label), False))
  return rows


# The shortest run with two epochs of more than one step.
SMALL = {'epochs': 2, 'steps': 2, 'deterministic': True}


def assert_same_run(run, other, assert_same_weights):
  for name in ('last', 'best'):
    assert_same_weights(getattr(run.workdir, name), getattr(other.workdir, name))
  assert run.workdir.history.read_text() == other.workdir.history.read_text()


def make_run(
  folder,
  *,
  scrambled=False,
  patience=0,
  epochs=3,
  steps=20,
  precision='float32',
  **fields,
):
  rng = np.random.default_rng(5)
  (folder / 'shards').mkdir(parents=True)
  train, validation = (
    fake_source.write_records(
      folder / 'shards', make_rows(count, rng, scrambled=scrambled), 2, split
    )
    for split, count in (('train', 400), ('validation', 200))
  )
  config = config_lib.TrainConfig(
    dataset='fake',
    data_dir='',
    model='nodule_net',
    recipe=config_lib.Recipe(
      optimizer='adamw',
      learning_rate=2e-3,
      schedule='cosine',
      ema=0.9,
      epochs=epochs,
      steps_per_epoch=steps,
    ),
    input=fake_source.input_config(batch_size=32),
    precision=precision,
    patience=patience,
    **fields,
  )
  workdir = workdir_lib.Workdir(folder / 'run')
  workdir.last.parent.mkdir(parents=True)
  balance = plan_balance(train, config.input)
  return loop.TrainingRun(config, train, balance, validation, workdir)


@pytest.mark.parametrize('scrambled', [False, True])
def test_training_learns_what_can_be_learned(tmp_path, scrambled):
  run = make_run(tmp_path, scrambled=scrambled)
  assert loop.fit(run) == 3
  areas = [row['val_roc_auc'] for row in run.workdir.read_history()]
  assert len(areas) == 3
  if scrambled:
    # 200 records: the standard error of 0.5 is about 0.04.
    assert max(areas) < 0.7
  else:
    assert areas[-1] > 0.95


def test_training_stops_early_and_knows_it_has_stopped(tmp_path, capsys):
  run = make_run(tmp_path, patience=1, epochs=50, steps=1)
  done = loop.fit(run)
  assert 1 < done < 50
  values = [row['val_pr_auc'] for row in run.workdir.read_history()]
  assert len(values) == done
  # The last epoch is the first that is no better than all before it.
  for k in range(1, done):
    assert (values[k] <= max(values[:k])) == (k == done - 1)
  before = run.workdir.last.stat().st_mtime_ns
  assert loop.fit(run) == done
  assert run.workdir.last.stat().st_mtime_ns == before


def test_the_balance_is_printed(tmp_path, capsys):
  run = make_run(tmp_path, epochs=1, steps=1)
  loop.fit(run)
  first = capsys.readouterr().err.splitlines()[0]
  assert first.startswith('balance: rejection, 50.0% nodules; rejection reads 1.')
  assert first.endswith('; held in memory')


def test_a_batch_that_the_devices_cannot_share_is_refused(tmp_path, monkeypatch):
  run = make_run(tmp_path, strategy='mirrored')

  class ThreeDevices:
    num_replicas_in_sync = 3

  monkeypatch.setattr(distribution, 'make_strategy', lambda name: ThreeDevices())
  with pytest.raises(UsageError, match=r'--batch_size=32 must be a multiple of the 3'):
    loop.check(run)
