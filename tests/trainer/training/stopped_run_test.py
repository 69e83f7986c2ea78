"""A run that is stopped anywhere ends as one that was not."""

import dataclasses
import shutil

import fake_run
import keras
import numpy as np
import pytest

from luna_tfds.errors import JobError
from luna_tfds.errors import UsageError
from model.networks import registry
from trainer import workdir as workdir_lib
from trainer.training import best_epoch
from trainer.training import checkpoints
from trainer.training import determinism
from trainer.training import loop
from trainer.training import not_finite
from trainer.training import resume_state
from trainer.training import tensorboard_images
from trainer.training import weight_averaging


@pytest.fixture(scope='module')
def tiny_network():
  """Trains a network that is fast to build, in place of any other."""

  def build(name, image_shape, window_hu):
    image = keras.Input(image_shape, name='image')
    x = keras.layers.Rescaling(1e-3)(image)
    x = keras.layers.Dense(4, activation='relu')(keras.layers.Flatten()(x))
    x = keras.layers.Dropout(0.5)(x)
    return keras.Model(image, keras.layers.Dense(1, name='logit', dtype='float32')(x))

  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(registry, 'build', build)
    # Its pictures show convolutions.
    patch.setattr(
      tensorboard_images, 'TensorBoardImages', lambda *_: keras.callbacks.Callback()
    )
    yield


@pytest.fixture(scope='module')
def undisturbed(tiny_network, tmp_path_factory):
  """A finished run of two epochs of two steps, to compare with."""
  run = fake_run.make_run(tmp_path_factory.mktemp('undisturbed'), **fake_run.SMALL)
  loop.fit(run)
  return run


@pytest.mark.slow
@pytest.mark.parametrize(
  ('callback', 'hook', 'is_validated_later'),
  [
    # In the order in which they are called at the end of an epoch.
    (not_finite.StopOnNaN, 'on_test_begin', False),
    (weight_averaging.AverageWeights, 'on_test_begin', True),
    (weight_averaging.AverageWeights, 'on_test_end', True),
    (best_epoch.SaveBest, 'on_epoch_end', True),
    (resume_state.WriteHistory, 'on_epoch_end', True),
    (best_epoch.StopEarly, 'on_epoch_end', False),
  ],
)
def test_a_run_that_is_killed_at_the_end_of_an_epoch_loses_nothing(
  callback,
  hook,
  is_validated_later,
  undisturbed,
  tmp_path,
  monkeypatch,
  capsys,
  assert_same_weights,
):
  run = fake_run.make_run(tmp_path, **fake_run.SMALL)

  def kill(self, *unused):
    raise RuntimeError('killed')

  with monkeypatch.context() as patch:
    patch.setattr(callback, hook, kill)
    with pytest.raises(RuntimeError, match='killed'):
      loop.fit(run)
  loop.fit(run)
  assert ('validating' in capsys.readouterr().err) == is_validated_later
  fake_run.assert_same_run(run, undisturbed, assert_same_weights)


@pytest.mark.parametrize(
  'hook', ['on_test_end', pytest.param('on_epoch_end', marks=pytest.mark.slow)]
)
def test_an_interruption_in_validation_keeps_the_epoch(
  hook, undisturbed, tmp_path, monkeypatch, assert_same_weights
):
  run = fake_run.make_run(tmp_path, **fake_run.SMALL)

  def interrupt(self, *unused):
    raise KeyboardInterrupt

  with monkeypatch.context() as patch:
    patch.setattr(weight_averaging.AverageWeights, hook, interrupt)
    with pytest.raises(KeyboardInterrupt):
      loop.fit(run)
  loop.fit(run)
  fake_run.assert_same_run(run, undisturbed, assert_same_weights)


def test_without_a_history_an_epoch_is_validated_only_once(
  undisturbed, tmp_path, capsys
):
  shutil.copytree(undisturbed.workdir.path, tmp_path / 'run')
  run = dataclasses.replace(undisturbed, workdir=workdir_lib.Workdir(tmp_path / 'run'))
  run.workdir.history.path.unlink()
  for is_validated in (True, False):
    loop.fit(run)
    assert ('validating' in capsys.readouterr().err) == is_validated
    assert [row['epoch'] for row in run.workdir.history.read()] == [1]


@pytest.mark.slow
def test_weights_that_are_not_finite_are_never_saved(
  tiny_network, tmp_path, monkeypatch
):
  """The last update of the second epoch spoils them; a smaller learning rate helps."""
  run = fake_run.make_run(tmp_path, **fake_run.SMALL)
  run.workdir.prepare(run.config, 'fake', None)

  class Spoil(resume_state.CountSkippedSteps):
    def on_train_batch_end(self, batch, logs=None):
      if int(self.model.optimizer.iterations) == 4:
        kernel = self.model.trainable_variables[0]
        kernel.assign(np.full(kernel.shape, np.nan))

  with monkeypatch.context() as patch:
    patch.setattr(resume_state, 'CountSkippedSteps', Spoil)
    with pytest.raises(JobError, match='weights are not finite in epoch 2, step 2'):
      loop.fit(run)
  for path in (run.workdir.last, run.workdir.best):
    assert checkpoints.is_finite(keras.models.load_model(path))
  assert len(run.workdir.history.read()) == 1
  recipe = dataclasses.replace(run.config.recipe, learning_rate=1e-4)
  config = dataclasses.replace(run.config, recipe=recipe)
  run.workdir.prepare(config, 'fake', None)
  assert loop.fit(dataclasses.replace(run, config=config)) == 2
  # Another change is refused, now that this one works.
  with pytest.raises(UsageError, match='learning_rate'):
    run.workdir.prepare(run.config, 'fake', None)


@pytest.mark.slow
def test_float16_finishes_and_resumes(
  tiny_network, tmp_path, monkeypatch, assert_same_weights
):
  """Also if the optimizer skips steps, which it does not count."""
  fields = {**fake_run.SMALL, 'precision': 'mixed_float16'}
  whole, stopped = (fake_run.make_run(tmp_path / name, **fields) for name in ('a', 'b'))

  class Overflow(determinism.SeedDropout):
    """Makes the loss scale overflow in the second step."""

    def on_train_batch_begin(self, batch, logs=None):
      optimizer = self.model.optimizer
      if int(optimizer.iterations) == 1 and float(optimizer.dynamic_scale) < 1e6:
        optimizer.dynamic_scale.assign(1e38)

  monkeypatch.setattr(determinism, 'SeedDropout', Overflow)
  assert loop.fit(whole) == 2
  assert checkpoints.read_note(whole.workdir.last).skipped_steps > 0

  def interrupt(self, batch, logs=None):
    raise KeyboardInterrupt

  with monkeypatch.context() as patch:
    patch.setattr(resume_state.SaveLast, 'on_train_batch_end', interrupt)
    with pytest.raises(KeyboardInterrupt):
      loop.fit(stopped)
  assert loop.fit(stopped) == 2
  assert [row['epoch'] for row in stopped.workdir.history.read()] == [0, 1]
  assert_same_weights(whole.workdir.last, stopped.workdir.last)
