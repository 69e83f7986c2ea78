import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds

import luna_tfds


def dataset_of(count, shape=(4, 6, 1)):
  images = np.arange(count * np.prod(shape)).reshape(count, *shape).astype(np.int16)
  labels = np.arange(count) % 2
  return tf.data.Dataset.from_tensor_slices({'image': images, 'label': labels})


def test_records_are_drawn_with_their_class():
  figure = luna_tfds.show_examples(dataset_of(7), rows=2, columns=3, window_hu=(-5, 99))
  assert [axes.get_title() for axes in figure.axes] == ['non_nodule', 'nodule'] * 3
  for axes, record in zip(figure.axes, dataset_of(6).as_numpy_iterator()):
    (drawn,) = axes.images
    np.testing.assert_array_equal(drawn.get_array(), record['image'][..., 0])
    assert drawn.get_clim() == (-5, 99)


@pytest.mark.parametrize(
  ('shape', 'middle'), [((4, 6, 3), np.s_[:, :, 1]), ((5, 4, 6, 1), np.s_[2, :, :, 0])]
)
def test_of_volumes_and_stacks_the_middle_slice(shape, middle):
  figure = luna_tfds.show_examples(dataset_of(1, shape))
  image = next(dataset_of(1, shape).as_numpy_iterator())['image']
  (drawn,) = figure.axes[0].images
  np.testing.assert_array_equal(drawn.get_array(), image[middle])


def test_fewer_records_than_cells():
  figure = luna_tfds.show_examples(dataset_of(1), rows=1, columns=2)
  assert [len(axes.images) for axes in figure.axes] == [1, 0]


def test_an_extracted_dataset(data_dir):
  dataset = tfds.load('luna16_patches', split='train', data_dir=data_dir)
  figure = luna_tfds.show_examples(dataset)
  assert [len(axes.images) for axes in figure.axes] == [1] * 9
