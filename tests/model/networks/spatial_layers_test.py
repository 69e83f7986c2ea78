import keras
import pytest

from model.networks.spatial_layers import spatial_layers


def test_layers_fit_the_shape_of_the_image():
  assert spatial_layers((50, 50, 3)).conv is keras.layers.Conv2D
  assert spatial_layers((48, 48, 48, 1)).conv is keras.layers.Conv3D


@pytest.mark.parametrize('shape', [(50, 50), (2, 48, 48, 48, 1)])
def test_other_shapes_are_refused(shape):
  with pytest.raises(ValueError, match='image_shape must be'):
    spatial_layers(shape)
