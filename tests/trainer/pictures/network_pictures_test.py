import keras
import numpy as np
import pytest

from luna_tfds.hounsfield import WINDOW_HU
from model.networks import registry
from trainer.pictures import network_pictures


@pytest.fixture(scope='module', params=['article_cnn', 'nodule_net'])
def network(request):
  return registry.build(request.param, (50, 50, 1), WINDOW_HU)


@pytest.fixture(scope='module')
def image():
  return np.random.default_rng(0).integers(-1000, 400, (50, 50, 1)).astype(np.int16)


def test_filters_are_those_of_the_first_layer(network):
  filters = network_pictures.first_filters(network)
  kernel = np.asarray(network_pictures.convolutions(network)[0].kernel)
  assert filters.shape == (32, 5, 5)
  np.testing.assert_array_equal(filters[3], kernel[:, :, 0, 3])


def test_feature_maps_are_those_of_each_convolution_after_its_activation(
  network, image
):
  maps = network_pictures.feature_maps(network, image)
  assert list(maps) == [layer.name for layer in network_pictures.convolutions(network)]
  assert all((m >= 0).all() for m in maps.values())
  first = next(iter(maps.values()))
  assert first.shape[0] == 32


def test_grad_cam_decomposes_the_logit_of_a_network_that_ends_in_a_mean():
  """For mean and dense, gradient times response sums to the logit without its bias."""
  keras.utils.set_random_seed(0)  # with other weights, no place may have evidence
  network = registry.build('nodule_net', (48, 48, 1), WINDOW_HU)
  image = np.random.default_rng(1).integers(-1000, 400, (48, 48, 1)).astype(np.int16)
  response = network_pictures.feature_maps(network, image)['stage4_b_conv']
  weights = np.asarray(network.get_layer('logit').kernel)[:, 0]
  places = np.maximum((response * weights[:, None, None]).sum(0) / response[0].size, 0)
  cam = network_pictures.grad_cam(network, image)
  assert cam.shape == (48, 48)
  expected = keras.ops.image.resize(places[..., None], (48, 48))[..., 0]
  np.testing.assert_allclose(cam, expected / np.max(expected), atol=1e-4)


def test_all_pictures_of_a_patch(network, image):
  pictures = network_pictures.all_pictures(network, image)
  layers = [layer.name for layer in network_pictures.convolutions(network)]
  assert list(pictures) == ['filters', *(f'features_{n}' for n in layers), 'grad_cam']
  titles = {name: draw().axes[0].get_title() for name, draw in pictures.items()}
  assert titles['filters'] == 'First-layer filters'
  assert titles[f'features_{layers[0]}'].startswith(f'{layers[0]}: all 32 maps')
  assert titles['grad_cam'] == 'patch'


def test_pictures_of_a_volume_show_its_middle_slice():
  network = registry.build('nodule_net', (16, 16, 16, 1), WINDOW_HU)
  image = (
    np.random.default_rng(0).integers(-1000, 400, (16, 16, 16, 1)).astype(np.int16)
  )
  kernel = np.asarray(network_pictures.convolutions(network)[0].kernel)
  filters = network_pictures.first_filters(network)
  np.testing.assert_array_equal(filters[0], kernel[len(kernel) // 2, :, :, 0, 0])
  patch, evidence = network_pictures.all_pictures(network, image)['grad_cam']().axes
  for axes in (patch, evidence):
    np.testing.assert_array_equal(axes.images[0].get_array(), image[8, :, :, 0])
  assert evidence.images[1].get_array().shape == (16, 16)


def test_only_the_strongest_maps_are_drawn_in_their_order():
  maps = np.zeros((40, 2, 2), np.float32)
  strength = np.random.default_rng(0).permutation(40) + 1.0
  maps[:, 0, 0] = strength
  (axes,) = network_pictures.draw_maps(maps, 'layer').axes
  assert axes.get_title() == 'layer: the 32 strongest of 40 maps'
  sheet = axes.images[0].get_array()
  # Four rows of eight maps of 2 x 2 pixels, with a gap of one pixel between them.
  assert sheet.shape == (4 * 3 - 1, 8 * 3 - 1)
  np.testing.assert_allclose(sheet[::3, ::3], 1)  # each by its own maximum
  np.testing.assert_allclose(sheet[1::3, ::3], 0)


def test_filters_are_scaled_by_their_largest_weight():
  filters = np.array([[[2.0, -4.0]], [[0.5, 0.25]]])
  (axes,) = network_pictures.draw_filters(filters).axes
  sheet = axes.images[0].get_array()
  np.testing.assert_allclose(sheet[0, :2], [0.5, -1], rtol=1e-6)
  np.testing.assert_allclose(sheet[0, 3:], [1, 0.5], rtol=1e-6)


def test_a_network_without_a_convolution_has_no_pictures(image):
  inputs = keras.Input((50, 50, 1))
  x = keras.layers.Flatten()(inputs)
  network = keras.Model(inputs, keras.layers.Dense(1, name='logit')(x))
  assert network_pictures.all_pictures(network, image) == {}
