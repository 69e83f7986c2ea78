import keras
import numpy as np
import pytest

from model import layers
from model import registry

SHAPES = {
  'patch': (50, 50, 1),
  'stack': (50, 50, 3),
  'cube': (16, 16, 16, 1),
}
# Counted by hand from the layers.
PARAMETERS = {
  ('article_cnn', 'patch'): 32 * 26
  + 64 * 801
  + 64 * 577
  + 512 * (12 * 12 * 64 + 1)
  + 513,
  ('nodule_net', 'patch'): (
    32 * 25
    + 32 * 9 * 32 * 2
    + 32 * 9 * 64
    + 64 * 9 * 64
    + 64 * 9 * 128
    + 128 * 9 * 128
    + 4 * (32 * 3 + 64 * 2 + 128 * 2)
    + 129
  ),
}


def random_hu(shape, batch=2, seed=0):
  values = np.random.default_rng(seed).integers(-1000, 400, (batch, *shape))
  return values.astype(np.int16)


@pytest.mark.parametrize('name', registry.MODELS)
@pytest.mark.parametrize('kind', SHAPES)
def test_network_takes_hu_and_gives_one_float32_logit(name, kind):
  network = registry.build(name, SHAPES[kind])
  logit = network(random_hu(SHAPES[kind]))
  assert logit.shape == (2, 1)
  assert keras.backend.standardize_dtype(logit.dtype) == 'float32'
  assert np.isfinite(logit).all()


@pytest.mark.parametrize(('name', 'kind'), PARAMETERS)
def test_parameter_counts(name, kind):
  network = registry.build(name, SHAPES[kind])
  assert network.count_params() == PARAMETERS[name, kind]


def test_nodule_net_stays_under_a_million_parameters():
  for shape in ((50, 50, 1), (50, 50, 7), (48, 48, 48, 1)):
    assert registry.build('nodule_net', shape).count_params() < 1_000_000


@pytest.mark.parametrize('name', registry.MODELS)
@pytest.mark.parametrize('kind', ['patch', 'cube'])
def test_saved_network_is_restored_in_safe_mode(name, kind, tmp_path):
  network = registry.build(name, SHAPES[kind])
  network.save(tmp_path / 'network.keras')
  restored = keras.models.load_model(tmp_path / 'network.keras', safe_mode=True)
  images = random_hu(SHAPES[kind])
  np.testing.assert_array_equal(network(images), restored(images))


@pytest.mark.parametrize('name', registry.MODELS)
def test_layers_are_named_by_stage(name):
  names = [layer.name for layer in registry.build(name, (50, 50, 1)).layers]
  assert names[:2] == ['image', 'hu_window']
  assert names[-1] == 'logit'
  assert all(n.startswith(('stage', 'head', 'crop')) for n in names[2:-1])


def test_mixed_precision_keeps_the_logit_in_float32():
  before = keras.config.dtype_policy()
  keras.config.set_dtype_policy('mixed_bfloat16')
  try:
    network = registry.build('nodule_net', (50, 50, 1))
    logit = network(random_hu((50, 50, 1)))
  finally:
    keras.config.set_dtype_policy(before)
  assert network.get_layer('stage2_a_conv').compute_dtype == 'bfloat16'
  assert keras.backend.standardize_dtype(logit.dtype) == 'float32'


def test_unknown_network_and_too_small_images_are_refused():
  with pytest.raises(ValueError, match='article_cnn, nodule_net'):
    registry.build('resnet', (50, 50, 1))
  with pytest.raises(ValueError, match='sides of 8'):
    registry.build('nodule_net', (4, 50, 1))


def test_hu_window_maps_and_clips():
  window = layers.HUWindow(-1000, 400)
  hu = np.array([[-2000, -1000, -300, 400, 3000]], np.int16)
  np.testing.assert_allclose(window(hu), [[0, 0, 0.5, 1, 1]], atol=1e-7)
  again = layers.HUWindow.from_config(window.get_config())
  assert (again.low_hu, again.high_hu) == (-1000, 400)
  with pytest.raises(ValueError, match='low_hu must be less'):
    layers.HUWindow(400, -1000)


def test_prior_shift_is_bayes_rule():
  # Two likelihoods, two priors: the posterior odds are worked out by hand.
  likelihood = np.array([0.2, 0.9]) / np.array([0.7, 0.1])
  balanced = likelihood * 1.0
  deployed = likelihood * (0.05 / 0.95)
  shifted = layers.PriorShift(0.5, 0.05)(np.log(balanced)[None].astype(np.float32))
  np.testing.assert_allclose(shifted[0], np.log(deployed), rtol=1e-5)
  with pytest.raises(ValueError, match='deployed_prior'):
    layers.PriorShift(0.5, 1.0)


@pytest.mark.parametrize('shape', [(4, 6, 5, 3), (2, 3, 4, 5, 3)])
@pytest.mark.parametrize('training', [True, False])
def test_fused_batch_normalization_equals_the_formula(shape, training):
  rng = np.random.default_rng(0)
  x = rng.normal(2, 3, shape).astype(np.float32)
  layer = layers.FusedBatchNormalization(momentum=0.9, epsilon=1e-3)
  layer.build(shape)
  gamma, beta, mean, variance = (
    rng.uniform(0.5, 2, 3).astype(np.float32) for _ in range(4)
  )
  for variable, value in zip(
    (layer.gamma, layer.beta, layer.moving_mean, layer.moving_variance),
    (gamma, beta, mean, variance),
  ):
    variable.assign(value)
  axes = tuple(range(x.ndim - 1))
  used_mean = x.mean(axes) if training else mean
  used_variance = x.var(axes) if training else variance
  expected = gamma * (x - used_mean) / np.sqrt(used_variance + 1e-3) + beta
  np.testing.assert_allclose(layer(x, training=training), expected, atol=2e-5)
  if training:
    np.testing.assert_allclose(
      layer.moving_mean, 0.9 * mean + 0.1 * x.mean(axes), rtol=1e-5
    )
    # The kernel gives the unbiased variance, as Keras's layer does not.
    count = x.size // 3
    unbiased = x.var(axes) * count / (count - 1)
    np.testing.assert_allclose(
      layer.moving_variance, 0.9 * variance + 0.1 * unbiased, rtol=1e-4
    )
