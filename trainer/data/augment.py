"""Augmentation of whole batches: stateless, seeded, on Hounsfield units.

Every op takes a batch and a seed [2] and gives the same result for the same seed, in
eager code and inside tf.data. Interpolation is in-plane only: slices are further apart
than pixels. For stacks and cubes the slices of one record move together. Zoom, rotation
and flips are about the centre, where the nodule is; only `shift_px` moves it.
"""

from __future__ import annotations

import functools
import math
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from luna_tfds.hounsfield import AIR_HU
from luna_tfds.hounsfield import WINDOW_HU
from trainer.config import AugmentConfig

# Half the HU window: brightness is shifted by a share of it.
_HALF_WINDOW_HU = (WINDOW_HU[1] - WINDOW_HU[0]) / 2


def augment(images: tf.Tensor, config: AugmentConfig, seed: tf.Tensor) -> tf.Tensor:
  """Augments a batch.

  Args:
    images: [batch, height, width, channels] or [batch, depth, height, width, 1], HU,
      int16 or float32.
    config: what is varied.
    seed: [2] int32 or int64; another one for each batch.

  Returns:
    Images of the same shape: int16 if pixels only change places, else float32.
  """
  if images.shape.rank == 5:
    # Slices as channels: all of them move alike.
    flat = tf.transpose(images[..., 0], [0, 2, 3, 1])
    flat = augment(flat, config, seed)
    return tf.transpose(flat, [0, 3, 1, 2])[..., tf.newaxis]
  # One seed for each part, so that turning one off leaves the others as they were.
  seeds = tf.unstack(tf.random.split(seed, 6))
  if config.flips_and_rot90:
    images = random_flips_and_rot90(images, seeds[0])
  elif config.flip_left_right:
    images = random_flip_left_right(images, seeds[0])
  if config.interpolates:
    affines = random_affines(tf.shape(images)[0], config, seeds[1])
    images = affine_warp(images, affines)
  if config.blur_px:
    images = random_gaussian_blur(images, config.blur_px, seeds[2])
  if config.sharpness:
    images = random_sharpness(images, config.sharpness, seeds[5])
  if config.contrast_brightness:
    images = random_contrast_brightness(images, config.contrast_brightness, seeds[3])
  if config.noise_hu:
    images = random_gaussian_noise(images, config.noise_hu, seeds[4])
  return images


def output_dtype(config: AugmentConfig, dtype: tf.DType) -> tf.DType:
  """Returns the dtype of augmented images: float32 unless pixels only change places."""
  return dtype if config == config.undistorted else tf.float32


def random_flips_and_rot90(images: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
  """Applies one of the eight combinations of flips and rotations by 90 degrees.

  Where there are several slices, their order is reversed in half of the images too. That
  is valid whatever the distance between slices; swapping the depth axis with another axis
  would not be.

  Args:
    images: [batch, height, width, channels]; where height and width differ, only the
      four combinations that keep the shape are used.
    seed: [2] int64.
  """
  choice = tf.random.stateless_uniform([tf.shape(images)[0]], seed, 0, 16, tf.int32)
  if images.shape[1] == images.shape[2]:
    images = _where_bit(choice, 2, tf.transpose(images, [0, 2, 1, 3]), images)
  images = _where_bit(choice, 1, tf.reverse(images, [1]), images)
  images = _where_bit(choice, 0, _reverse_columns(images), images)
  if images.shape[3] > 1:
    images = _where_bit(choice, 3, tf.reverse(images, [3]), images)
  return images


def random_flip_left_right(images: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
  """Flips half of the images left-right."""
  choice = tf.random.stateless_uniform([tf.shape(images)[0]], seed, 0, 2, tf.int32)
  return _where_bit(choice, 0, _reverse_columns(images), images)


class Affines(NamedTuple):
  """An affine transform for each image of a batch.

  Attributes:
    angle: [batch] float32, radians.
    zoom_yx: [batch, 2] float32.
    shift_yx: [batch, 2] float32, pixels.
  """

  angle: tf.Tensor
  zoom_yx: tf.Tensor
  shift_yx: tf.Tensor


def random_affines(batch: tf.Tensor, config: AugmentConfig, seed: tf.Tensor) -> Affines:
  """Draws a rotation, a zoom and a shift for each of `batch` images."""
  uniform = tf.random.stateless_uniform([5, batch], seed, -1.0, 1.0)
  zoom = tf.exp(uniform[1] * math.log1p(config.scale))
  stretch = tf.exp(uniform[2] * math.log1p(config.aspect))
  return Affines(
    angle=uniform[0] * math.radians(config.rotate_degrees),
    zoom_yx=tf.stack([zoom * stretch, zoom / stretch], axis=1),
    shift_yx=tf.transpose(uniform[3:]) * config.shift_px,
  )


def affine_warp(images: tf.Tensor, affines: Affines) -> tf.Tensor:
  """Zooms and rotates about the centre, then shifts, in one interpolation.

  Bilinear. Beyond the border the image is reflected, so that no corner is filled with a
  constant.

  Args:
    images: [batch, height, width, channels].
    affines: a transform for each image. A zoom above 1 enlarges, a positive angle
      rotates counter-clockwise as seen on a screen, a shift moves the content down and
      right.

  Returns:
    float32 images of the same shape.
  """
  height, width = images.shape[1:3]
  center_y, center_x = (height - 1) / 2, (width - 1) / 2
  zoom_y, zoom_x = affines.zoom_yx[:, 0], affines.zoom_yx[:, 1]
  shift_y, shift_x = affines.shift_yx[:, 0], affines.shift_yx[:, 1]
  cos, sin = tf.cos(affines.angle), tf.sin(affines.angle)
  # From each output pixel to the input point it shows: the inverse of shift, rotation
  # and zoom.
  x_from_x, x_from_y = cos / zoom_x, -sin / zoom_x
  y_from_x, y_from_y = sin / zoom_y, cos / zoom_y
  left, top = center_x + shift_x, center_y + shift_y
  zero = tf.zeros_like(cos)
  transforms = tf.stack(
    [
      x_from_x,
      x_from_y,
      center_x - x_from_x * left - x_from_y * top,
      y_from_x,
      y_from_y,
      center_y - y_from_x * left - y_from_y * top,
      zero,
      zero,
    ],
    axis=1,
  )
  return tf.raw_ops.ImageProjectiveTransformV3(
    images=tf.cast(images, tf.float32),
    transforms=transforms,
    output_shape=[height, width],
    interpolation='BILINEAR',
    fill_mode='REFLECT',
    fill_value=0.0,
  )


def random_gaussian_blur(
  images: tf.Tensor, most_px: float, seed: tf.Tensor
) -> tf.Tensor:
  """Blurs each image with a Gaussian; its sigma is uniform in 0..most_px."""
  images = tf.cast(images, tf.float32)
  batch = tf.shape(images)[0]
  sigma = tf.random.stateless_uniform([batch, 1], seed, 1e-3, most_px)
  radius = math.ceil(3 * most_px)
  offsets = tf.range(-radius, radius + 1, dtype=tf.float32)
  kernel = tf.exp(-0.5 * (offsets / sigma) ** 2)
  return _convolve_plane(images, kernel / tf.reduce_sum(kernel, axis=1, keepdims=True))


def random_sharpness(images: tf.Tensor, most: float, seed: tf.Tensor) -> tf.Tensor:
  """Mixes each image with its 3x3 binomial blur; the share is uniform in +-most.

  Reconstruction kernels of CT scanners range from soft to sharp; this imitates a part of
  that range.
  """
  images = tf.cast(images, tf.float32)
  batch = tf.shape(images)[0]
  share = tf.random.stateless_uniform(tf.stack([batch, 1, 1, 1]), seed, -most, most)
  kernel = tf.tile([[0.25, 0.5, 0.25]], tf.stack([batch, 1]))
  blurred = _convolve_plane(images, kernel)
  return images + share * (blurred - images)


def random_contrast_brightness(
  images: tf.Tensor, most: float, seed: tf.Tensor
) -> tf.Tensor:
  """Scales contrast about air and shifts brightness, each by up to `most`.

  A shift of `most` is that share of half the HU window.
  """
  images = tf.cast(images, tf.float32)
  shape = tf.concat([[2, tf.shape(images)[0]], [1, 1, 1]], 0)
  uniform = tf.random.stateless_uniform(shape, seed, -most, most)
  return AIR_HU + (images - AIR_HU) * (1 + uniform[0]) + uniform[1] * _HALF_WINDOW_HU


def random_gaussian_noise(
  images: tf.Tensor, most_hu: float, seed: tf.Tensor
) -> tf.Tensor:
  """Adds Gaussian noise to each image; its sigma is uniform in 0..most_hu."""
  images = tf.cast(images, tf.float32)
  seeds = tf.unstack(tf.random.split(seed, 2))
  sigma = tf.random.stateless_uniform(
    [tf.shape(images)[0], 1, 1, 1], seeds[0], 0.0, most_hu
  )
  return images + sigma * tf.random.stateless_normal(tf.shape(images), seeds[1])


def dihedral_views(images: np.ndarray | tf.Tensor) -> list[tf.Tensor]:
  """Returns the eight in-plane combinations of flips and rotations by 90 degrees.

  Args:
    images: [batch, height, width, channels] or [batch, depth, height, width, 1].

  Returns:
    Batches of the same shape, the images as they are first; where height and width
    differ, only the four that keep the shape.
  """
  images = tf.convert_to_tensor(images)
  rows, columns = images.shape.rank - 3, images.shape.rank - 2
  order = list(range(images.shape.rank))
  order[rows], order[columns] = columns, rows
  bases = [images]
  if images.shape[rows] == images.shape[columns]:
    bases.append(tf.transpose(images, order))
  return [
    tf.reverse(base, axes) if axes else base
    for base in bases
    for axes in ([], [rows], [columns], [rows, columns])
  ]


def _where_bit(choice: tf.Tensor, bit: int, yes: tf.Tensor, no: tf.Tensor) -> tf.Tensor:
  """Takes an image [batch, ...] from `yes` where a bit of its choice is set."""
  # The old Select copies whole images; tf.where would broadcast the condition.
  return tf.raw_ops.Select(
    condition=tf.bitwise.bitwise_and(choice, 1 << bit) > 0, x=yes, y=no
  )


def _reverse_columns(images: tf.Tensor) -> tf.Tensor:
  """Flips [batch, height, width, channels] left-right."""
  if images.shape[3] == 1:
    # Reversing the last axis is five times faster than an axis before one channel.
    return tf.reverse(images[..., 0], [2])[..., tf.newaxis]
  return tf.reverse(images, [2])


def _convolve_plane(images: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
  """Convolves the rows and the columns of each image with a kernel.

  As products with band matrices, seven times faster than a sum over shifted images. The
  border is reflected, (b a | a b c).

  Args:
    images: [batch, height, width, channels] float32.
    kernel: [batch, 2 * radius + 1] float32, symmetric.
  """
  height, width, channels = images.shape[1:]
  radius = kernel.shape[1] // 2
  bands = {
    size: tf.reshape(
      kernel @ tf.constant(_reflected_shifts(size, radius)), [-1, size, size]
    )
    for size in {height, width}
  }
  # Equal batch sizes: broadcast products give garbage or crash in TensorFlow 2.21.
  images = bands[height] @ tf.reshape(images, [-1, height, width * channels])
  images = tf.reshape(images, [-1, height, width, channels])
  rows = tf.reshape(tf.transpose(images, [0, 1, 3, 2]), [-1, height * channels, width])
  rows = tf.matmul(rows, bands[width], transpose_b=True)
  rows = tf.reshape(rows, [-1, height, channels, width])
  return tf.transpose(rows, [0, 1, 3, 2])


@functools.lru_cache(maxsize=16)
def _reflected_shifts(size: int, radius: int) -> np.ndarray:
  """Matrices [2 * radius + 1, size * size] float32 that shift an axis by -radius.. ."""
  shifts = np.zeros((2 * radius + 1, size, size), np.float32)
  for k, row in np.ndindex(2 * radius + 1, size):
    source = (row + k - radius) % (2 * size)
    shifts[k, row, min(source, 2 * size - 1 - source)] = 1
  return shifts.reshape(2 * radius + 1, size * size)
