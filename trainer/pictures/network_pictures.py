"""Pictures of what a network computes: filters, feature maps, Grad-CAM."""

from __future__ import annotations

from collections.abc import Callable
import functools

import keras
from matplotlib.figure import Figure
import numpy as np
import tensorflow as tf

from trainer.pictures import plots

_MAX_MAPS = 32


def all_pictures(
  model: keras.Model, image: np.ndarray
) -> dict[str, Callable[[], Figure]]:
  """Computes what a network computes of one patch, for drawing.

  Args:
    model: a network or an inference model.
    image: one image in the record's layout.

  Returns:
    By name, functions that draw a Matplotlib figure, in the colours of the theme in
    force: 'filters', 'features_<layer>' for each convolution, and 'grad_cam'; none if
    the network has no convolution.
  """
  if not convolutions(model):
    return {}
  pictures = {'filters': functools.partial(draw_filters, first_filters(model))}
  for name, maps in feature_maps(model, image).items():
    pictures[f'features_{name}'] = functools.partial(draw_maps, maps, name)
  cam = grad_cam(model, image)
  return {**pictures, 'grad_cam': functools.partial(draw_grad_cam, image, cam)}


def convolutions(model: keras.Model) -> list[keras.layers.Layer]:
  """Returns the convolution layers, in order."""
  kinds = (keras.layers.Conv2D, keras.layers.Conv3D)
  return [layer for layer in model.layers if isinstance(layer, kinds)]


def first_filters(model: keras.Model) -> np.ndarray:
  """Returns the filters [n, height, width] of the first convolution, which must be there.

  Of volumes the middle slice.
  """
  kernel = np.asarray(convolutions(model)[0].kernel, np.float32)
  if kernel.ndim == 5:
    kernel = kernel[kernel.shape[0] // 2]
  return kernel[:, :, kernel.shape[2] // 2].transpose(2, 0, 1)


def feature_maps(model: keras.Model, image: np.ndarray) -> dict[str, np.ndarray]:
  """Returns the response of each convolution to a patch, after its activation.

  Args:
    model: takes HU.
    image: one image in the record's layout.

  Returns:
    [maps, height, width] float32 by layer; of volumes the middle slice.
  """
  outputs = {layer.name: _activated(model, layer) for layer in convolutions(model)}
  responses = keras.Model(model.input, list(outputs.values()))(
    image[np.newaxis], training=False
  )
  maps = {}
  for name, response in zip(outputs, responses):
    response = np.asarray(keras.ops.cast(response, 'float32'))[0]
    if response.ndim == 4:
      response = response[response.shape[0] // 2]
    maps[name] = response.transpose(2, 0, 1)
  return maps


def grad_cam(model: keras.Model, image: np.ndarray) -> np.ndarray:
  """Computes the Grad-CAM evidence for the nodule class at each place of a patch.

  Selvaraju et al., "Grad-CAM: Visual Explanations from Deep Networks via Gradient-based
  Localization", ICCV 2017, on the last convolution, with the gradient at each place
  instead of their mean (as in HiResCAM, Draelos & Carin, 2020). For a network that ends in
  a mean and one dense layer this decomposes the logit exactly.

  Args:
    model: takes HU.
    image: one image in the record's layout.

  Returns:
    [height, width] float32 in 0..1, resized to the image; of volumes the middle slice.
  """
  # The network in two: up to the last convolution, and from there on.
  joint = _activated(model, convolutions(model)[-1])
  response = keras.Model(model.input, joint)(image[np.newaxis], training=False)
  head = keras.Model(joint, model.get_layer('logit').output)
  with tf.GradientTape() as tape:
    tape.watch(response)
    score = head(response, training=False)
  weights = tape.gradient(score, response)
  cam = tf.nn.relu(tf.reduce_sum(tf.cast(weights * response, tf.float32), -1))[0]
  if cam.shape.rank == 3:
    cam = cam[cam.shape[0] // 2]
  rows, columns = image.shape[-3:-1] if image.ndim == 4 else image.shape[:2]
  resized = tf.image.resize(cam[..., tf.newaxis], (rows, columns))[..., 0]
  evidence: np.ndarray = resized.numpy()
  return evidence / max(float(evidence.max()), 1e-9)


def draw_filters(filters: np.ndarray) -> Figure:
  """Draws filters [n, height, width], each scaled by its largest absolute value."""
  most = np.abs(filters).max(axis=(1, 2), keepdims=True) + 1e-9
  return _grid(filters / most, 'First-layer filters', 'RdBu_r', -1, 1)


def draw_maps(maps: np.ndarray, name: str) -> Figure:
  """Draws the strongest maps of [n, height, width]."""
  strongest = np.argsort(-maps.max(axis=(1, 2)), kind='stable')[:_MAX_MAPS]
  which = f'the {len(strongest)} strongest of {len(maps)}'
  title = f'{name}: {f"all {len(maps)}" if len(strongest) == len(maps) else which} maps'
  return _grid(maps[np.sort(strongest)], title, 'magma', 0, None)


def draw_grad_cam(image: np.ndarray, cam: np.ndarray) -> Figure:
  """Draws a patch, and again with the evidence for the nodule class over it."""
  fig, panels = _panels(2, width=5.2, height=2.6)
  for panel, title in zip(panels, ('patch', 'evidence for nodule')):
    plots.show_patch(panel, image)
    panel.set_title(title, fontsize=9)
  panels[1].imshow(cam, cmap='inferno', alpha=0.55 * cam, vmin=0, vmax=1)
  return fig


def _activated(model: keras.Model, layer: keras.layers.Layer) -> keras.KerasTensor:
  """Returns the output of a convolution after its activation, whichever layer has it."""
  activation = layer.name.removesuffix('_conv') + '_relu'
  if activation in {other.name for other in model.layers}:
    return model.get_layer(activation).output
  return layer.output


def _grid(
  images: np.ndarray, title: str, cmap: str, vmin: float, vmax: float | None
) -> Figure:
  """Draws [n, height, width] side by side in one image: hundreds of axes are slow."""
  columns = min(8, len(images))
  rows = -(-len(images) // columns)
  count, height, width = images.shape
  # Each map by its own range, so that a weak one is seen too.
  top = images.max(axis=(1, 2), keepdims=True) if vmax is None else vmax
  tiles = np.full((rows * columns, height + 1, width + 1), np.nan, np.float32)
  tiles[:count, :height, :width] = images / np.maximum(top, 1e-9)
  sheet = tiles.reshape(rows, columns, height + 1, width + 1).transpose(0, 2, 1, 3)
  sheet = sheet.reshape(rows * (height + 1), columns * (width + 1))[:-1, :-1]
  fig, panels = _panels(
    1, width=columns, height=columns * sheet.shape[0] / sheet.shape[1]
  )
  panels[0].imshow(
    sheet,
    cmap=cmap,
    vmin=vmin,
    vmax=1,
    interpolation='nearest',
  )
  panels[0].set_title(title, fontsize=10)
  return fig


def _panels(columns: int, width: float, height: float) -> tuple[Figure, np.ndarray]:
  """Returns a figure with axes side by side and room for their titles.

  Args:
    columns: how many axes.
    width: width of the figure, in inches.
    height: height of the axes, in inches.
  """
  fig = Figure(figsize=(width, height + 0.27), layout='constrained')
  panels = np.ravel(fig.subplots(1, columns, squeeze=False))
  for panel in panels:
    panel.axis('off')
  return fig, panels
