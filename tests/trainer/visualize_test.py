import keras
import numpy as np
import pytest

from model.networks import registry
from trainer import visualize


@pytest.fixture(scope='module', params=['article_cnn', 'nodule_net'])
def network(request):
  return registry.build(request.param, (50, 50, 1))


@pytest.fixture(scope='module')
def image():
  return np.random.default_rng(0).integers(-1000, 400, (50, 50, 1)).astype(np.int16)


def test_filters_are_those_of_the_first_layer(network):
  filters = visualize.first_filters(network)
  kernel = np.asarray(visualize.convolutions(network)[0].kernel)
  assert filters.shape == (32, 5, 5)
  np.testing.assert_array_equal(filters[3], kernel[:, :, 0, 3])


def test_feature_maps_are_of_every_convolution_and_rectified(network, image):
  maps = visualize.feature_maps(network, image)
  assert list(maps) == [layer.name for layer in visualize.convolutions(network)]
  assert all((m >= 0).all() for m in maps.values())
  first = next(iter(maps.values()))
  assert first.shape[0] == 32


def test_grad_cam_is_the_logits_decomposition_for_a_network_that_ends_in_a_mean():
  """For mean and dense, gradient times response sums to the logit without its bias."""
  network = registry.build('nodule_net', (48, 48, 1))
  image = np.random.default_rng(1).integers(-1000, 400, (48, 48, 1)).astype(np.int16)
  response = visualize.feature_maps(network, image)['stage4_b_conv']
  weights = np.asarray(network.get_layer('logit').kernel)[:, 0]
  places = np.maximum((response * weights[:, None, None]).sum(0) / response[0].size, 0)
  cam = visualize.grad_cam(network, image)
  assert cam.shape == (48, 48)
  expected = keras.ops.image.resize(places[..., None], (48, 48))[..., 0]
  np.testing.assert_allclose(cam, expected / np.max(expected), atol=1e-4)


def test_volumes_are_shown_by_their_middle_slice():
  network = registry.build('nodule_net', (16, 16, 16, 1))
  image = (
    np.random.default_rng(0).integers(-1000, 400, (16, 16, 16, 1)).astype(np.int16)
  )
  figures = visualize.figures(network, image)
  assert {'filters', 'features_stage1_a_conv', 'grad_cam'} <= set(figures)
