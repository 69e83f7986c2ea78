"""The report of an evaluation, section by section."""

from __future__ import annotations

from collections.abc import Callable, Sequence
import dataclasses
import functools
import pathlib

from matplotlib.figure import Figure
import numpy as np

from luna_tfds.files import atomic_files
from luna_tfds.hounsfield import WINDOW_HU
from luna_tfds.text_format import count_text
from model.metrics.classification import LONG_METRIC_LABELS
from model.metrics.classification import METRIC_LABELS
from model.metrics.classification import Rates
from model.metrics.resampling import Interval
from trainer import workdir as workdir_lib
from trainer.evaluation import subgroups
from trainer.evaluation.measurement import Measurement
from trainer.evaluation.steps import Evaluation
from trainer.evaluation.steps import EvaluationMetrics
from trainer.pictures import figures
from trainer.pictures import network_pictures
from trainer.pictures import plots
from trainer.report import calibration_section
from trainer.report import formatting
from trainer.report import froc_section
from trainer.report import html_renderer as html
from trainer.report.examples import Examples
from trainer.report.examples import choose_examples
from trainer.report.themed_picture import picture
from trainer.scoring import scored_records

_HEADLINES = ('pr_auc', 'recall', 'precision', 'f1')
_OPTIMISTIC = (
  'The article splits by candidate: several candidates of one nodule are on both sides '
  'of the split, so these metrics, like its own, are optimistic.'
)
_TARGET_METRICS = ('precision', 'recall', 'specificity', 'f1')


def build_page(evaluation: Evaluation, folder: pathlib.Path) -> str:
  """Returns report.html; writes its pictures to `folder` too."""
  examples = choose_examples(evaluation.scored.records, evaluation.decision.predicted)
  images = scored_records.read_images(evaluation.scored.source, examples.positions)
  metrics = evaluation.metrics
  measured = metrics.measurement
  return html.render(
    'Nodule classifier',
    _subtitle(metrics),
    [
      _metrics(metrics),
      _curves(evaluation, folder),
      *froc_section.froc_sections(metrics.froc, folder),
      *_targets(measured),
      *calibration_section.calibration_sections(evaluation),
      *_subgroups(measured, folder),
      _examples(evaluation, examples, images, folder),
      *_network(evaluation, examples, images, folder),
      *_training(evaluation, folder),
      _configuration(evaluation),
    ],
    headlines=[
      html.Headline(
        LONG_METRIC_LABELS[name],
        formatting.number(measured.metrics.value(name), 3),
        formatting.interval_in_words(measured.intervals.get(name)),
      )
      for name in _HEADLINES
    ]
    + froc_section.froc_headlines(metrics.froc),
    notices=_notices(metrics),
  )


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


def _metrics(metrics: EvaluationMetrics) -> html.Section:
  measured, decision = metrics.measurement, metrics.decision
  text = (
    'A record is predicted to be a nodule at a probability of '
    f'{decision.threshold:.4g} and above (rule {decision.rule}, chosen on '
    f'{decision.chosen_on}).'
  )
  if measured.intervals:
    text += (
      f' The 95 % intervals come from {measured.resampling.resamples} resamples of '
      f'{measured.resampled_unit}.'
    )
  columns = [('this model', measured.metrics, measured.intervals)]
  if measured.num_excluded:
    everything = measured.all_candidates
    columns.append(('with excluded', everything.metrics, everything.intervals))
    text += (
      f' {_sentence_of_excluded(measured.num_excluded)} The second column counts them as '
      'non-nodules.'
    )
  rows: list[Sequence[html.Cell]] = [
    (
      label,
      *(
        (formatting.number(of.value(name)), formatting.interval(bounds.get(name)))
        for _, of, bounds in columns
      ),
      *([formatting.number(metrics.article.get(name), 3)] if metrics.article else []),
    )
    for name, label in LONG_METRIC_LABELS.items()
  ]
  titles = [title for title, _, _ in columns]
  header = ('', *titles, *(['the article'] if metrics.article else []))
  return html.Section('Metrics', text, header, rows)


def _sentence_of_excluded(count: int) -> str:
  hit = count_text(count, 'record hits', 'records hit')
  return (
    f'{hit} an excluded finding, which is neither a nodule nor a true negative: the '
    "metrics leave them out, as LUNA16's official script does."
  )


def _curves(evaluation: Evaluation, folder: pathlib.Path) -> html.Section:
  records = evaluation.scored.records.without_excluded
  labels, probabilities = records.label, records.probability
  counts = evaluation.metrics.measurement.metrics.confusion_matrix
  drawings: dict[str, tuple[Callable[[], Figure], str]] = {
    'confusion_matrix': (
      lambda: plots.confusion_matrix(counts),
      'Confusion matrix: the number of records, and their share of the true class',
    )
  }
  if records.has_both_classes:
    drawings |= {
      'roc': (
        lambda: plots.roc(labels, probabilities, evaluation.metrics.article),
        'ROC curve; dotted: random guessing',
      ),
      'precision_recall': (
        lambda: plots.precision_recall(
          labels, probabilities, evaluation.metrics.article
        ),
        'Precision-recall curve; dotted: random guessing',
      ),
      'reliability': (
        lambda: plots.reliability(labels, probabilities),
        'Reliability diagram; dotted: perfect calibration. The area of a dot grows with '
        'the number of its records',
      ),
    }
  pictures = [
    picture(draw, folder / f'{name}.png', caption)
    for name, (draw, caption) in drawings.items()
  ]
  return html.Section('Confusion matrix and curves', pictures=pictures)


def _targets(measured: Measurement) -> list[html.Section]:
  if not measured.targets:
    return []
  rows = [
    (
      row.target.replace('>=', '≥'),
      f'{row.result.threshold:.3g}',
      *_cells(row.result.rates, row.intervals, _TARGET_METRICS),
    )
    for row in measured.targets
  ]
  labels = [METRIC_LABELS[name] for name in _TARGET_METRICS]
  return [
    html.Section(
      'Operating points',
      'The threshold that just reaches a target, chosen on the same records as the '
      'metrics; the intervals keep it fixed.',
      ('target', 'threshold', *labels),
      rows,
    )
  ]


def _subgroups(measured: Measurement, folder: pathlib.Path) -> list[html.Section]:
  """The metrics by diameter, slice thickness and subset; empty tables are left out."""
  sections = []
  if measured.by_diameter:
    sections.append(_by_diameter(measured.by_diameter, folder))
  names = subgroups.GROUP_METRICS
  header = (
    'records',
    'scans',
    'nodule candidates',
    *(METRIC_LABELS[name] for name in names),
  )
  for title, text, first, rows in (
    (
      'By slice thickness',
      'The distance between the slices of the scan.',
      'slice thickness',
      measured.by_slice_thickness,
    ),
    ('By subset', '', 'subset', measured.by_subset),
  ):
    # A single row repeats the metrics above.
    if len(rows) > 1:
      table = [
        (
          row.name,
          str(row.metrics.records),
          str(row.scans),
          str(row.metrics.nodules),
          *_cells(row.metrics, row.intervals, names),
        )
        for row in rows
      ]
      sections.append(html.Section(title, text, (first, *header), table))
  return sections


def _by_diameter(
  rows: Sequence[subgroups.DiameterRow], folder: pathlib.Path
) -> html.Section:
  def cell(row: subgroups.DiameterRow, name: str) -> html.Cell:
    value = formatting.number(getattr(row, name), 3)
    return value, formatting.interval(row.intervals.get(name))

  table = [
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
  return html.Section(
    'By diameter',
    'A nodule is found if any record that hits it is predicted to be a nodule. Nodules '
    'that no candidate hits are not in the dataset and not counted here.',
    ('diameter', 'nodules', 'found', 'records', 'recall', 'mean probability'),
    table,
    pictures=[drawn],
  )


def _cells(
  metrics: Rates, intervals: dict[str, Interval], names: Sequence[str]
) -> list[html.Cell]:
  return [
    (
      formatting.number(metrics.value(name), 3),
      formatting.interval(intervals.get(name)),
    )
    for name in names
  ]


def _examples(
  evaluation: Evaluation, examples: Examples, images: np.ndarray, folder: pathlib.Path
) -> html.Section:
  """The most confident records of each outcome, errors first."""
  records = evaluation.scored.records
  tiles = []
  for group in examples.groups:
    if not group.total:
      continue
    some = images[examples.slots(group)]
    captions = [f'{records.probability[i]:.3f}' for i in group.positions]
    figures.save(plots.mosaic(some, captions), folder / f'{group.file_stem}.png')
    heading = f'{group.name}: {len(group.positions)} of {group.total}'
    tiles.append(
      (heading, [_tile(records, i, img) for i, img in zip(group.positions, some)])
    )
  text = (
    f'The most confident first, windowed to {WINDOW_HU[0]} … {WINDOW_HU[1]} HU; of '
    'stacks and cubes the middle slice is shown.'
  )
  if not examples.has_errors:
    text = f'There are no errors. {text}'
  return html.Section(
    'Most confident errors and correct predictions', text, tiles=tiles
  )


def _tile(
  records: scored_records.ScoredRecords, index: int, image: np.ndarray
) -> html.Tile:
  center_xyz_mm = records.center_xyz_mm[index]
  diameter_mm = records.diameter_mm[index]
  lines = [f'candidate {records.candidate_id[index]}']
  if diameter_mm > 0:
    lines.append(f'diameter {diameter_mm:.1f} mm')
  if np.isfinite(center_xyz_mm).all():
    lines.append('at ' + ', '.join(f'{c:.1f}' for c in center_xyz_mm) + ' mm')
  if records.excluded[index]:
    lines.append('excluded finding')
  return html.Tile(
    plots.patch_uri(image),
    f'{records.probability[index]:.3f}',
    lines,
    str(records.seriesuid[index]),
  )


def _network(
  evaluation: Evaluation, examples: Examples, images: np.ndarray, folder: pathlib.Path
) -> list[html.Section]:
  """Filters, feature maps and Grad-CAM, for the nodule of highest probability.

  There are none of a network without a convolution.
  """
  records = evaluation.scored.records
  model = evaluation.scored.runs[0].model.keras_model
  image = images[examples.slot(examples.most_probable)]
  pictures = [
    dataclasses.replace(
      picture(draw, folder / f'{name}.png', _network_caption(name)), wide=True
    )
    for name, draw in network_pictures.all_pictures(model, image).items()
  ]
  where = f'candidate {records.candidate_id[examples.most_probable]}'
  if records.scans_known:
    where += f' of the scan {records.seriesuid[examples.most_probable]}'
  text = (
    f'The filters of the first layer, and for {where} (probability '
    f'{records.probability[examples.most_probable]:.3f}) the output of each convolution '
    'and the Grad-CAM evidence for the nodule class.'
  )
  if not pictures:
    return []
  return [html.Section('What the network computes', text, pictures=pictures)]


def _network_caption(name: str) -> str:
  if name == 'filters':
    return (
      'Filters of the first layer, each scaled to its largest weight; red: positive, '
      'blue: negative'
    )
  if name == 'grad_cam':
    return 'Grad-CAM evidence for the nodule class'
  layer = name.removeprefix('features_')
  return f'Output of {layer}, each map scaled to its maximum'


def _training(evaluation: Evaluation, folder: pathlib.Path) -> list[html.Section]:
  history = evaluation.scored.runs[0].workdir.read_history()
  if not history:
    return []
  pictures = [
    picture(
      functools.partial(plots.training_curve, history, name, label),
      folder / f'training_{name}.png',
      f'{label[0].upper()}{label[1:]} of each epoch; training: of the balanced, '
      'augmented batches',
    )
    for name, label in (('loss', 'loss'), ('pr_auc', METRIC_LABELS['pr_auc']))
  ]
  return [html.Section('Training', pictures=pictures)]


def _configuration(evaluation: Evaluation) -> html.Section:
  runs = evaluation.scored.runs
  flat = workdir_lib.flatten(atomic_files.read_json(runs[0].workdir.config))
  rows: list[Sequence[html.Cell]] = [('workdir', str(run.workdir.path)) for run in runs]
  rows += [
    (
      name.removeprefix('config.'),
      formatting.DASH if value in (None, '') else str(value),
    )
    for name, value in flat.items()
  ]
  return html.Section(
    'Configuration', header=('setting', 'value'), rows=rows, names=True
  )
