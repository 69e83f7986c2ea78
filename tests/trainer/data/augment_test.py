import dataclasses

import numpy as np
import pytest
from scipy import ndimage
import tensorflow as tf

from trainer import config as config_lib
from trainer.data import augment

AUGMENTATIONS = config_lib.AUGMENTATIONS
AugmentConfig = config_lib.AugmentConfig

SEED = tf.constant([3, 5], tf.int64)
SHAPES = [(6, 13, 13, 1), (5, 12, 16, 3), (4, 6, 10, 10, 1)]

OPS = {
  'flips and rotations': augment.random_flips_and_rot90,
  'flip': augment.random_flip_left_right,
  'affine warp': lambda x, s: augment.affine_warp(
    x, augment.random_affines(tf.shape(x)[0], AUGMENTATIONS['standard'], s)
  ),
  'blur': lambda x, s: augment.random_gaussian_blur(x, 2.0, s),
  'sharpness': lambda x, s: augment.random_sharpness(x, 0.5, s),
  'contrast': lambda x, s: augment.random_contrast_brightness(x, 0.2, s),
  'noise': lambda x, s: augment.random_gaussian_noise(x, 40.0, s),
  **{
    name: lambda x, s, config=config: augment.augment(x, config, s)
    for name, config in AUGMENTATIONS.items()
  },
}


def noise(shape, seed=0):
  return np.random.default_rng(seed).integers(-1000, 1500, shape).astype(np.int16)


def affines(angle=0.0, zoom_yx=(1.0, 1.0), shift_yx=(0.0, 0.0)):
  return augment.Affines(
    angle=tf.constant([angle], tf.float32),
    zoom_yx=tf.constant([zoom_yx], tf.float32),
    shift_yx=tf.constant([shift_yx], tf.float32),
  )


def in_dataset(op, images, seed):
  dataset = tf.data.Dataset.from_tensors((images, seed)).map(op)
  return next(iter(dataset)).numpy()


@pytest.mark.parametrize('shape', SHAPES[:2])
@pytest.mark.parametrize('name', OPS)
def test_ops_give_the_same_eagerly_and_in_a_dataset(name, shape):
  images = noise(shape)
  eager = OPS[name](tf.constant(images), SEED).numpy()
  assert eager.shape == shape
  # The graph may fuse a multiplication and an addition: the last digit may differ.
  np.testing.assert_allclose(in_dataset(OPS[name], images, SEED), eager, atol=2e-3)
  np.testing.assert_array_equal(OPS[name](tf.constant(images), SEED), eager)
  if name != 'none':
    other = OPS[name](tf.constant(images), SEED + 1)
    assert not np.array_equal(other, eager)


@pytest.mark.parametrize('shape', SHAPES)
@pytest.mark.parametrize('name', AUGMENTATIONS)
def test_augmentations_keep_the_shape_and_int16_where_pixels_only_move(name, shape):
  images = noise(shape)
  result = augment.augment(tf.constant(images), AUGMENTATIONS[name], SEED)
  assert result.shape == shape
  assert result.dtype == (
    tf.int16 if name in ('none', 'flips_and_rot90') else tf.float32
  )
  assert result.dtype == augment.output_dtype(AUGMENTATIONS[name], tf.int16)
  assert np.isfinite(result.numpy().astype(np.float32)).all()
  if name == 'none':
    np.testing.assert_array_equal(result, images)


def test_without_one_part_the_others_draw_the_same():
  images = tf.constant(noise((8, 11, 11, 1)))
  standard = AUGMENTATIONS['standard']
  with_noise = augment.augment(images, standard, SEED)
  without = augment.augment(images, dataclasses.replace(standard, noise_hu=0), SEED)
  difference = (with_noise - without).numpy()
  assert 5 < difference.std() < 42
  assert abs(difference.mean()) < 5


def test_flips_and_rotations_are_the_eight_of_numpy_equally_often():
  image = noise((1, 9, 9, 1))
  plane = image[0, :, :, 0]
  eight = [np.rot90(p, k) for p in (plane, plane.T) for k in range(4)]
  views = augment.random_flips_and_rot90(tf.repeat(image, 800, 0), SEED).numpy()[..., 0]
  counts = [sum(np.array_equal(t, e) for t in views) for e in eight]
  assert sum(counts) == 800
  assert min(counts) > 60


def test_images_that_are_not_square_keep_their_shape():
  image = noise((1, 6, 9, 1))
  plane = image[0, :, :, 0]
  four = [plane, plane[::-1], plane[:, ::-1], plane[::-1, ::-1]]
  views = augment.random_flips_and_rot90(tf.repeat(image, 200, 0), SEED).numpy()[..., 0]
  counts = [sum(np.array_equal(t, e) for t in views) for e in four]
  assert sum(counts) == 200
  assert min(counts) > 25


def test_half_of_the_images_are_flipped_left_right():
  image = noise((1, 5, 7, 2))
  flipped = augment.random_flip_left_right(tf.repeat(image, 400, 0), SEED).numpy()
  counts = [(flipped == e).all((1, 2, 3)).sum() for e in (image, image[:, :, ::-1])]
  assert sum(counts) == 400
  assert 150 < counts[0] < 250


def test_slices_of_a_cube_move_together_and_their_order_is_reversed_too():
  cube = noise((1, 4, 7, 7, 1))
  views = augment.augment(
    tf.repeat(cube, 300, 0), AUGMENTATIONS['flips_and_rot90'], SEED
  )
  slices = cube[0, ..., 0]
  sixteen = [
    np.rot90(c, k, (1, 2))
    for stack in (slices, slices[::-1])
    for c in (stack, stack.transpose(0, 2, 1))
    for k in range(4)
  ]
  counts = [sum(np.array_equal(t, s) for t in views.numpy()[..., 0]) for s in sixteen]
  assert sum(counts) == 300
  assert min(counts) > 4


@pytest.mark.parametrize('layout', ['stack', 'cube'])
def test_stacks_and_cubes_are_warped_as_each_of_their_slices(layout):
  slices = noise((3, 12, 12))
  config = AugmentConfig(rotate_degrees=40, scale=0.2, shift_px=2)
  record = slices.transpose(1, 2, 0) if layout == 'stack' else slices[..., np.newaxis]
  result = augment.augment(tf.constant(record[np.newaxis]), config, SEED).numpy()[0]
  for k in range(3):
    one = augment.augment(
      tf.constant(slices[k][np.newaxis, ..., np.newaxis]), config, SEED
    )
    of_slice = result[..., k] if layout == 'stack' else result[k, ..., 0]
    np.testing.assert_allclose(of_slice, one.numpy()[0, ..., 0], atol=1e-3)


@pytest.mark.parametrize(
  'fields',
  [
    {},
    {'angle': 0.6},
    {'angle': -2.9},
    {'zoom_yx': (1.3, 0.8)},
    {'shift_yx': (3.4, -2.25)},
    {'angle': 0.4, 'zoom_yx': (0.7, 0.9), 'shift_yx': (-5.5, 1.5)},
  ],
)
@pytest.mark.parametrize('shape', [(21, 21), (20, 30)])
def test_affine_warp_is_that_of_scipy(fields, shape):
  image = noise(shape).astype(np.float32)
  # A positive angle rotates counter-clockwise on a screen, whose y axis points down.
  angle = fields.get('angle', 0.0)
  turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
  forward = turn @ np.diag(fields.get('zoom_yx', (1, 1)))
  inverse = np.linalg.inv(forward)
  center = (np.array(shape) - 1) / 2
  offset = center - inverse @ (center + fields.get('shift_yx', (0, 0)))
  expected = ndimage.affine_transform(image, inverse, offset, order=1, mode='reflect')
  result = augment.affine_warp(image[np.newaxis, ..., np.newaxis], affines(**fields))
  np.testing.assert_allclose(result.numpy()[0, ..., 0], expected, atol=1.0)


def test_a_positive_angle_rotates_counter_clockwise():
  image = noise((1, 15, 15, 1)).astype(np.float32)
  result = augment.affine_warp(image, affines(angle=np.pi / 2)).numpy()[0, ..., 0]
  np.testing.assert_allclose(result, np.rot90(image[0, ..., 0]), atol=0.5)


@pytest.mark.parametrize('name', [n for n in AUGMENTATIONS if n != 'none'])
@pytest.mark.parametrize('size', [50, 51])
def test_a_nodule_stays_in_the_centre(name, size):
  position = np.indices((size, size)) - (size - 1) / 2
  blob = 1000 * np.exp(-(position**2).sum(0) / (2 * 3.0**2)) - 900
  config = dataclasses.replace(AUGMENTATIONS[name], shift_px=0, noise_hu=0)
  images = np.repeat(blob[np.newaxis, ..., np.newaxis], 32, 0).astype(np.float32)
  result = augment.augment(tf.constant(images), config, SEED).numpy()[..., 0]
  weight = result - result.min((1, 2), keepdims=True)
  weight = np.where(weight > 0.2 * weight.max((1, 2), keepdims=True), weight, 0)
  for axis in (0, 1):
    mean = (weight * position[axis]).sum((1, 2)) / weight.sum((1, 2))
    np.testing.assert_allclose(mean, 0, atol=0.1)


def test_shifts_fill_their_range():
  config = AugmentConfig(shift_px=4)
  image = np.full((64, 31, 31, 1), -1000, np.float32)
  image[:, 15, 15] = 1000
  result = augment.augment(tf.constant(image), config, SEED).numpy()[..., 0] + 1000
  index = np.indices((31, 31)) - 15
  moves = np.stack(
    [(result * index[a]).sum((1, 2)) / result.sum((1, 2)) for a in (0, 1)]
  )
  assert 3 < np.abs(moves).max() <= 4.001
  assert np.abs(moves.mean(1)).max() < 1


@pytest.mark.parametrize('name', ['article', 'article_rot90', 'standard'])
def test_no_corner_is_filled_with_a_constant(name):
  # In an image of one value, another value could only come from filled corners.
  config = dataclasses.replace(AUGMENTATIONS[name], contrast_brightness=0, noise_hu=0)
  images = tf.fill([16, 50, 50, 1], tf.constant(-777, tf.int16))
  result = augment.augment(images, config, SEED)
  np.testing.assert_allclose(result, -777, atol=1e-2)


def test_random_affines_fill_their_ranges():
  config = AugmentConfig(rotate_degrees=25, scale=0.2, shift_px=3, aspect=0.1)
  drawn = augment.random_affines(tf.constant(4000), config, SEED)
  degrees = np.degrees(drawn.angle)
  assert 24.5 < degrees.max() <= 25 and -25 <= degrees.min() < -24.5
  zoom = drawn.zoom_yx.numpy()
  scale = np.sqrt(zoom.prod(1))
  assert 1 / 1.2 - 1e-4 <= scale.min() < 0.85 and 1.18 < scale.max() <= 1.2001
  aspect = np.sqrt(zoom[:, 0] / zoom[:, 1])
  assert 1 / 1.1 - 1e-4 <= aspect.min() < 0.92 and 1.08 < aspect.max() <= 1.1001
  assert np.abs(drawn.shift_yx).max() <= 3
  assert abs(np.corrcoef(degrees, scale)[0, 1]) < 0.05


def sigmas_of(most_px, batch, seed=SEED):
  return tf.random.stateless_uniform([batch, 1], seed, 1e-3, most_px).numpy()[:, 0]


@pytest.mark.parametrize('shape', [(6, 30, 30, 1), (5, 17, 24, 3), (3, 5, 5, 1)])
def test_blur_is_that_of_scipy(shape):
  images = noise(shape).astype(np.float32)
  result = augment.random_gaussian_blur(images, 3.0, SEED).numpy()
  for image, sigma, mine in zip(images, sigmas_of(3.0, shape[0]), result):
    kernel = np.exp(-0.5 * (np.arange(-9, 10) / sigma) ** 2)
    kernel /= kernel.sum()
    for axis in (0, 1):
      image = ndimage.convolve1d(image, kernel, axis, mode='reflect')
    np.testing.assert_allclose(mine, image, atol=0.1)


def test_sharpness_mixes_in_a_binomial_blur():
  images = noise((7, 14, 15, 2)).astype(np.float32)
  result = augment.random_sharpness(images, 0.5, SEED).numpy()
  shares = []
  for image, mine in zip(images, result):
    blurred = image
    for axis in (0, 1):
      blurred = ndimage.convolve1d(blurred, [0.25, 0.5, 0.25], axis, mode='reflect')
    share = ((mine - image) * (blurred - image)).sum() / ((blurred - image) ** 2).sum()
    np.testing.assert_allclose(mine, image + share * (blurred - image), atol=0.1)
    shares.append(share)
  assert -0.5 <= min(shares) < 0 < max(shares) <= 0.5


def test_contrast_is_scaled_about_air():
  images = np.full((200, 2, 1, 1), -1000, np.float32)
  images[:, 1] = 0
  result = augment.random_contrast_brightness(images, 0.12, SEED).numpy()[..., 0, 0]
  shift, contrast = result[:, 0] + 1000, (result[:, 1] - result[:, 0]) / 1000
  assert 80 < np.abs(shift).max() <= 84.01
  assert 0.88 <= contrast.min() < 0.9 and 1.1 < contrast.max() <= 1.1201
  assert abs(np.corrcoef(shift, contrast)[0, 1]) < 0.2


def test_noise_has_a_random_sigma():
  result = augment.random_gaussian_noise(tf.zeros([300, 40, 40, 1]), 42.0, SEED).numpy()
  sigmas = result.std((1, 2, 3))
  assert sigmas.max() < 45
  assert abs(sigmas.mean() - 21) < 2.5
  assert np.abs(result.mean((1, 2, 3))).max() < 5


def test_dihedral_views_are_all_different():
  for shape in ((2, 6, 6, 1), (2, 3, 6, 6, 1)):
    images = noise(shape)
    views = [t.numpy() for t in augment.dihedral_views(images)]
    np.testing.assert_array_equal(views[0], images)
    assert len({t.tobytes() for t in views}) == 8
    assert all(sorted(t.ravel()) == sorted(images.ravel()) for t in views)
  assert len(augment.dihedral_views(noise((1, 6, 8, 1)))) == 4
