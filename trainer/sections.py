"""What report.html tells of an evaluation, section by section."""

from __future__ import annotations

from collections.abc import Callable, Sequence
import functools
import pathlib
from typing import Any

import numpy as np

from trainer import plots
from trainer import report
from trainer import scoring
from trainer import workdir as workdir_lib
from trainer.evaluation import Evaluation
from trainer.evaluation import scans_known

_TILES = 12
# Below, resampling scans tells too little of how scans differ.
_FEW_SCANS = 20
_FIGURES = {
  'accuracy': 'accuracy',
  'precision': 'precision',
  'recall': 'recall (sensitivity)',
  'specificity': 'specificity',
  'f1': 'F1',
  'roc_auc': 'ROC AUC',
  'pr_auc': 'PR AUC',
  'brier': 'Brier score',
  'ece': 'calibration error (ECE)',
}
_HEADLINES = ('pr_auc', 'recall', 'precision', 'f1')
_OPTIMISTIC = (
  'The article splits by candidate: several candidates of one nodule lie on both sides '
  'of the split, so these figures, like its own, are optimistic.'
)


def page(evaluation: Evaluation, folder: pathlib.Path) -> str:
  """Returns report.html; writes its pictures to `folder` too."""
  metrics = evaluation.metrics
  members = f' (mean of {metrics["models"]} runs)' if metrics['models'] > 1 else ''
  subtitle = (
    f'{metrics["model"]}{members} on {metrics["dataset"]}, split {metrics["split"]}: '
    f'{metrics["records"]} records, {metrics["nodules"]} nodules'
  )
  if metrics['scans']:
    subtitle += f', {metrics["scans"]} scans'
  return report.render(
    'Nodule classifier',
    subtitle,
    [
      _figures(metrics),
      _curves(evaluation, folder),
      *_operating_points(metrics),
      *_breakdowns(metrics, folder),
      _examples(evaluation, folder),
      *_network(evaluation, folder),
      *_training(evaluation, folder),
      _configuration(evaluation),
    ],
    headlines=[
      report.Headline(
        _FIGURES[name],
        report.number(metrics[name], 3),
        _interval_words(metrics.get('intervals', {}).get(name)),
      )
      for name in _HEADLINES
    ],
    notices=_notices(metrics),
  )


def _notices(metrics: dict[str, Any]) -> list[str]:
  notices = []
  if _is_article(metrics):
    notices.append(_OPTIMISTIC)
  if metrics['records_trained_on']:
    notices.append(
      f'{metrics["records_trained_on"]} of the {metrics["records"]} records were '
      'trained on: the figures say how well the network remembers, not how well it '
      'works on new scans.'
    )
  if metrics['scans'] and metrics['scans'] < _FEW_SCANS:
    notices.append(
      f'The intervals rest on {metrics["scans"]} scans only: with so few they come out '
      'too narrow.'
    )
  if metrics['nodules'] in (0, metrics['records']):
    notices.append(
      'The split holds one class only: figures that need both are not defined.'
    )
  return notices


def _is_article(metrics: dict[str, Any]) -> bool:
  return metrics['dataset'].startswith('luna16_patches/article')


def _figures(metrics: dict[str, Any]) -> report.Section:
  text = (
    f'Called a nodule from a probability of {metrics["threshold"]:.4g} on (rule '
    f'{metrics["threshold_rule"]}, chosen on {metrics["threshold_chosen_on"]}).'
  )
  intervals = metrics.get('intervals', {})
  if intervals:
    text += (
      f' The 95 % intervals come from {metrics["bootstrap"]["resamples"]} resamples of '
      f'{metrics["intervals_resample"]}.'
    )
  rows = [
    (
      label,
      (report.number(metrics[name]), report.interval(intervals.get(name))),
      report.number(report.ARTICLE.get(name), 3),
    )
    for name, label in _FIGURES.items()
  ]
  return report.Section('Figures', text, ('', 'this model', 'the article'), rows)


def _interval_words(bounds: Sequence[float | None] | None) -> str:
  text = report.interval(bounds)
  return f'95 %: {text}' if text else ''


def _curves(evaluation: Evaluation, folder: pathlib.Path) -> report.Section:
  labels, probabilities = evaluation.scores.labels, evaluation.scores.probabilities
  counts = evaluation.metrics['confusion_matrix']
  drawings: dict[str, tuple[Callable[[], Any], str]] = {
    'confusion_matrix': (lambda: plots.confusion_matrix(counts), 'Confusion matrix')
  }
  if len(np.unique(labels)) == 2:
    drawings |= {
      'roc': (lambda: plots.roc(labels, probabilities, report.ARTICLE), 'ROC curve'),
      'precision_recall': (
        lambda: plots.precision_recall(labels, probabilities, report.ARTICLE),
        'Precision and recall',
      ),
      'reliability': (
        lambda: plots.reliability(labels, probabilities),
        'Calibration: of the records at probability p a share p should be nodules; a '
        "dot's area tells how many there are",
      ),
    }
  pictures = [
    _picture(draw, folder / f'{name}.png', caption)
    for name, (draw, caption) in drawings.items()
  ]
  return report.Section('Curves', pictures=pictures)


def _operating_points(metrics: dict[str, Any]) -> list[report.Section]:
  names = ('precision', 'recall', 'specificity', 'f1')
  rows = [
    (
      point['target'].replace('>=', '≥'),
      f'{point["threshold"]:.3g}',
      *_cells(point, names),
    )
    for point in metrics['operating_points']
  ]
  if not rows:
    return []
  return [
    report.Section(
      'Operating points',
      'The threshold that just reaches a target, read off these very records; the '
      'intervals hold it fixed.',
      ('at', 'threshold', 'precision', 'recall', 'specificity', 'F1'),
      rows,
    )
  ]


def _breakdowns(metrics: dict[str, Any], folder: pathlib.Path) -> list[report.Section]:
  """The figures by diameter, slice thickness and subset; what is unknown is left out."""
  found = []
  if rows := metrics.get('by_diameter'):
    found.append(_by_diameter(rows, folder))
  header = (
    'records',
    'scans',
    'nodules',
    'recall',
    'specificity',
    'precision',
    'ROC AUC',
    'PR AUC',
  )
  names = ('recall', 'specificity', 'precision', 'roc_auc', 'pr_auc')
  for key, title, first in (
    ('by_slice_thickness', 'By slice thickness', 'slices every'),
    ('by_subset', 'By subset', 'subset'),
  ):
    rows = metrics.get(key, [])
    # A single row repeats the figures above.
    if len(rows) > 1:
      table = [
        (
          str(row.get('bin', row.get('subset'))),
          *(str(row[name]) for name in ('records', 'scans', 'nodules')),
          *_cells(row, names),
        )
        for row in rows
      ]
      found.append(report.Section(title, '', (first, *header), table))
  return found


def _by_diameter(rows: list[dict[str, Any]], folder: pathlib.Path) -> report.Section:
  table = [
    (
      row['bin'],
      str(row['nodules']),
      *_cells(row, ('nodule_recall',)),
      str(row['records']),
      *_cells(row, ('recall', 'mean_probability')),
    )
    for row in rows
  ]
  names = [row['bin'] for row in rows]
  values = [row['nodule_recall'] for row in rows]
  intervals = [row.get('intervals', {}).get('nodule_recall') for row in rows]
  picture = _picture(
    lambda: plots.shares(names, values, intervals, 'share of nodules found'),
    folder / 'by_diameter.png',
    'Nodules found by their diameter, with 95 % intervals',
  )
  return report.Section(
    'By diameter',
    'A nodule is found if any record that hits it is called. Nodules that no candidate '
    'hits are not in the dataset and not counted here.',
    ('diameter', 'nodules', 'found', 'records', 'recall', 'mean probability'),
    table,
    pictures=[picture],
  )


def _cells(row: dict[str, Any], names: Sequence[str]) -> list[report.Cell]:
  intervals = row.get('intervals', {})
  return [
    (report.number(row[name], 3), report.interval(intervals.get(name)))
    for name in names
  ]


def _examples(evaluation: Evaluation, folder: pathlib.Path) -> report.Section:
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
    picks[name] = members[order[:_TILES]]
  images = iter(
    scoring.images_at(evaluation.source, np.concatenate([*picks.values()]).tolist())
  )
  groups = []
  for name, members in picks.items():
    some = [next(images) for _ in members]
    total = int(kinds[name][0].sum())
    if total:
      captions = [f'{scores.probabilities[i]:.3f}' for i in members]
      path = folder / f'{name.lower().replace(" ", "_")}.png'
      plots.save(plots.mosaic(np.stack(some), captions), path)
      tiles = [_tile(scores, int(i), image) for i, image in zip(members, some)]
      groups.append((f'{name}: {len(members)} of {total}', tiles))
  text = (
    'The most confident first. Window -1000 … 400 HU; of stacks and cubes the middle '
    'slice. Grey zone: on a finding that LUNA16 counts neither as nodule nor as error.'
  )
  if not any(len(picks[name]) for name in ('False negatives', 'False positives')):
    text = f'There is no mistake. {text}'
  return report.Section('Most confident mistakes, and hits', text, tiles=groups)


def _tile(scores: scoring.Scores, index: int, image: np.ndarray) -> report.Tile:
  features = scores.features
  center = features['center_xyz_mm'][index]
  diameter = features['diameter_mm'][index]
  lines = [f'candidate {features["candidate_id"][index]}']
  if diameter > 0:
    lines.append(f'{diameter:.1f} mm across')
  if np.isfinite(center).all():
    lines.append('at ' + ', '.join(f'{c:.1f}' for c in center) + ' mm')
  if features['excluded'][index]:
    lines.append('grey zone')
  return report.Tile(
    plots.patch_uri(image),
    f'{scores.probabilities[index]:.3f}',
    lines,
    str(features['seriesuid'][index]),
  )


def _network(evaluation: Evaluation, folder: pathlib.Path) -> list[report.Section]:
  """Filters, feature maps and what speaks for a nodule, of the surest nodule."""
  from trainer import visualize

  scores = evaluation.scores
  surest = int(np.argmax(np.where(scores.labels == 1, 1, -1) + scores.probabilities))
  image = scoring.images_at(evaluation.source, [surest])[0]
  model = evaluation.runs[0].model
  with plots.theme('light'):
    light = visualize.figures(model, image)
    uris = {n: plots.save(fig, folder / f'{n}.png') for n, fig in light.items()}
  pictures = [
    report.Picture(uri, name.replace('_', ' ').capitalize(), wide=True)
    for name, uri in uris.items()
  ]
  where = f'candidate {scores.features["candidate_id"][surest]}'
  if scans_known(scores):
    where += f' of the scan {scores.features["seriesuid"][surest]}'
  text = (
    f'The first filters, and for {where} (probability '
    f'{scores.probabilities[surest]:.3f}) the responses of each convolution and what '
    'of the patch speaks for a nodule (Grad-CAM).'
  )
  return [report.Section('What the network sees', text, pictures=pictures)]


def _training(evaluation: Evaluation, folder: pathlib.Path) -> list[report.Section]:
  history = evaluation.runs[0].workdir.read_history()
  if not history:
    return []
  pictures = [
    _picture(
      functools.partial(plots.training_curve, history, name),
      folder / f'training_{name}.png',
      f'{title} over epochs; in training it is of the balanced, augmented batches',
    )
    for name, title in (('loss', 'Loss'), ('pr_auc', 'PR AUC'))
  ]
  return [report.Section('Training', pictures=pictures)]


def _configuration(evaluation: Evaluation) -> report.Section:
  fields = workdir_lib.read_json(evaluation.runs[0].workdir.config)
  flat = workdir_lib.flatten(fields)
  rows: list[Sequence[report.Cell]] = [
    ('workdir', str(run.workdir.path)) for run in evaluation.runs
  ]
  rows += [(name.removeprefix('config.'), str(value)) for name, value in flat.items()]
  return report.Section(
    'Configuration', header=('setting', 'value'), rows=rows, names=True
  )


def _picture(
  draw: Callable[[], Any], path: pathlib.Path, caption: str, wide: bool = False
) -> report.Picture:
  light, dark = plots.save_themed(draw, path)
  return report.Picture(light, caption, wide, dark)
