import keras
import numpy as np
import pytest

from model.networks.nodule_net import nodule_net

WINDOW_HU = (-1000, 400)


def test_number_of_parameters():
  # Convolutions without biases, counted by hand.
  stage1 = 32 * 25
  stage2 = 32 * 9 * 32 * 2
  stage3 = 32 * 9 * 64 + 64 * 9 * 64
  stage4 = 64 * 9 * 128 + 128 * 9 * 128
  # Gamma, beta and two moving statistics for each channel.
  normalization = 4 * (32 * 3 + 64 * 2 + 128 * 2)
  expected = stage1 + stage2 + stage3 + stage4 + normalization + 128 + 1
  assert nodule_net((50, 50, 1), WINDOW_HU).count_params() == expected


@pytest.mark.parametrize('shape', [(50, 50, 1), (50, 50, 7), (48, 48, 48, 1)])
def test_network_has_less_than_a_million_parameters(shape):
  assert nodule_net(shape, WINDOW_HU).count_params() < 1_000_000


def test_image_is_cropped_in_its_centre_to_a_multiple_of_the_pools():
  network = nodule_net((50, 53, 1), WINDOW_HU)
  assert network.get_layer('crop').output.shape == (None, 48, 48, 1)
  images = np.random.default_rng(0).integers(-1000, 400, (1, 50, 53, 1))
  outside = images.copy()
  outside[:, [0, -1]] = outside[:, :, [0, 1, -1, -2, -3]] = 0
  np.testing.assert_array_equal(network(images), network(outside))
  inside = images.copy()
  inside[:, 1, 2] += 500
  assert not np.array_equal(network(images), network(inside))


def test_a_pool_comes_before_the_normalisation_of_its_convolution():
  network = nodule_net((50, 50, 1), WINDOW_HU)
  sides = {layer.name: layer.output.shape[1] for layer in network.layers}
  convolutions = [sides[f'stage{n}_conv'] for n in ('1_a', '2_b', '3_b', '4_b')]
  normalizations = [sides[f'stage{n}_norm'] for n in ('1_a', '2_b', '3_b', '4_b')]
  assert convolutions == [48, 24, 12, 6]
  assert normalizations == [24, 12, 6, 6]


@pytest.mark.parametrize('shape', [(4, 50, 1), (16, 7, 16, 1)])
def test_image_that_is_too_small_for_the_pools_is_refused(shape):
  with pytest.raises(ValueError, match=r'sides of 8 or more. Received: \('):
    nodule_net(shape, WINDOW_HU)


def test_mixed_precision_keeps_the_logit_in_float32():
  before = keras.config.dtype_policy()
  keras.config.set_dtype_policy('mixed_bfloat16')
  try:
    network = nodule_net((16, 16, 1), WINDOW_HU)
    logit = network(np.zeros((1, 16, 16, 1), np.int16))
  finally:
    keras.config.set_dtype_policy(before)
  assert network.get_layer('stage2_a_conv').compute_dtype == 'bfloat16'
  assert keras.backend.standardize_dtype(logit.dtype) == 'float32'
