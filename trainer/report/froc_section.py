"""The FROC curve as a part of a report."""

from __future__ import annotations

from collections.abc import Mapping
import pathlib

from luna_tfds.text_format import count_text
from model.metrics import froc
from model.metrics.resampling import Interval
from trainer.evaluation import froc_evaluation
from trainer.pictures import froc_plot
from trainer.report import formatting
from trainer.report.content import Cell
from trainer.report.content import Headline
from trainer.report.content import Section
from trainer.report.themed_picture import picture
from trainer.scoring.froc_submission import FrocResult


def froc_headlines(
  result: FrocResult | None, pooled_folds: int | None = None
) -> list[Headline]:
  """Returns the CPM with its interval; nothing without a result.

  Args:
    result: the FROC curve.
    pooled_folds: number of folds whose marks the curve is of; None for a single model.
  """
  if result is None:
    return []
  bounds = result.band.cpm.interval if result.band else None
  notes = (
    f'over {count_text(pooled_folds, "fold")}' if pooled_folds else '',
    formatting.interval_in_words(bounds),
    'see the note on FROC' if result.warnings else '',
  )
  return [
    Headline(
      'pooled CPM (FROC)' if pooled_folds else 'CPM (FROC)',
      formatting.number(result.curve.cpm, 3),
      '; '.join(note for note in notes if note),
    )
  ]


def froc_sections(
  result: FrocResult | None,
  folder: pathlib.Path,
  folds: Mapping[str, froc.FrocCurve] | None = None,
) -> list[Section]:
  """Returns the curve, its sensitivities and what they are shares of.

  Args:
    result: None for no section.
    folder: gets froc.png.
    folds: curves to draw thin behind it, by name.
  """
  if result is None:
    return []
  counts = result.counts
  text = (
    f'{froc_evaluation.describe_nodules(result)} {counts.true_positives} are found by a '
    f'mark; {counts.false_positives} marks are false positives, and '
    f'{counts.ignored_on_excluded} on excluded findings are ignored. Of a scan at most '
    f'{result.max_marks_per_scan} marks count. The CPM is the mean of the sensitivities '
    'in the table.'
  )
  if folds:
    text += ' The marks of all folds are pooled.'
  text += ''.join(f' Note: {warning}.' for warning in result.warnings)
  drawn = picture(
    lambda: froc_plot.draw_froc_curve(
      result.curve, result.band, str(result), folds or {}
    ),
    folder / 'froc.png',
    'FROC curve: sensitivity over the false positives (FP) per scan'
    + ('; thin: each fold' if folds else '')
    + (f'; band: from {result.resampling.resamples} resamples' if result.band else ''),
    wide=True,
  )
  return [
    Section(
      'FROC',
      text,
      ('FP per scan', *(f'{fps:g}' for fps in froc.FPS_PER_SCAN)),
      [('sensitivity', *_sensitivities(result))],
      pictures=[drawn],
    )
  ]


def _sensitivities(result: FrocResult) -> list[Cell]:
  values = result.curve.sensitivity_at(froc.FPS_PER_SCAN).tolist()
  bounds: list[Interval | None] = [None] * len(values)
  if result.band:
    points = result.band.at_points
    bounds = [Interval(float(a), float(b)) for a, b in zip(points.lower, points.upper)]
  return [formatting.metric_cell(value, bound) for value, bound in zip(values, bounds)]
