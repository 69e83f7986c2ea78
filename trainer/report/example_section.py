"""The most confident records of each outcome as pictures."""

from __future__ import annotations

import pathlib

import numpy as np

from luna_tfds.hounsfield import WINDOW_HU
from trainer.evaluation.steps import Evaluation
from trainer.pictures import figures
from trainer.pictures import plots
from trainer.report.content import Section
from trainer.report.content import Tile
from trainer.report.content import TileGroup
from trainer.report.examples import ExampleGroup
from trainer.report.examples import Examples
from trainer.scoring.scored_records import ScoredRecords


def example_section(
  evaluation: Evaluation, examples: Examples, images: np.ndarray, folder: pathlib.Path
) -> Section:
  """Returns the patches of all outcomes that there are, errors first.

  Args:
    evaluation: the evaluation that scored the records.
    examples: which of them are shown.
    images: [n, *image_shape] HU of `examples.positions`.
    folder: gets a picture of each outcome.
  """
  text = (
    f'The most confident first, windowed to {WINDOW_HU[0]} … {WINDOW_HU[1]} HU; of '
    'stacks and cubes the middle slice is shown. Below a patch: its probability, '
    'candidate, diameter of the nodule, position (x, y, z) and scan.'
  )
  if not examples.has_errors:
    text = f'There are no errors. {text}'
  groups = [
    _group(evaluation.scored.records, group, images[examples.slots(group)], folder)
    for group in examples.groups
    if group.total
  ]
  return Section(
    'Most confident errors and correct predictions', text, tile_groups=groups
  )


def _group(
  records: ScoredRecords, group: ExampleGroup, images: np.ndarray, folder: pathlib.Path
) -> TileGroup:
  captions = [f'{records.probability[i]:.3f}' for i in group.positions]
  figures.save(plots.mosaic(images, captions), folder / f'{group.file_stem}.png')
  return TileGroup(
    f'{group.name}: {len(group.positions)} of {group.total}',
    [_tile(records, i, image) for i, image in zip(group.positions, images)],
  )


def _tile(records: ScoredRecords, index: int, image: np.ndarray) -> Tile:
  center_xyz_mm = records.center_xyz_mm[index]
  diameter_mm = records.diameter_mm[index]
  lines = [f'candidate {records.candidate_id[index]}']
  if diameter_mm > 0:
    lines.append(f'diameter {diameter_mm:.1f} mm')
  if np.isfinite(center_xyz_mm).all():
    lines.append(', '.join(f'{c:.1f}' for c in center_xyz_mm) + ' mm')
  return Tile(
    plots.patch_uri(image),
    f'{records.probability[index]:.3f}',
    lines,
    str(records.seriesuid[index]),
  )
