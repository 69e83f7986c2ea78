"""Filters, feature maps and Grad-CAM of the network."""

from __future__ import annotations

import pathlib

import numpy as np

from trainer.evaluation.steps import Evaluation
from trainer.pictures import network_pictures
from trainer.report.content import Section
from trainer.report.examples import Examples
from trainer.report.themed_picture import picture


def network_sections(
  evaluation: Evaluation, examples: Examples, images: np.ndarray, folder: pathlib.Path
) -> list[Section]:
  """Returns the pictures for the nodule of highest probability.

  There are none of a network without a convolution.

  Args:
    evaluation: the evaluation; of an ensemble the first network is shown.
    examples: the records shown, among them the nodule that the network is shown on.
    images: [n, *image_shape] HU of `examples.positions`.
    folder: gets the pictures.
  """
  records, position = evaluation.scored.records, examples.most_probable
  model = evaluation.scored.runs[0].model.keras_model
  drawings = network_pictures.all_pictures(model, images[examples.slot(position)])
  if not drawings:
    return []
  where = f'candidate {records.candidate_id[position]}'
  if records.scans_known:
    where += f' of the scan {records.seriesuid[position]}'
  text = (
    f'The filters of the first layer, and for {where} (probability '
    f'{records.probability[position]:.3f}) the output of each convolution and the '
    'Grad-CAM evidence for the nodule class.'
  )
  pictures = [
    picture(draw, folder / f'{name}.png', _caption(name), wide=True)
    for name, draw in drawings.items()
  ]
  return [Section('What the network computes', text, pictures=pictures)]


def _caption(name: str) -> str:
  if name == 'filters':
    return (
      'Filters of the first layer, each scaled to its largest weight; red: positive, '
      'blue: negative'
    )
  if name == 'grad_cam':
    return 'Grad-CAM evidence for the nodule class: brighter is more'
  layer = name.removeprefix('features_')
  return f'Output of {layer}, each map scaled to its maximum'
