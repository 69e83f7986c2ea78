"""The metrics by diameter, slice thickness and subset."""

from __future__ import annotations

from collections.abc import Sequence
import pathlib

from model.metrics.classification import METRIC_LABELS
from trainer.evaluation.split_metrics import SplitMetrics
from trainer.evaluation.subgroups import GROUP_METRICS
from trainer.evaluation.subgroups import DiameterRow
from trainer.evaluation.subgroups import GroupRow
from trainer.pictures import plots
from trainer.report import formatting
from trainer.report.content import Cell
from trainer.report.content import Row
from trainer.report.content import Section
from trainer.report.themed_picture import picture


def subgroup_sections(
  split_metrics: SplitMetrics, folder: pathlib.Path
) -> list[Section]:
  """Returns the tables; empty ones are left out, and single rows of groups of scans.

  Args:
    split_metrics: the metrics of all subgroups.
    folder: gets by_diameter.png.
  """
  sections = []
  if split_metrics.by_diameter:
    sections.append(_by_diameter(split_metrics.by_diameter, folder))
  # A single row repeats the metrics of all records.
  if len(split_metrics.by_slice_thickness) > 1:
    sections.append(
      _by_group(
        'By slice thickness',
        'The distance between neighbouring slices of the scan.',
        'slice thickness',
        split_metrics.by_slice_thickness,
      )
    )
  if len(split_metrics.by_subset) > 1:
    sections.append(_by_group('By subset', '', 'subset', split_metrics.by_subset))
  return sections


def _by_group(title: str, text: str, first: str, rows: Sequence[GroupRow]) -> Section:
  table: list[Row] = [
    (
      row.name,
      str(row.metrics.records),
      str(row.scans),
      str(row.metrics.nodules),
      *(
        formatting.metric_cell(row.metrics.value(name), row.intervals.get(name))
        for name in GROUP_METRICS
      ),
    )
    for row in rows
  ]
  labels = [METRIC_LABELS[name] for name in GROUP_METRICS]
  header = (first, 'records', 'scans', 'nodule candidates', *labels)
  return Section(title, text, header, table)


def _by_diameter(rows: Sequence[DiameterRow], folder: pathlib.Path) -> Section:
  def cell(row: DiameterRow, name: str) -> Cell:
    return formatting.metric_cell(getattr(row, name), row.intervals.get(name))

  table: list[Row] = [
    (
      row.bin.name,
      str(row.nodules),
      cell(row, 'nodule_recall'),
      str(row.records),
      cell(row, 'recall'),
      cell(row, 'mean_probability'),
    )
    for row in rows
  ]
  drawn = picture(
    lambda: plots.shares(
      [row.bin.name for row in rows],
      [row.nodule_recall for row in rows],
      [row.intervals.get('nodule_recall') for row in rows],
      'share of nodules found',
    ),
    folder / 'by_diameter.png',
    'Share of nodules found, by diameter, with 95 % intervals',
  )
  return Section(
    'By diameter',
    'A nodule is found if any record that hits it is predicted to be a nodule. Nodules '
    'that no candidate hits are not in the dataset and not counted here.',
    ('diameter', 'nodules', 'found', 'nodule candidates', 'recall', 'mean probability'),
    table,
    pictures=[drawn],
  )
