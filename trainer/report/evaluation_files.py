"""Writes the files of an evaluation."""

from __future__ import annotations

import pathlib

from luna_tfds.files import atomic_files
from trainer.evaluation.steps import Evaluation
from trainer.report import page
from trainer.scoring import prediction_files


def write(evaluation: Evaluation, folder: pathlib.Path) -> pathlib.Path:
  """Writes metrics.json, predictions.csv, plots/ and report.html.

  Args:
    evaluation: all three steps.
    folder: must be there.

  Returns:
    The path of the report.
  """
  atomic_files.write_json(folder / 'metrics.json', evaluation.result.to_json())
  prediction_files.write_predictions(
    evaluation.scored.records, folder / 'predictions.csv'
  )
  report = folder / 'report.html'
  atomic_files.write_text(report, page.build_page(evaluation, folder / 'plots'))
  return report
