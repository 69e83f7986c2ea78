"""Shows what a trained network looks for: filters, feature maps, Grad-CAM.

    luna16-visualize --workdir=/tmp/run --split=test --record=0 --output_dir=/tmp/pictures

Writes the article's pictures for any patch: the filters of the first layer, the feature
maps of each convolution, and what of the patch speaks for a nodule.
"""

from __future__ import annotations

from collections.abc import Sequence
import pathlib
import sys
from typing import Any

from absl import flags
import numpy as np

from luna_tfds import cli
from luna_tfds.errors import UsageError

FLAGS = cli.new_flags()

_WORKDIR = flags.DEFINE_string('workdir', None, 'Folder of the run.', flag_values=FLAGS)
_SPLIT = flags.DEFINE_string(
  'split',
  'validation',
  'TFDS split string that holds the record.',
  flag_values=FLAGS,
)
_RECORD = flags.DEFINE_string(
  'record',
  '0',
  'Position in the split, from 0, or key: seriesuid/candidate_id.',
  flag_values=FLAGS,
)
_DATA_DIR = flags.DEFINE_string(
  'data_dir',
  None,
  'TFDS data folder, if it is not where training found it.',
  flag_values=FLAGS,
)
_OUTPUT_DIR = flags.DEFINE_string(
  'output_dir',
  None,
  'Where to write; default: <workdir>/visualize.',
  flag_values=FLAGS,
)

_MOST_MAPS = 32


def main(unused: list[str]) -> None:
  """Flags -> one record -> pictures."""
  del unused
  path = cli.required(_WORKDIR)
  cli.load_tensorflow()
  import keras

  from trainer import plots
  from trainer import scoring
  from trainer import sources
  from trainer import workdir as workdir_lib

  workdir, config = workdir_lib.open_workdir(path)
  builder = sources.open_builder(_DATA_DIR.value or config.data_dir, config.dataset)
  source = sources.open_source(builder, _SPLIT.value)
  model = keras.models.load_model(workdir.model, compile=False)
  position = _position(source, _RECORD.value)
  image = scoring.images_at(source, [position])[0]
  folder = pathlib.Path(_OUTPUT_DIR.value or workdir.path / 'visualize').expanduser()
  for name, fig in figures(model, image).items():
    plots.save(fig, folder / f'{name}.png')
    print(folder / f'{name}.png')


def run(argv: Sequence[str] | None = None) -> int:
  """Runs the command; returns its exit code."""
  return cli.run('luna16-visualize', __doc__, main, FLAGS, argv)


def figures(model: Any, image: np.ndarray) -> dict[str, Any]:
  """Draws the pictures of a patch.

  Args:
    model: a network or a delivered model that takes HU.
    image: one image in the record's layout.

  Returns:
    Matplotlib figures by name: 'filters', 'features_<layer>' for each convolution, and
    'grad_cam'.
  """
  pictures = {'filters': draw_filters(first_filters(model))}
  for name, maps in feature_maps(model, image).items():
    pictures[f'features_{name}'] = draw_maps(maps, name)
  pictures['grad_cam'] = draw_grad_cam(image, grad_cam(model, image))
  return pictures


def convolutions(model: Any) -> list[Any]:
  """Returns the convolution layers, in order."""
  import keras

  kinds = (keras.layers.Conv2D, keras.layers.Conv3D)
  return [layer for layer in model.layers if isinstance(layer, kinds)]


def first_filters(model: Any) -> np.ndarray:
  """Returns the first layer's filters [n, height, width]; the middle one of a stack."""
  kernel = np.asarray(convolutions(model)[0].kernel, np.float32)
  if kernel.ndim == 5:
    kernel = kernel[kernel.shape[0] // 2]
  return kernel[:, :, kernel.shape[2] // 2].transpose(2, 0, 1)


def feature_maps(model: Any, image: np.ndarray) -> dict[str, np.ndarray]:
  """Returns the response of each convolution to a patch, after its activation.

  Args:
    model: takes HU.
    image: one image in the record's layout.

  Returns:
    [maps, height, width] float32 by layer; of volumes the middle slice.
  """
  import keras

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


def grad_cam(model: Any, image: np.ndarray) -> np.ndarray:
  """Tells which places of a patch speak for a nodule.

  Selvaraju et al., "Grad-CAM: Visual Explanations from Deep Networks via Gradient-based
  Localization", ICCV 2017, on the last convolution, with each place's own gradient
  rather than their mean (as in HiResCAM, Draelos & Carin, 2020), which for a network
  that ends in a mean and one dense layer is the logit's exact decomposition.

  Args:
    model: takes HU.
    image: one image in the record's layout.

  Returns:
    [height, width] float32 in 0..1, resized to the image; of volumes the middle slice.
  """
  import keras
  import tensorflow as tf

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
  cam = tf.image.resize(cam[..., tf.newaxis], (rows, columns))[..., 0].numpy()
  return cam / max(float(cam.max()), 1e-9)


def draw_filters(filters: np.ndarray) -> Any:
  """Draws filters [n, height, width], each by its own range about zero."""
  most = np.abs(filters).max(axis=(1, 2), keepdims=True) + 1e-9
  return _grid(filters / most, 'First-layer filters', 'RdBu_r', -1, 1)


def draw_maps(maps: np.ndarray, name: str) -> Any:
  """Draws the strongest maps of [n, height, width]."""
  strongest = np.argsort(-maps.max(axis=(1, 2)), kind='stable')[:_MOST_MAPS]
  title = f'{name}: the {len(strongest)} strongest of {len(maps)} maps'
  return _grid(maps[np.sort(strongest)], title, 'magma', 0, None)


def draw_grad_cam(image: np.ndarray, cam: np.ndarray) -> Any:
  """Draws a patch, and again with what speaks for a nodule laid over it."""
  from trainer import plots

  fig, panels = _panels(1, 2, 2.6)
  for panel, title in zip(panels, ('patch', 'what speaks for a nodule')):
    panel.imshow(plots.middle_slice(image), cmap='gray', vmin=-1000, vmax=400)
    panel.set_title(title, fontsize=9)
  panels[1].imshow(cam, cmap='inferno', alpha=0.55 * cam, vmin=0, vmax=1)
  return fig


def _activated(model: Any, layer: Any) -> Any:
  """The output of a convolution once its activation is applied, wherever that is."""
  activation = layer.name.removesuffix('_conv') + '_relu'
  if activation in {other.name for other in model.layers}:
    return model.get_layer(activation).output
  return layer.output


def _grid(
  images: np.ndarray, title: str, cmap: str, vmin: float, vmax: float | None
) -> Any:
  """Draws [n, height, width] side by side, as one picture: hundreds of axes are slow."""
  columns = min(8, len(images))
  rows = -(-len(images) // columns)
  count, height, width = images.shape
  # Each tile by its own range, so that a weak map is seen too.
  top = images.max(axis=(1, 2), keepdims=True) if vmax is None else vmax
  tiles = np.full((rows * columns, height + 1, width + 1), np.nan, np.float32)
  tiles[:count, :height, :width] = images / np.maximum(top, 1e-9)
  sheet = tiles.reshape(rows, columns, height + 1, width + 1).transpose(0, 2, 1, 3)
  fig, panels = _panels(1, 1, 1.0)
  fig.set_size_inches(columns, rows + 0.35)
  panels[0].imshow(
    sheet.reshape(rows * (height + 1), columns * (width + 1)),
    cmap=cmap,
    vmin=vmin,
    vmax=1,
    interpolation='nearest',
  )
  panels[0].set_title(title, fontsize=10)
  return fig


def _panels(rows: int, columns: int, side: float) -> tuple[Any, Any]:
  """An empty figure and its panels, row by row."""
  from matplotlib import figure

  fig = figure.Figure(
    figsize=(side * columns, side * rows + 0.35), layout='constrained'
  )
  panels = np.ravel(fig.subplots(rows, columns, squeeze=False))
  for panel in panels:
    panel.axis('off')
  return fig, panels


def _position(source: Any, record: str) -> int:
  """Where a record stands in its split."""
  from luna_tfds import sampling
  from trainer import input_pipeline

  if record.isdigit():
    if int(record) >= source.num_records:
      raise UsageError(
        f'--record={record}: the split {source.split} holds {source.num_records} records'
      )
    return int(record)
  start = 0
  names = ('seriesuid', 'candidate_id')
  for batch in input_pipeline.evaluation_batches(source, names=names):
    pairs = zip(batch['seriesuid'].numpy(), batch['candidate_id'].numpy())
    keys = [sampling.record_key(s.decode(), int(c)) for s, c in pairs]
    if record in keys:
      return start + keys.index(record)
    start += len(keys)
  raise UsageError(f'--record={record}: no such record in the split {source.split}')


if __name__ == '__main__':
  sys.exit(run())
