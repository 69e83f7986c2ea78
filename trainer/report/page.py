"""The page of an evaluation: which sections it has, and their order."""

from __future__ import annotations

import pathlib

from luna_tfds.text_format import count_text
from trainer.evaluation.steps import Evaluation
from trainer.evaluation.steps import EvaluationMetrics
from trainer.report import calibration_section
from trainer.report import configuration_section
from trainer.report import curve_section
from trainer.report import example_section
from trainer.report import formatting
from trainer.report import froc_section
from trainer.report import html_renderer
from trainer.report import metric_sections
from trainer.report import network_section
from trainer.report import subgroup_sections
from trainer.report import training_section
from trainer.report.content import Page
from trainer.report.examples import choose_examples
from trainer.scoring import scored_records

_OPTIMISTIC = (
  'The article splits by candidate: several candidates of one nodule are on both sides '
  'of the split, so these metrics, like its own, are optimistic.'
)


def build_page(evaluation: Evaluation, folder: pathlib.Path) -> str:
  """Returns report.html; writes its pictures to `folder` too."""
  examples = choose_examples(evaluation.scored.records, evaluation.decision.predicted)
  images = scored_records.read_images(evaluation.scored.source, examples.positions)
  metrics = evaluation.metrics
  measured = metrics.measurement
  page = Page(
    'Nodule classifier',
    _subtitle(metrics),
    [
      metric_sections.metrics_section(metrics),
      curve_section.curve_section(evaluation, folder),
      *froc_section.froc_sections(metrics.froc, folder),
      *metric_sections.operating_point_sections(measured),
      *calibration_section.calibration_sections(evaluation),
      *subgroup_sections.subgroup_sections(measured, folder),
      example_section.example_section(evaluation, examples, images, folder),
      *network_section.network_sections(evaluation, examples, images, folder),
      *training_section.training_sections(evaluation, folder),
      configuration_section.section_of_runs(evaluation),
    ],
    [
      *metric_sections.headlines(measured),
      *froc_section.froc_headlines(metrics.froc),
    ],
    _notices(metrics),
  )
  return html_renderer.render(page)


def _subtitle(metrics: EvaluationMetrics) -> str:
  measured = metrics.measurement
  members = f' (mean of {metrics.models} runs)' if metrics.models > 1 else ''
  parts = [
    f'{metrics.model}{members} on {metrics.dataset}, split {metrics.split}: '
    + count_text(measured.metrics.records, 'record'),
    count_text(measured.metrics.nodules, 'nodule candidate'),
  ]
  if measured.scans is not None:
    parts.append(count_text(measured.scans, 'scan'))
  text = ', '.join(parts)
  if measured.num_excluded:
    text += f'; {count_text(measured.num_excluded, "excluded finding")} left out'
  return text


def _notices(metrics: EvaluationMetrics) -> list[str]:
  measured = metrics.measurement
  records, nodules = measured.metrics.records, measured.metrics.nodules
  notices = []
  if metrics.article:
    notices.append(_OPTIMISTIC)
  notices += formatting.sentences([*metrics.warnings, *measured.warnings])
  if records and nodules in (0, records):
    notices.append(
      'The split holds one class only: metrics that need both are undefined.'
    )
  return notices
