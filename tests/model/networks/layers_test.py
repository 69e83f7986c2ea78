import keras
import numpy as np
import pytest

from model.networks import layers


def test_hu_window_maps_and_clips():
  window = layers.HUWindow(-1000, 400)
  hu = np.array([[-2000, -1000, -300, 400, 3000]], np.int16)
  np.testing.assert_allclose(window(hu), [[0, 0, 0.5, 1, 1]], atol=1e-7)


def test_hu_window_computes_in_float32_under_mixed_precision():
  # 399 HU and 401 HU are one number in bfloat16.
  window = layers.HUWindow(399, 401, dtype='mixed_bfloat16')
  scaled = window(np.array([[399, 400, 401]], np.int16))
  assert keras.backend.standardize_dtype(scaled.dtype) == 'bfloat16'
  np.testing.assert_array_equal(keras.ops.cast(scaled, 'float32'), [[0, 0.5, 1]])


@pytest.mark.parametrize('bounds', [(400, -1000), (0, 0)])
def test_empty_hu_window_is_refused(bounds):
  with pytest.raises(ValueError, match='low_hu must be less'):
    layers.HUWindow(*bounds)


def test_prior_shift_follows_bayes_rule():
  # The posterior odds are the likelihood ratio times the prior odds.
  likelihood_ratio = np.array([0.2 / 0.7, 0.9 / 0.1])
  odds_in_training = likelihood_ratio * (0.3 / 0.7)
  odds_in_deployment = likelihood_ratio * (0.05 / 0.95)
  logits = np.log(odds_in_training)[None].astype(np.float32)
  shifted = layers.PriorShift(0.3, 0.05)(logits)
  np.testing.assert_allclose(shifted[0], np.log(odds_in_deployment), rtol=1e-5)


@pytest.mark.parametrize(
  ('priors', 'name'),
  [((0.5, 1.0), 'deployed_prior'), ((0.0, 0.5), 'trained_prior')],
)
def test_prior_of_0_or_1_is_refused(priors, name):
  with pytest.raises(ValueError, match=f'{name} must lie between 0 and 1'):
    layers.PriorShift(*priors)


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
    # The kernel gives the unbiased variance, unlike Keras's layer.
    count = x.size // 3
    unbiased = x.var(axes) * count / (count - 1)
    np.testing.assert_allclose(
      layer.moving_variance, 0.9 * variance + 0.1 * unbiased, rtol=1e-4
    )
  else:
    np.testing.assert_array_equal(layer.moving_mean, mean)
    np.testing.assert_array_equal(layer.moving_variance, variance)


@pytest.mark.parametrize(
  'layer',
  [
    layers.HUWindow(-900, 300, name='window'),
    layers.PriorShift(0.3, 0.1, name='shift'),
    layers.FusedBatchNormalization(0.8, 1e-4, name='norm'),
  ],
  ids=lambda layer: layer.name,
)
def test_layer_is_restored_from_its_config(layer):
  restored = keras.saving.deserialize_keras_object(
    keras.saving.serialize_keras_object(layer)
  )
  assert type(restored) is type(layer)
  assert restored.get_config() == layer.get_config()
