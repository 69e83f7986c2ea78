import json
import subprocess
import sys
import zipfile

import keras
import numpy as np
import pytest

from model.networks import layers
from model.networks import model_names
from model.networks import registry

WINDOW_HU = (-1000, 400)
SHAPES = {
  'patch': (50, 50, 1),
  'stack': (50, 50, 3),
  'cube': (16, 16, 16, 1),
}


def random_hu(shape, batch=2, seed=0):
  values = np.random.default_rng(seed).integers(-1000, 400, (batch, *shape))
  return values.astype(np.int16)


def save_like_version_1_0_0(network, path):
  """Saves with the path that the custom layers' module had in release 1.0.0.

  The rest of the file is equal to that of release 1.0.0.
  """
  network.save(path)
  with zipfile.ZipFile(path) as archive:
    files = {name: archive.read(name) for name in archive.namelist()}
  config = files['config.json'].decode()
  assert '"model.networks.layers"' in config
  files['config.json'] = config.replace(
    '"model.networks.layers"', '"model.layers"'
  ).encode()
  with zipfile.ZipFile(path, 'w') as archive:
    for name, content in files.items():
      archive.writestr(name, content)


def test_listed_names_are_those_of_the_builders():
  assert tuple(registry.BUILDERS) == model_names.MODELS


def test_names_are_listed_without_keras():
  code = (
    'import sys; from model.networks import model_names\n'
    'assert not {"keras", "tensorflow", "numpy"} & set(sys.modules)\n'
  )
  subprocess.run([sys.executable, '-c', code], check=True)


@pytest.mark.parametrize('name', model_names.MODELS)
@pytest.mark.parametrize('shape', SHAPES.values(), ids=SHAPES)
def test_network_maps_hu_to_one_float32_logit(name, shape):
  network = registry.build(name, shape, WINDOW_HU)
  logit = network(random_hu(shape))
  assert logit.shape == (2, 1)
  assert keras.backend.standardize_dtype(logit.dtype) == 'float32'
  assert np.isfinite(logit).all()


@pytest.mark.parametrize('name', model_names.MODELS)
def test_network_sees_the_given_window_only(name):
  network = registry.build(name, (16, 16, 1), window_hu=(-200, 300))
  images = random_hu((16, 16, 1))
  np.testing.assert_array_equal(network(images), network(np.clip(images, -200, 300)))
  assert not np.array_equal(network(images), network(np.clip(images, -200, 200)))


@pytest.mark.parametrize('name', model_names.MODELS)
def test_layers_are_named_by_stage(name):
  names = [layer.name for layer in registry.build(name, (50, 50, 1), WINDOW_HU).layers]
  assert names[:2] == ['image', 'hu_window']
  assert names[-1] == 'logit'
  assert all(n.startswith(('stage', 'head', 'crop')) for n in names[2:-1])


@pytest.mark.parametrize('name', model_names.MODELS)
@pytest.mark.parametrize('shape', [SHAPES['patch'], SHAPES['cube']], ids=['2d', '3d'])
def test_saved_network_is_loaded_in_safe_mode(name, shape, tmp_path):
  network = registry.build(name, shape, (-900, 300))
  network.save(tmp_path / 'network.keras')
  loaded = keras.models.load_model(tmp_path / 'network.keras', safe_mode=True)
  images = random_hu(shape)
  np.testing.assert_array_equal(network(images), loaded(images))
  window = loaded.get_layer('hu_window')
  assert (window.low_hu, window.high_hu) == (-900, 300)


@pytest.mark.parametrize('name', model_names.MODELS)
def test_network_saved_by_version_1_0_0_is_loaded(name, tmp_path):
  network = registry.build(name, (16, 16, 1), WINDOW_HU)
  logit = layers.PriorShift(0.5, 0.05, name='prior_shift')(network.output)
  network = keras.Model(network.input, logit)
  save_like_version_1_0_0(network, tmp_path / 'network.keras')
  loaded = keras.models.load_model(tmp_path / 'network.keras')
  images = random_hu((16, 16, 1))
  np.testing.assert_array_equal(network(images), loaded(images))


def test_window_is_saved_as_in_version_1_0_0(tmp_path):
  network = registry.build('article_cnn', (16, 16, 1), WINDOW_HU)
  network.save(tmp_path / 'network.keras')
  with zipfile.ZipFile(tmp_path / 'network.keras') as archive:
    config = json.loads(archive.read('config.json'))
  window = config['config']['layers'][1]
  assert window['registered_name'] == 'luna16_patches>HUWindow'
  assert repr(window['config']['low_hu']) == '-1000.0'
  assert repr(window['config']['high_hu']) == '400.0'


def test_unknown_network_is_refused_with_the_list_of_names():
  with pytest.raises(ValueError, match=r"article_cnn, nodule_net\. Received: 'resnet'"):
    registry.build('resnet', (50, 50, 1), WINDOW_HU)
