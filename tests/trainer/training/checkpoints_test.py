import zipfile

import keras
import numpy as np
import pytest

from luna_tfds.errors import UsageError
from trainer.training import checkpoints
from trainer.training.checkpoints import CheckpointNote


def small_model(optimizer=None):
  model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
  if optimizer is not None:
    model.compile(optimizer, 'mse')
  return model


def adam(scaled=False, rate=0.1):
  optimizer = keras.optimizers.Adam(rate, use_ema=True, ema_momentum=0.5)
  return keras.optimizers.LossScaleOptimizer(optimizer) if scaled else optimizer


def step(model):
  model.train_on_batch(np.ones((4, 2), np.float32), np.ones((4, 1), np.float32))


def test_a_checkpoint_is_complete_or_not_there(tmp_path, monkeypatch):
  network = small_model()
  path = tmp_path / 'last.keras'
  checkpoints.save(network, path)
  complete = path.read_bytes()

  def save_half(self, target):
    target.write_bytes(b'half')
    raise OSError('no space left on device')

  monkeypatch.setattr(type(network), 'save', save_half)
  with pytest.raises(OSError, match='no space'):
    checkpoints.save(network, path)
  assert path.read_bytes() == complete
  assert list(tmp_path.iterdir()) == [path]


def test_a_note_is_stored_with_the_weights(tmp_path):
  path = tmp_path / 'best.keras'
  note = CheckpointNote({'val_pr_auc': 0.1 + 0.2}, skipped_steps=3)
  checkpoints.save(small_model(), path, note)
  assert checkpoints.read_note(path) == note
  assert zipfile.ZipFile(path).testzip() is None
  keras.models.load_model(path)
  checkpoints.save(small_model(), path)
  assert checkpoints.read_note(path) is None


def test_values_that_are_not_finite_are_found():
  model = small_model(adam())
  step(model)
  assert checkpoints.is_finite(model)
  for variable in (model.layers[0].kernel, model.optimizer.variables[-1]):
    before = variable.numpy()
    for wrong in (float('nan'), float('inf'), -float('inf')):
      variable.assign(np.full(variable.shape, wrong))
      assert not checkpoints.is_finite(model)
    variable.assign(before)
  assert checkpoints.is_finite(model)


@pytest.mark.parametrize(
  ('saved_scaled', 'scaled'),
  [(False, False), (True, True), (True, False), (False, True)],
)
def test_an_optimizer_continues_with_and_without_loss_scale(
  tmp_path, saved_scaled, scaled
):
  path = tmp_path / 'last.keras'
  saved = small_model(adam(saved_scaled))
  for _ in range(3):
    step(saved)
  if saved_scaled:
    saved.optimizer.dynamic_scale.assign(64.0)
  checkpoints.save(saved, path)
  restored = small_model(adam(scaled))
  checkpoints.restore(restored, path)
  assert int(restored.optimizer.iterations) == 3
  if saved_scaled and scaled:
    assert float(restored.optimizer.dynamic_scale) == 64
    assert int(restored.optimizer.step_counter) == 3
  for model in (saved, restored):
    step(model)
  for a, b in zip(saved.get_weights(), restored.get_weights(), strict=True):
    np.testing.assert_allclose(b, a, rtol=1e-5)


def test_the_learning_rate_is_that_of_the_new_run(tmp_path):
  path = tmp_path / 'last.keras'
  saved = small_model(adam(rate=0.1))
  step(saved)
  checkpoints.save(saved, path)
  restored = small_model(adam(rate=0.01))
  checkpoints.restore(restored, path)
  assert float(restored.optimizer.learning_rate) == pytest.approx(0.01)


def test_weights_of_layers_in_another_order_are_refused(tmp_path):
  path = tmp_path / 'last.keras'
  layers = keras.layers

  def network(*middle):
    dense = layers.Dense(2)
    model = keras.Sequential([keras.Input((2, 2, 2)), dense, *middle])
    model.compile(adam(), 'mse')
    model.optimizer.build(model.trainable_variables)
    return model

  saved = network(layers.MaxPooling2D(2), layers.ReLU())
  checkpoints.save(saved, path)
  checkpoints.restore(network(layers.MaxPooling2D(2), layers.ReLU()), path)
  with pytest.raises(UsageError, match=r'last\.keras: .*in another order; delete'):
    checkpoints.restore(network(layers.ReLU(), layers.MaxPooling2D(2)), path)


@pytest.mark.parametrize('read', [checkpoints.read_note, checkpoints.load_network])
@pytest.mark.parametrize('content', [b'', b'damaged'])
def test_a_damaged_checkpoint_is_refused(tmp_path, read, content):
  path = tmp_path / 'best.keras'
  path.write_bytes(content)
  with pytest.raises(
    UsageError, match=r'best\.keras: cannot be loaded as a checkpoint'
  ):
    read(path)
