"""Augmentation in the batch: stateless, seeded, on Hounsfield units.

Every op takes a batch and a seed [2] and gives the same result for the same seed, eagerly
and inside tf.data. Interpolation is in-plane only: slices are further apart than pixels.
For stacks and cubes the slices of one record move together. Zoom, rotation and mirrors
are about the centre, where the nodule is; only `shift_px` moves it.
"""

from __future__ import annotations

import dataclasses
import functools
import math

import numpy as np
import tensorflow as tf

_AIR_HU = -1000.0


@dataclasses.dataclass(frozen=True)
class AugmentConfig:
  """What is varied, and how far. A zero turns a part off.

  Attributes:
    turns: the eight quarter turns and mirrors, each as likely; of stacks and cubes the
      order of slices too.
    mirror: left-right flips alone (the eight turns hold them already).
    rotate_degrees: free rotation up to this angle, either way.
    shift_px: shift up to this on each axis.
    scale: zoom by a factor between 1 / (1 + scale) and 1 + scale.
    aspect: stretch of one axis against the other, by a factor within 1 +- aspect.
    intensity: contrast by a factor within 1 +- intensity about air, and a shift by as
      much of the window, 1400 HU, on either side.
    blur_px: Gaussian blur of a sigma up to this.
    soften: mixes in a 3x3 blur by a share within +- this; a negative share sharpens.
    noise_hu: Gaussian noise of a sigma up to this.
  """

  turns: bool = False
  mirror: bool = False
  rotate_degrees: float = 0.0
  shift_px: float = 0.0
  scale: float = 0.0
  aspect: float = 0.0
  intensity: float = 0.0
  blur_px: float = 0.0
  soften: float = 0.0
  noise_hu: float = 0.0

  def __post_init__(self):
    for field in dataclasses.fields(self):
      value = getattr(self, field.name)
      if not math.isfinite(value) or value < 0:
        raise ValueError(f'{field.name} must be 0 or more. Received: {value}')
    for name in ('scale', 'aspect', 'intensity', 'soften'):
      if getattr(self, name) >= 1:
        raise ValueError(f'{name} must be less than 1. Received: {getattr(self, name)}')
    if self.rotate_degrees > 180:
      raise ValueError(
        f'rotate_degrees must be at most 180. Received: {self.rotate_degrees}'
      )

  @property
  def warps(self) -> bool:
    """Whether pixels have to be interpolated."""
    return bool(self.rotate_degrees or self.shift_px or self.scale or self.aspect)


RECIPES = {
  'none': AugmentConfig(),
  'turns': AugmentConfig(turns=True),
  'standard': AugmentConfig(
    turns=True,
    rotate_degrees=45,
    shift_px=4,
    scale=0.2,
    aspect=0.05,
    intensity=0.12,
    soften=0.5,
    noise_hu=42,
  ),
  # The article's: a left-right flip, rotation within 25 degrees, blur.
  'article': AugmentConfig(mirror=True, rotate_degrees=25, blur_px=3.0),
  # With its copies of the nodules, turned by 90 and 180 degrees beforehand.
  'article_turned': AugmentConfig(turns=True, rotate_degrees=25, blur_px=3.0),
}


def augment(images: tf.Tensor, config: AugmentConfig, seed: tf.Tensor) -> tf.Tensor:
  """Augments a batch.

  Args:
    images: [batch, height, width, channels] or [batch, depth, height, width, 1], HU,
      int16 or float32.
    config: what is varied.
    seed: [2] int32 or int64; another one for each batch.

  Returns:
    Images of the same shape: int16 as long as pixels only change places, else float32.
  """
  if images.shape.rank == 5:
    # Slices as channels: all of them move alike.
    flat = tf.transpose(images[..., 0], [0, 2, 3, 1])
    flat = augment(flat, config, seed)
    return tf.transpose(flat, [0, 3, 1, 2])[..., tf.newaxis]
  # One seed for each part, so that turning one off leaves the others as they were.
  seeds = tf.unstack(tf.random.split(seed, 6))
  if config.turns:
    images = quarter_turns(images, seeds[0])
  elif config.mirror:
    images = mirror(images, seeds[0])
  if config.warps:
    images = warp(
      images,
      random_affines(tf.shape(images)[0], config, seeds[1]),
    )
  if config.blur_px:
    images = blur(images, config.blur_px, seeds[2])
  if config.soften:
    images = soften(images, config.soften, seeds[5])
  if config.intensity:
    images = vary_intensity(images, config.intensity, seeds[3])
  if config.noise_hu:
    images = add_noise(images, config.noise_hu, seeds[4])
  return images


def quarter_turns(images: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
  """Puts each image into one of its eight quarter turns and mirror images.

  Where there are several slices, their order is turned round in half of the images too:
  that is sound whatever the distance of slices, while an exchange of the depth axis with
  another would not be.

  Args:
    images: [batch, height, width, channels]; where height and width differ, only the
      four that keep the shape.
    seed: [2].
  """
  choice = tf.random.stateless_uniform([tf.shape(images)[0]], seed, 0, 16, tf.int32)
  if images.shape[1] == images.shape[2]:
    images = _where_bit(choice, 2, tf.transpose(images, [0, 2, 1, 3]), images)
  images = _where_bit(choice, 1, tf.reverse(images, [1]), images)
  images = _where_bit(choice, 0, _reverse_columns(images), images)
  if images.shape[3] > 1:
    images = _where_bit(choice, 3, tf.reverse(images, [3]), images)
  return images


def mirror(images: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
  """Flips half of the images left-right."""
  choice = tf.random.stateless_uniform([tf.shape(images)[0]], seed, 0, 2, tf.int32)
  return _where_bit(choice, 0, _reverse_columns(images), images)


def random_affines(
  batch: tf.Tensor, config: AugmentConfig, seed: tf.Tensor
) -> dict[str, tf.Tensor]:
  """Draws a rotation, a zoom and a shift for each image.

  Returns:
    `angle` [batch] in radians, `zoom_yx` [batch, 2], `shift_yx` [batch, 2] in pixels.
  """
  uniform = tf.random.stateless_uniform([5, batch], seed, -1.0, 1.0)
  zoom = tf.exp(uniform[1] * math.log1p(config.scale))
  stretch = tf.exp(uniform[2] * math.log1p(config.aspect))
  return {
    'angle': uniform[0] * math.radians(config.rotate_degrees),
    'zoom_yx': tf.stack([zoom * stretch, zoom / stretch], axis=1),
    'shift_yx': tf.transpose(uniform[3:]) * config.shift_px,
  }


def warp(images: tf.Tensor, affines: dict[str, tf.Tensor]) -> tf.Tensor:
  """Zooms and rotates about the centre, then shifts, in one interpolation.

  Bilinear; beyond the border the image is reflected, so that no corner is made up of a
  constant.

  Args:
    images: [batch, height, width, channels].
    affines: from `random_affines`. A zoom above 1 enlarges, a positive angle turns
      counter-clockwise as seen on a screen, a shift moves the content down and right.

  Returns:
    float32 images of the same shape.
  """
  height, width = images.shape[1:3]
  center_y, center_x = (height - 1) / 2, (width - 1) / 2
  zoom_y, zoom_x = affines['zoom_yx'][:, 0], affines['zoom_yx'][:, 1]
  shift_y, shift_x = affines['shift_yx'][:, 0], affines['shift_yx'][:, 1]
  cos, sin = tf.cos(affines['angle']), tf.sin(affines['angle'])
  # From each output pixel to the point it shows: undo the shift, rotate back, unzoom.
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


def blur(images: tf.Tensor, most_px: float, seed: tf.Tensor) -> tf.Tensor:
  """Blurs each image by a Gaussian of its own sigma, uniform in 0..most_px."""
  images = tf.cast(images, tf.float32)
  batch = tf.shape(images)[0]
  sigma = tf.random.stateless_uniform([batch, 1], seed, 1e-3, most_px)
  radius = math.ceil(3 * most_px)
  offsets = tf.range(-radius, radius + 1, dtype=tf.float32)
  kernel = tf.exp(-0.5 * (offsets / sigma) ** 2)
  return _convolve_plane(images, kernel / tf.reduce_sum(kernel, axis=1, keepdims=True))


def soften(images: tf.Tensor, most: float, seed: tf.Tensor) -> tf.Tensor:
  """Mixes into each image its 3x3 binomial blur by a share uniform in +-most.

  Reconstruction kernels differ from soft to sharp; this covers some of their range.
  """
  images = tf.cast(images, tf.float32)
  batch = tf.shape(images)[0]
  share = tf.random.stateless_uniform(tf.stack([batch, 1, 1, 1]), seed, -most, most)
  kernel = tf.tile([[0.25, 0.5, 0.25]], tf.stack([batch, 1]))
  blurred = _convolve_plane(images, kernel)
  return images + share * (blurred - images)


def vary_intensity(images: tf.Tensor, most: float, seed: tf.Tensor) -> tf.Tensor:
  """Scales contrast about air and shifts brightness, each by up to `most`."""
  images = tf.cast(images, tf.float32)
  shape = tf.concat([[2, tf.shape(images)[0]], [1, 1, 1]], 0)
  uniform = tf.random.stateless_uniform(shape, seed, -most, most)
  return _AIR_HU + (images - _AIR_HU) * (1 + uniform[0]) + uniform[1] * 1400.0 / 2


def add_noise(images: tf.Tensor, most_hu: float, seed: tf.Tensor) -> tf.Tensor:
  """Adds Gaussian noise of a sigma of its own to each image, uniform in 0..most_hu."""
  images = tf.cast(images, tf.float32)
  seeds = tf.unstack(tf.random.split(seed, 2))
  sigma = tf.random.stateless_uniform(
    [tf.shape(images)[0], 1, 1, 1], seeds[0], 0.0, most_hu
  )
  return images + sigma * tf.random.stateless_normal(tf.shape(images), seeds[1])


def eight_turns(images: np.ndarray | tf.Tensor) -> list[tf.Tensor]:
  """Returns the eight quarter turns and mirror images of a batch, in-plane.

  Args:
    images: [batch, height, width, channels] or [batch, depth, height, width, 1].
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
  """Mirrors [batch, height, width, channels] left-right."""
  if images.shape[3] == 1:
    # Five times faster than with an axis of one channel behind it.
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
