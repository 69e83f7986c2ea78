"""Writes the report and the metrics of a cross-validation."""

from __future__ import annotations

import pathlib

from luna_tfds.files import atomic_files
from trainer.crossvalidation import report_page
from trainer.crossvalidation.merging import MergedFolds


def write(merged: MergedFolds, workdir: pathlib.Path) -> pathlib.Path:
  """Writes plots/, report.html, and crossval.json last.

  Args:
    merged: the folds.
    workdir: folder of the cross-validation.

  Returns:
    The path of the report.
  """
  report = workdir / 'report.html'
  atomic_files.write_text(report, report_page.build_page(merged, workdir))
  atomic_files.write_json(workdir / 'crossval.json', merged.to_json())
  return report
