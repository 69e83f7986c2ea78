import keras

from model.networks.article_cnn import article_cnn

WINDOW_HU = (-1000, 400)


def test_number_of_parameters_is_that_of_the_article():
  # Weights and biases of each layer, counted by hand.
  stage1 = 32 * (5 * 5 * 1 + 1)
  stage2 = 64 * (5 * 5 * 32 + 1)
  stage3 = 64 * (3 * 3 * 64 + 1)
  # 50 pixels are pooled to 25 and to 12.
  dense = 512 * (12 * 12 * 64 + 1)
  logit = 512 + 1
  expected = stage1 + stage2 + stage3 + dense + logit
  assert article_cnn((50, 50, 1), WINDOW_HU).count_params() == expected


def test_convolutions_of_cubes_are_three_dimensional():
  network = article_cnn((16, 16, 16, 1), WINDOW_HU)
  assert isinstance(network.get_layer('stage1_conv'), keras.layers.Conv3D)
  assert network.get_layer('stage3_pool').output.shape == (None, 4, 4, 4, 64)


def test_weights_of_convolutions_are_penalised_as_in_tflearn():
  network = article_cnn((8, 8, 1), WINDOW_HU)
  penalised = [
    layer.name for layer in network.layers if getattr(layer, 'kernel_regularizer', None)
  ]
  assert penalised == ['stage1_conv', 'stage2_conv', 'stage3_conv']
  conv = network.get_layer('stage1_conv')
  conv.kernel.assign(keras.ops.ones_like(conv.kernel))
  # 0.001 / 2 for each of the 5 * 5 * 32 weights of value 1.
  assert abs(float(conv.losses[0]) - 0.0005 * 800) < 1e-6
