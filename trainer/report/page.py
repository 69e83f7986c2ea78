"""The page of an evaluation: which sections it has, and their order."""

from __future__ import annotations

import pathlib

from luna_tfds.text_format import count_text
from trainer.data import single_records
from trainer.evaluation.steps import Evaluation
from trainer.evaluation.steps import EvaluationResult
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

_OPTIMISTIC = (
  'The article splits by candidate: several candidates of one nodule are on both sides '
  'of the split, so these metrics, like its own, are optimistic.'
)


def build_page(evaluation: Evaluation, folder: pathlib.Path) -> str:
  """Returns report.html; writes its pictures to `folder` too."""
  examples = choose_examples(evaluation.scored.records, evaluation.decision.predicted)
  images = single_records.read_images(evaluation.scored.source, examples.positions)
  result = evaluation.result
  split_metrics = result.split_metrics
  page = Page(
    'Nodule classifier',
    _subtitle(result),
    [
      metric_sections.metrics_section(result),
      curve_section.curve_section(evaluation, folder),
      *froc_section.froc_sections(result.froc, folder),
      *metric_sections.operating_point_sections(split_metrics),
      *calibration_section.calibration_sections(evaluation),
      *subgroup_sections.subgroup_sections(split_metrics, folder),
      example_section.example_section(evaluation, examples, images, folder),
      *network_section.network_sections(evaluation, examples, images, folder),
      *training_section.training_sections(evaluation, folder),
      configuration_section.section_of_runs(evaluation),
    ],
    [
      *metric_sections.headlines(split_metrics),
      *froc_section.froc_headlines(result.froc),
    ],
    _notices(result),
  )
  return html_renderer.render(page)


def _subtitle(result: EvaluationResult) -> str:
  split_metrics = result.split_metrics
  members = f' (mean of {result.models} runs)' if result.models > 1 else ''
  parts = [
    f'{result.model}{members} on {result.dataset}, split {result.split}: '
    + count_text(split_metrics.classification.records, 'record'),
    count_text(split_metrics.classification.nodules, 'nodule candidate'),
  ]
  if split_metrics.scans is not None:
    parts.append(count_text(split_metrics.scans, 'scan'))
  text = ', '.join(parts)
  if split_metrics.num_excluded:
    text += f'; {count_text(split_metrics.num_excluded, "excluded finding")} left out'
  return text


def _notices(result: EvaluationResult) -> list[str]:
  split_metrics = result.split_metrics
  counted = split_metrics.classification
  notices = []
  if result.article:
    notices.append(_OPTIMISTIC)
  notices += formatting.sentences([*result.warnings, *split_metrics.warnings])
  if counted.records and counted.nodules in (0, counted.records):
    notices.append(
      'The split holds one class only: metrics that need both are undefined.'
    )
  return notices
