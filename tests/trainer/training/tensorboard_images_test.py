import fake_source
import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.util import event_pb2

from trainer.training.tensorboard_images import TensorBoardImages


@pytest.fixture(scope='module')
def network():
  image = keras.Input((16, 16, 1), name='image')
  x = keras.layers.Conv2D(4, 5, name='conv')(image)
  x = keras.layers.GlobalAveragePooling2D()(x)
  return keras.Model(image, keras.layers.Dense(1, name='logit')(x))


def make_split(folder, labels):
  rng = np.random.default_rng(0)
  rows = [
    (rng.integers(-1000, 400, (16, 16, 1)).astype(np.int16), label, False)
    for label in labels
  ]
  return fake_source.write_records(folder, rows, shards=1, split='validation')


def read_images(folder):
  """The logged images, by (name, step)."""
  images = {}
  for path in folder.rglob('events*'):
    for serialized in tf.data.TFRecordDataset(str(path)):
      event = event_pb2.Event.FromString(serialized.numpy())
      for value in event.summary.value:
        width, height, png = value.tensor.string_val[:3]
        image = tf.io.decode_png(png).numpy()
        assert image.shape[:2] == (int(height), int(width))
        images[value.tag, event.step] = image
  return images


@pytest.mark.parametrize(
  ('labels', 'names'),
  [
    ([0, 1, 1, 0, 0], {'filters', 'examples', 'precision_recall'}),
    # Of one class there is no curve.
    ([0, 0, 0], {'filters', 'examples'}),
    (None, {'filters'}),
  ],
)
def test_images_of_each_epoch_are_logged(tmp_path, network, labels, names):
  folder = tmp_path / 'shards'
  folder.mkdir()
  validation = None if labels is None else make_split(folder, labels)
  callback = TensorBoardImages(tmp_path / 'logs', validation)
  callback.set_model(network)
  callback.on_epoch_end(0)
  callback.on_epoch_end(1)
  images = read_images(tmp_path / 'logs')
  assert set(images) == {(name, step) for name in names for step in (0, 1)}
  # Nothing is blank.
  assert all(image.std() > 1 for image in images.values())


def test_a_network_without_a_convolution_has_no_filters(tmp_path):
  image = keras.Input((16, 16, 1), name='image')
  x = keras.layers.Flatten()(image)
  network = keras.Model(image, keras.layers.Dense(1, name='logit')(x))
  (tmp_path / 'shards').mkdir()
  validation = make_split(tmp_path / 'shards', [0, 1])
  callback = TensorBoardImages(tmp_path / 'logs', validation)
  callback.set_model(network)
  callback.on_epoch_end(0)
  images = read_images(tmp_path / 'logs')
  assert set(images) == {('examples', 0), ('precision_recall', 0)}
