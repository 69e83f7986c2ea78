"""Scores a split: every figure with its interval, the files; for `luna16-evaluate`."""

from __future__ import annotations

from collections.abc import Sequence
import dataclasses
import math
import pathlib
from typing import Any

import keras
import numpy as np

from luna_tfds.errors import JobError
from luna_tfds.errors import UsageError
from model import bootstrap as bootstrap_lib
from model import metrics as metrics_lib
from trainer import breakdown
from trainer import config as config_lib
from trainer import operating
from trainer import report
from trainer import scoring
from trainer import sources
from trainer import workdir as workdir_lib

# Operating points of the table: where the article stands, and wanted recalls.
_POINTS = (
  ('precision', report.ARTICLE['precision']),
  ('specificity', report.ARTICLE['specificity']),
  ('recall', 0.8),
  ('recall', 0.9),
  ('recall', 0.95),
  ('recall', 0.99),
)


@dataclasses.dataclass(frozen=True)
class Run:
  """A trained model and where it comes from."""

  workdir: workdir_lib.Workdir
  config: config_lib.TrainConfig
  model: keras.Model

  @property
  def fingerprint(self) -> str:
    """Of the dataset it was trained on."""
    return workdir_lib.read_json(self.workdir.config)['dataset_fingerprint']


@dataclasses.dataclass(frozen=True)
class Evaluation:
  """All that the report tells.

  Attributes:
    runs: one, or an ensemble.
    source: what was scored.
    scores: of its records.
    decision: what is called a nodule.
    metrics: goes to metrics.json.
  """

  runs: list[Run]
  source: sources.Source
  scores: scoring.Scores
  decision: operating.Decision
  metrics: dict[str, Any]


def evaluate(
  paths: Sequence[str],
  *,
  split: str = '',
  data_dir: str | None = None,
  dataset: str | None = None,
  rule: str | None = None,
  tta: bool | None = None,
  bootstrap: int = 1000,
  seed: int = 0,
) -> Evaluation:
  """Scores a split.

  Args:
    paths: workdirs; the probabilities of several are averaged.
    split: TFDS split string; test (else validation) if empty.
    data_dir: where the dataset is, if not where training found it.
    dataset: another dataset than the one trained on.
    rule: another threshold rule than the stored one.
    tta: whether to average over the eight turns, if not as trained.
    bootstrap: resamples for the intervals; 0 for none.
    seed: of the resampling.

  Raises:
    UsageError: a workdir, the dataset or the split is not there, or they do not fit.
    JobError: a model gives no numbers.
  """
  runs = _open_runs(paths)
  config = runs[0].config
  builder = sources.open_builder(data_dir or config.data_dir, dataset or config.dataset)
  split = split or ('test' if 'test' in builder.info.splits else 'validation')
  source = sources.open_source(builder, split)
  _check_shapes(runs, source, builder.info.full_name)
  models = [run.model for run in runs]
  point = operating.threshold_for(
    models, runs[0].workdir, config, builder, rule=rule, tta=tta
  )
  scores = scoring.score(models, source, tta=point['tta'])
  unfit = int(np.sum(~np.isfinite(scores.probabilities)))
  if unfit:
    raise JobError(
      f'{runs[0].workdir.path}: the model gives no number for {unfit} of {len(scores)} '
      'records; its training diverged: train again with a lower --learning_rate'
    )
  decision = operating.decide(
    scores, split, point, chosen_here=_chosen_here(runs[0], source, builder)
  )
  resampling = breakdown.Resampling(bootstrap, seed)
  metrics = {
    'dataset': builder.info.full_name,
    'split': split,
    'model': config.model,
    'models': len(models),
    'tta': point['tta'],
    'threshold': decision.threshold,
    'threshold_rule': decision.rule,
    'threshold_chosen_on': decision.chosen_on,
    'deployed_prior': point['deployed_prior'],
    'records_trained_on': _records_trained_on(runs, source, builder),
    **figures(scores, decision.called, resampling),
    **breakdowns(scores, decision.called, resampling, sources.metadata(builder)),
    'article': report.ARTICLE,
  }
  return Evaluation(runs, source, scores, decision, without_nan(metrics))


def figures(
  scores: scoring.Scores, called: np.ndarray, resampling: breakdown.Resampling
) -> dict[str, Any]:
  """Works out the figures over all records, operating points and intervals.

  Args:
    scores: of the records.
    called: [n] bool, what is called a nodule.
    resampling: for the intervals.
  """
  labels, probabilities = scores.labels, scores.probabilities
  found = {
    **metrics_lib.summary(labels, probabilities, called),
    'scans': len(np.unique(scores.groups)) if scans_known(scores) else None,
    'operating_points': _operating_points(scores, resampling),
  }
  if resampling.resamples:
    found['intervals'] = bootstrap_lib.intervals(
      labels,
      probabilities,
      called,
      scores.groups,
      resampling.resamples,
      resampling.seed,
    )
    found['intervals_resample'] = 'scans' if scans_known(scores) else 'records'
    found['bootstrap'] = dataclasses.asdict(resampling)
  return found


def breakdowns(
  scores: scoring.Scores,
  called: np.ndarray,
  resampling: breakdown.Resampling,
  metadata: dict[str, Any],
) -> dict[str, Any]:
  """The figures by what they depend on; what is not known is left out."""
  tables = {
    'by_diameter': breakdown.by_diameter(scores, called, resampling),
    'by_subset': breakdown.by_subset(scores, called, resampling),
  }
  # Images that were resampled have the spacing asked for, whatever the scan's.
  if not (metadata.get('patch') or {}).get('spacing_mm'):
    tables['by_slice_thickness'] = breakdown.by_slice_thickness(
      scores, called, resampling
    )
  return {name: rows for name, rows in tables.items() if rows}


def scans_known(scores: scoring.Scores) -> bool:
  """Whether records tell which scan they are from; the article's patches don't."""
  return bool(np.all(scores.features['seriesuid'] != ''))


def write(evaluation: Evaluation, folder: pathlib.Path) -> pathlib.Path:
  """Writes metrics.json, predictions.csv, plots/ and report.html; returns the last."""
  from trainer import sections

  make_folder(folder)
  workdir_lib.write_json(folder / 'metrics.json', evaluation.metrics)
  scoring.write_predictions(evaluation.scores, folder / 'predictions.csv')
  page = folder / 'report.html'
  page.write_text(sections.page(evaluation, folder / 'plots'))
  return page


def make_folder(folder: pathlib.Path) -> None:
  """Makes the folder of results.

  Raises:
    UsageError: it cannot be made.
  """
  try:
    folder.mkdir(parents=True, exist_ok=True)
  except OSError as error:
    raise UsageError(f'{folder}: cannot be written: {error.strerror}') from error


def without_nan(value: Any) -> Any:
  """Replaces what JSON has no number for, NaN and infinities, by None, at any depth."""
  if isinstance(value, dict):
    return {key: without_nan(item) for key, item in value.items()}
  if isinstance(value, list | tuple):
    return [without_nan(item) for item in value]
  if isinstance(value, float) and not math.isfinite(value):
    return None
  return value


def _open_runs(paths: Sequence[str]) -> list[Run]:
  opened = [workdir_lib.open_workdir(path) for path in paths]
  runs = [
    Run(workdir, config, keras.models.load_model(workdir.model, compile=False))
    for workdir, config in opened
  ]
  for run in runs[1:]:
    # Else the threshold would be chosen on records that one of them was trained on.
    for name in ('validation_split', 'train_split'):
      ours, first = getattr(run.config, name), getattr(runs[0].config, name)
      if ours != first:
        raise UsageError(
          f'{run.workdir.path} has {name}={ours!r} and {runs[0].workdir.path} has '
          f'{first!r}: an ensemble needs runs on the same splits'
        )
  return runs


def _check_shapes(runs: Sequence[Run], source: sources.Source, dataset: str) -> None:
  for run in runs:
    shape = tuple(run.model.input_shape[1:])
    if shape != source.image_shape:
      raise UsageError(
        f'the model of {run.workdir.path} takes images of shape {shape}, those of '
        f'{dataset} have {source.image_shape}; give the --dataset it was trained on'
      )


def _chosen_here(run: Run, source: sources.Source, builder: Any) -> bool:
  """Whether the split holds records that the threshold was chosen on."""
  if run.fingerprint != source.fingerprint:
    # Of another dataset shards say nothing; a split's name says which subsets it holds.
    return source.split == run.config.validation_split and '[' not in source.split
  validation = operating.open_validation(builder, run.config)
  return validation is not None and operating.shared_records(validation, source) > 0


def _records_trained_on(
  runs: Sequence[Run], source: sources.Source, builder: Any
) -> int | None:
  """Counts scored records that training saw; None if it saw another dataset."""
  if any(run.fingerprint != source.fingerprint for run in runs):
    return None
  trained = sources.open_source(builder, runs[0].config.train_split)
  return operating.shared_records(trained, source)


def _operating_points(
  scores: scoring.Scores, resampling: breakdown.Resampling
) -> list[dict[str, Any]]:
  if len(np.unique(scores.labels)) < 2:
    return []
  points = []
  for target, value in _POINTS:
    point: dict[str, Any] = metrics_lib.at_target(
      scores.labels, scores.probabilities, target, value
    )
    if resampling.resamples:
      point['intervals'] = bootstrap_lib.rate_intervals(
        scores.labels,
        scores.probabilities >= point['threshold'],
        scores.groups,
        resampling.resamples,
        resampling.seed,
      )
    points.append({'target': f'{target} >= {value}', **point})
  return points
