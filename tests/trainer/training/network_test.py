import dataclasses
import math

import keras
import numpy as np
import pytest

from luna_tfds.errors import UsageError
from trainer import config as config_lib
from trainer.training import checkpoints
from trainer.training import network as network_lib

SHAPE = (16, 16, 1)
RECIPE = config_lib.Recipe(
  optimizer='adamw', learning_rate=0.1, weight_decay=0.5, ema=0.9
)


def build(prior=0.5, recipe=RECIPE, model='nodule_net', **fields):
  keras.utils.set_random_seed(7)
  config = config_lib.TrainConfig(
    dataset='',
    data_dir='',
    model=model,
    recipe=recipe,
    input=config_lib.InputConfig(batch_size=96),
    **{'precision': 'float32', **fields},
  )
  return network_lib.build_network(config, SHAPE, prior, steps_per_epoch=100)


@pytest.mark.parametrize(
  ('step', 'expected'),
  [
    # 1,000 steps: 50 of warm-up from a twentieth, then half a cosine.
    (0, 0.001),
    (25, 0.0105),
    (50, 0.02),
    (525, 0.01),
    (1000, 0.0),
  ],
)
def test_cosine_schedule_with_warm_up(step, expected):
  recipe = config_lib.Recipe(schedule='cosine', learning_rate=0.02)
  schedule = network_lib.learning_rate(recipe, 1000)
  assert float(schedule(step)) == pytest.approx(expected, abs=1e-8)


@pytest.mark.parametrize('total_steps', [1, 2, 9])
def test_schedule_of_a_very_short_run(total_steps):
  recipe = config_lib.Recipe(schedule='cosine', learning_rate=0.02)
  schedule = network_lib.learning_rate(recipe, total_steps)
  assert float(schedule(0)) == pytest.approx(0.001)
  assert float(schedule(1)) == pytest.approx(0.02)
  assert math.isfinite(float(schedule(total_steps)))


def test_constant_schedule():
  assert network_lib.learning_rate(config_lib.Recipe(learning_rate=0.3), 1000) == 0.3


def test_optimizer_follows_the_schedule_of_the_whole_run():
  recipe = dataclasses.replace(RECIPE, schedule='cosine', epochs=10)
  # 10 epochs of 100 steps: the highest rate is reached after 50.
  optimizer = build(recipe=recipe).optimizer
  for step, expected in ((0, 0.005), (50, 0.1), (1000, 0.0)):
    optimizer.iterations.assign(step)
    assert float(optimizer.learning_rate) == pytest.approx(expected, abs=1e-8)


@pytest.mark.parametrize(
  ('ema', 'total_steps', 'expected'),
  [
    (0.995, 10**6, 0.995),
    (0.995, 1990, 0.995),
    # Shorter runs: the average reaches back over about a tenth of the steps.
    (0.995, 990, 0.99),
    (0.995, 90, 0.9),
    (0.995, 10, 0.5),
    (0.2, 90, 0.2),
    (0.0, 90, 0.0),
  ],
)
def test_momentum_of_the_weight_average_is_lower_in_short_runs(
  ema, total_steps, expected
):
  recipe = config_lib.Recipe(ema=ema)
  assert network_lib.ema_momentum(recipe, total_steps) == pytest.approx(expected)


@pytest.mark.parametrize('ema', [0.0, 0.5])
def test_optimizer_averages_weights_only_if_asked_for(ema):
  optimizer = build(recipe=dataclasses.replace(RECIPE, ema=ema)).optimizer
  assert optimizer.use_ema == bool(ema)
  if ema:
    assert optimizer.ema_momentum == ema


def step_without_gradient(network):
  """Sets all weights to 1, applies a gradient of 0; returns the weights by path."""
  for variable in network.trainable_variables:
    variable.assign(np.ones(variable.shape))
  zeros = [np.zeros(v.shape, np.float32) for v in network.trainable_variables]
  network.optimizer.apply(
    [keras.ops.convert_to_tensor(z) for z in zeros], network.trainable_variables
  )
  return {v.path: v.numpy() for v in network.trainable_variables}


def assert_only_kernels_decay(weights):
  names = {path.rsplit('/', 1)[1] for path in weights}
  assert names == {'kernel', 'bias', 'gamma', 'beta'}
  for path, values in weights.items():
    # A learning rate of 0.1 and a decay of 0.5: 5 % a step.
    expected = 0.95 if path.endswith('kernel') else 1.0
    np.testing.assert_allclose(values, expected, rtol=1e-6, err_msg=path)


def test_kernels_decay_and_biases_and_normalisations_do_not():
  assert_only_kernels_decay(step_without_gradient(build()))


def test_kernels_alone_decay_after_a_checkpoint(tmp_path):
  path = tmp_path / 'last.keras'
  network = build()
  step_without_gradient(network)
  network.save(path)
  restored = build()
  checkpoints.restore(restored, path)
  assert_only_kernels_decay(step_without_gradient(restored))


def test_adam_decays_nothing():
  network = build(recipe=dataclasses.replace(RECIPE, optimizer='adam'))
  for values in step_without_gradient(network).values():
    np.testing.assert_array_equal(values, 1)


@pytest.mark.parametrize('model', ['article_cnn', 'nodule_net'])
def test_first_outputs_start_at_the_share_of_nodules(model):
  images = np.random.default_rng(0).normal(-500, 300, (4, *SHAPE)).astype(np.float32)
  even = build(0.5, model=model)(images).numpy()
  rare = build(0.2, model=model)(images).numpy()
  # Odds of 1 : 4 in place of 1 : 1.
  np.testing.assert_allclose(rare - even, -math.log(4), rtol=1e-4)
  # With features of 0 the output is the share.
  network = build(0.2, model=model)
  network.get_layer('logit').kernel.assign(
    np.zeros(network.get_layer('logit').kernel.shape)
  )
  probabilities = 1 / (1 + np.exp(-network(images).numpy()))
  np.testing.assert_allclose(probabilities, 0.2, rtol=1e-5)


@pytest.mark.parametrize('prior', [0.0, 1.0])
def test_a_stream_of_one_class_starts_as_an_even_one(prior):
  images = np.zeros((2, *SHAPE), np.float32)
  np.testing.assert_array_equal(build(prior)(images), build(0.5)(images))


def test_precision_is_that_of_this_network_alone():
  before = keras.config.dtype_policy()
  network = build(precision='mixed_bfloat16')
  assert network.get_layer('logit').dtype == 'float32'
  policies = {layer.dtype_policy.name for layer in network.layers}
  assert 'mixed_bfloat16' in policies
  assert keras.config.dtype_policy() == before
  assert {layer.dtype_policy.name for layer in build().layers} == {'float32'}


def test_checkpoint_restores_weights_and_optimizer(tmp_path):
  path = tmp_path / 'last.keras'
  network = build()
  images = np.random.default_rng(0).normal(-500, 300, (8, *SHAPE)).astype(np.float32)
  labels = np.arange(8) % 2
  for _ in range(3):
    network.train_on_batch(images, labels)
  network.save(path)
  restored = build()
  checkpoints.restore(restored, path)
  assert int(restored.optimizer.iterations) == 3
  for saved, loaded in zip(
    [*network.variables, *network.optimizer.variables],
    [*restored.variables, *restored.optimizer.variables],
    strict=True,
  ):
    if 'seed_generator' not in saved.path:
      np.testing.assert_array_equal(loaded, saved, err_msg=saved.path)


def test_metrics_have_the_names_of_the_history():
  network = build()
  images = np.zeros((4, *SHAPE), np.float32)
  metrics = network.evaluate(
    images, np.array([0, 1, 0, 1]), verbose=0, return_dict=True
  )
  assert set(metrics) == {'loss', 'accuracy', 'roc_auc', 'pr_auc'}
  # All logits are equal.
  assert metrics['accuracy'] == 0.5
  assert metrics['roc_auc'] == pytest.approx(0.5)


@pytest.mark.parametrize('content', [b'', b'PK no archive', b'PK\x03\x04' + bytes(50)])
def test_a_damaged_checkpoint_is_rejected(content, tmp_path):
  path = tmp_path / 'last.keras'
  path.write_bytes(content)
  with pytest.raises(UsageError, match=r'last\.keras: .*delete the folder .* to train'):
    checkpoints.restore(build(), path)


def test_a_checkpoint_without_optimizer_is_rejected(tmp_path):
  path = tmp_path / 'last.keras'
  network = build()
  keras.Model(network.input, network.output).save(path)
  with pytest.raises(UsageError, match='cannot be loaded as a checkpoint'):
    checkpoints.restore(build(), path)
