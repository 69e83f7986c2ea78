"""The settings of a run or of a cross-validation."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from luna_tfds.files import atomic_files
from trainer import workdir as workdir_lib
from trainer.evaluation.steps import Evaluation
from trainer.report import formatting
from trainer.report.content import Section


def configuration_section(settings: Iterable[tuple[str, Any]]) -> Section:
  """Returns a table of names and values; a dash where a value is None or empty."""
  rows = [
    (name, formatting.DASH if value in (None, '') else str(value))
    for name, value in settings
  ]
  return Section('Configuration', header=('setting', 'value'), rows=rows, names=True)


def section_of_runs(evaluation: Evaluation) -> Section:
  """Returns the folders of the runs, and the settings of the first one."""
  runs = evaluation.scored.runs
  flat = workdir_lib.flatten(atomic_files.read_json(runs[0].workdir.config))
  return configuration_section(
    [
      *(('workdir', run.workdir.path) for run in runs),
      *((name.removeprefix('config.'), value) for name, value in flat.items()),
    ]
  )
