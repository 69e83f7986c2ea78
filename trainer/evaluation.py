"""Scores a split and draws up the report; what `luna16-evaluate` does."""

from __future__ import annotations

from collections.abc import Sequence
import dataclasses
import pathlib
from typing import Any

import keras
import numpy as np

from luna_tfds.errors import UsageError
from model import bootstrap as bootstrap_lib
from model import metrics as metrics_lib
from trainer import config as config_lib
from trainer import operating
from trainer import plots
from trainer import report
from trainer import scoring
from trainer import sources
from trainer import workdir as workdir_lib

_MOSAIC = 12
# Operating points of the table: where the article stands, and wanted recalls.
_POINTS = (
  ('precision', 0.893),
  ('specificity', 0.982),
  ('recall', 0.8),
  ('recall', 0.9),
  ('recall', 0.95),
  ('recall', 0.99),
)
_OPTIMISTIC = (
  'The article splits by candidate: several candidates of one nodule lie on both sides '
  'of the split, so these figures, like its own, are optimistic. '
)


@dataclasses.dataclass(frozen=True)
class Evaluation:
  """All that the report tells.

  Attributes:
    workdirs: of the models.
    config: of the first run.
    source: what was scored.
    scores: of its records.
    decision: what is called a nodule.
    metrics: goes to metrics.json.
  """

  workdirs: list[workdir_lib.Workdir]
  config: config_lib.TrainConfig
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
    UsageError: a workdir, the dataset or the split is not there.
  """
  opened = [workdir_lib.open_workdir(path) for path in paths]
  workdirs = [workdir for workdir, _ in opened]
  config = opened[0][1]
  builder = sources.open_builder(data_dir or config.data_dir, dataset or config.dataset)
  split = split or ('test' if 'test' in builder.info.splits else 'validation')
  source = sources.open_source(builder, split)
  models = [keras.models.load_model(w.model, compile=False) for w in workdirs]
  if tuple(models[0].input_shape[1:]) != source.image_shape:
    raise UsageError(
      f'the model takes images of shape {tuple(models[0].input_shape[1:])}, those of '
      f'{builder.info.full_name} have {source.image_shape}'
    )
  point = operating.threshold_for(
    models, workdirs[0], config, builder, rule=rule, tta=tta
  )
  scores = scoring.score(models, source, tta=point['tta'])
  decision = operating.decide(scores, split, config, point['threshold'], point['rule'])
  metrics: dict[str, Any] = {
    'dataset': builder.info.full_name,
    'split': split,
    'model': config.model,
    'models': len(models),
    'tta': point['tta'],
    'threshold': decision.threshold,
    'threshold_rule': decision.rule,
    'threshold_chosen_on': decision.chosen_on,
    'deployed_prior': point['deployed_prior'],
    **metrics_lib.summary(scores.labels, scores.probabilities, decision.called),
    'operating_points': _operating_points(scores),
    'article': report.ARTICLE,
  }
  if bootstrap:
    metrics['intervals'] = bootstrap_lib.intervals(
      scores.labels,
      scores.probabilities,
      decision.called,
      scores.groups,
      resamples=bootstrap,
      seed=seed,
    )
  return Evaluation(workdirs, config, source, scores, decision, metrics)


def write(evaluation: Evaluation, folder: pathlib.Path) -> pathlib.Path:
  """Writes metrics.json, predictions.csv, plots/ and report.html; returns the last."""
  try:
    folder.mkdir(parents=True, exist_ok=True)
  except OSError as error:
    raise UsageError(f'{folder}: cannot be written: {error.strerror}') from error
  workdir_lib.write_json(folder / 'metrics.json', evaluation.metrics)
  scoring.write_predictions(evaluation.scores, folder / 'predictions.csv')
  page = folder / 'report.html'
  metrics = evaluation.metrics
  subtitle = (
    f'{metrics["model"]} on {metrics["dataset"]}, split {metrics["split"]}: '
    f'{metrics["records"]} records, {metrics["nodules"]} nodules'
  )
  sections = _sections(evaluation, folder / 'plots')
  page.write_text(report.render('Nodule classifier', subtitle, sections))
  return page


def _operating_points(scores: scoring.Scores) -> list[dict[str, Any]]:
  if len(np.unique(scores.labels)) < 2:
    return []
  return [
    {
      'target': f'{target} >= {value}',
      **metrics_lib.at_target(scores.labels, scores.probabilities, target, value),
    }
    for target, value in _POINTS
  ]


def _sections(evaluation: Evaluation, folder: pathlib.Path) -> list[report.Section]:
  metrics, decision = evaluation.metrics, evaluation.decision
  article = metrics['dataset'].startswith('luna16_patches/article')
  note = (
    f'Called a nodule from {decision.threshold:.4g} on (rule {decision.rule}, chosen on '
    f'{decision.chosen_on}). The intervals come from resampling '
    f'{"records" if article else "scans"}. '
  )
  return [
    report.figures_section(metrics, (_OPTIMISTIC if article else '') + note),
    _curves(evaluation, folder),
    _points_section(metrics),
    *_mosaics(evaluation, folder),
    *_training(evaluation, folder),
    _configuration(evaluation),
  ]


def _curves(evaluation: Evaluation, folder: pathlib.Path) -> report.Section:
  labels, probabilities = evaluation.scores.labels, evaluation.scores.probabilities
  figures = {
    'confusion_matrix': (
      plots.confusion_matrix(evaluation.metrics['confusion_matrix']),
      'Confusion matrix',
    )
  }
  if len(np.unique(labels)) == 2:
    figures['roc'] = plots.roc(labels, probabilities, report.ARTICLE), 'ROC curve'
    figures['precision_recall'] = (
      plots.precision_recall(labels, probabilities, report.ARTICLE),
      'Precision and recall',
    )
    figures['reliability'] = (
      plots.reliability(labels, probabilities),
      'Calibration: what is called p should be a nodule in a share p of cases',
    )
  pictures = [
    report.Picture(plots.save(fig, folder / f'{name}.png'), caption)
    for name, (fig, caption) in figures.items()
  ]
  return report.Section('Curves', pictures=pictures)


def _points_section(metrics: dict[str, Any]) -> report.Section:
  rows = [
    (
      point['target'],
      f'{point["threshold"]:.4g}',
      *(
        report.number(point[n], 3) for n in ('precision', 'recall', 'specificity', 'f1')
      ),
    )
    for point in metrics['operating_points']
  ]
  return report.Section(
    'Operating points',
    'Read off the curves of these very records.',
    ('at', 'threshold', 'precision', 'recall', 'specificity', 'F1'),
    rows,
  )


def _mosaics(evaluation: Evaluation, folder: pathlib.Path) -> list[report.Section]:
  """The most confident records of each kind, mistakes first."""
  scores, called = evaluation.scores, evaluation.decision.called
  positive = scores.labels == 1
  kinds = {
    'False negatives': (positive & ~called, 1),
    'False positives': (~positive & called, -1),
    'True positives': (positive & called, -1),
    'True negatives': (~positive & ~called, 1),
  }
  picks = {}
  for name, (mask, sign) in kinds.items():
    members = np.flatnonzero(mask)
    order = np.argsort(sign * scores.probabilities[members], kind='stable')
    picks[name] = members[order[:_MOSAIC]]
  images = scoring.images_at(evaluation.source, np.concatenate([*picks.values()]))
  pictures, start = [], 0
  for name, members in picks.items():
    some = images[start : start + len(members)]
    start += len(members)
    if not len(members):
      continue
    fig = plots.mosaic(some, [_caption(scores, i) for i in members])
    uri = plots.save(fig, folder / f'{name.lower().replace(" ", "_")}.png')
    total = int(kinds[name][0].sum())
    pictures.append(
      report.Picture(
        uri, f'{name}: {len(members)} of {total}, most confident first', True
      )
    )
  wrong = np.concatenate([picks['False negatives'], picks['False positives']])
  rows = [_mistake(scores, i) for i in wrong]
  return [
    report.Section('Examples', pictures=pictures),
    report.Section(
      'Most confident mistakes',
      '' if rows else 'None.',
      ('record', 'x, y, z in mm', 'is', 'probability', 'diameter in mm', 'grey zone'),
      rows,
    ),
  ]


def _caption(scores: scoring.Scores, index: int) -> str:
  return f'{scores.probabilities[index]:.3f}  #{scores.features["candidate_id"][index]}'


def _mistake(scores: scoring.Scores, index: int) -> tuple[str, ...]:
  features = scores.features
  center = features['center_xyz_mm'][index]
  diameter = features['diameter_mm'][index]
  return (
    scores.keys[index].removeprefix('/'),
    ', '.join(f'{c:.1f}' for c in center) if np.isfinite(center).all() else '–',
    'nodule' if scores.labels[index] else 'non-nodule',
    f'{scores.probabilities[index]:.4f}',
    f'{diameter:.1f}' if diameter > 0 else '–',
    'yes' if features['excluded'][index] else '',
  )


def _training(evaluation: Evaluation, folder: pathlib.Path) -> list[report.Section]:
  history = evaluation.workdirs[0].read_history()
  if not history:
    return []
  uri = plots.save(plots.training_curves(history), folder / 'training.png')
  picture = report.Picture(uri, 'Loss and PR AUC over epochs', True)
  return [report.Section('Training', pictures=[picture])]


def _configuration(evaluation: Evaluation) -> report.Section:
  fields = workdir_lib.read_json(evaluation.workdirs[0].config)
  flat = workdir_lib.flatten(fields)
  rows = [(name.removeprefix('config.'), str(value)) for name, value in flat.items()]
  return report.Section('Configuration', header=('setting', 'value'), rows=rows)
