import dataclasses
import html.parser
import json
import re

import numpy as np
import pytest

from luna_tfds.files import atomic_files
from model.metrics.resampling import Resampling
from trainer.crossvalidation import folds as folds_lib
from trainer.crossvalidation import merged_files
from trainer.crossvalidation import merging
from trainer.pictures import fold_plots


@pytest.fixture
def merged(plans, reference, tmp_path):
  """Merged folds; of fold 5 a report is there."""
  plans[1].report_file.write_text('a report')
  fields = atomic_files.read_json(plans[0].metrics_file)
  fields = {**fields, 'warnings': ['a <leak>'], 'intervals': {'pr_auc': [0.25, 0.75]}}
  atomic_files.write_json(plans[0].metrics_file, fields)
  return merging.merge(plans, tmp_path, reference, Resampling(resamples=10))


class Reader(html.parser.HTMLParser):
  """Collects headings, links and the rows of the tables."""

  def __init__(self, text):
    super().__init__()
    self.headings, self.links, self.sources, self.rows, self.inside = [], [], [], [], ''
    self.feed(text)

  def handle_starttag(self, tag, attrs):
    self.inside = tag
    if tag == 'tr':
      self.rows.append([])
    if tag in ('td', 'th'):
      self.rows[-1].append([])
    if tag == 'a':
      self.links.append(dict(attrs)['href'])
    if tag in ('img', 'source'):
      self.sources += [v for k, v in attrs if k in ('src', 'srcset')]

  def handle_data(self, data):
    if self.inside == 'h2':
      self.headings.append(data.strip())
    if self.inside in ('td', 'th', 'small', 'a') and data.strip():
      self.rows[-1][-1].append(data)

  def handle_endtag(self, tag):
    self.inside = ''


def test_report_of_all_folds(merged, tmp_path):
  path = merged_files.write(merged, tmp_path)
  assert path == tmp_path / 'report.html'
  text = path.read_text()
  found = Reader(text)
  assert found.headings == ['Folds', 'FROC', 'Curves', 'Configuration']
  # One file, but for the reports of the folds.
  assert all(source.startswith('data:') for source in found.sources)
  assert found.links == ['fold5/fold_report.html']
  assert 'Fold 2: a &lt;leak&gt;.' in text
  result = json.loads((tmp_path / 'crossval.json').read_text())

  header, *rows = found.rows[:6]
  assert [''.join(cell) for cell in header][:5] == [
    'fold',
    'records',
    'nodule candidates',
    'scans',
    'PR AUC',
  ]
  assert [row[0] for row in rows] == [
    ['fold 2'],
    ['fold 5'],
    ['fold 7'],
    ['mean'],
    ['pooled'],
  ]
  assert rows[0][4] == [f'{result["folds"][0]["pr_auc"]:.3f}', '0.250 … 0.750']
  mean, std = result['mean'], result['std']
  for column, name in ((4, 'pr_auc'), (8, 'f1'), (9, 'cpm')):
    assert rows[3][column] == [f'{mean[name]:.3f}', f'± {std[name]:.3f}']
  assert rows[4][1:4] == [['90'], ['18'], ['9']]
  assert rows[4][9][0] == f'{merged.froc.curve.cpm:.3f}'
  band = merged.froc.band.cpm.interval
  assert rows[4][9][1] == f'{band.lower:.3f} … {band.upper:.3f}'
  headline = text[text.index('pooled CPM (FROC)') :]
  interval = f'95 % CI: {band.lower:.3f} … {band.upper:.3f}'
  assert f'over 3 folds; {interval}' in headline.replace('\xa0', ' ')
  assert 'of which 1 are reached by no candidate' in text
  names = {p.name for p in (tmp_path / 'plots').iterdir()}
  assert names == {
    'froc.png',
    'roc.png',
    'precision_recall.png',
    'pr_auc_by_fold.png',
    'reliability.png',
  }


def test_report_without_nodules_to_find(plans, tmp_path):
  merged = merging.merge(plans, tmp_path, None, Resampling(resamples=0))
  text = merged_files.write(merged, tmp_path).read_text()
  assert Reader(text).headings == ['Folds', 'Curves', 'Configuration']
  assert 'CPM' not in re.sub(r'<style>.*?</style>', '', text, flags=re.DOTALL)


@pytest.mark.parametrize('resamples', [10, 0])
def test_few_scans_are_noted_beside_intervals(plans, tmp_path, resamples):
  merged = merging.merge(plans, tmp_path, None, Resampling(resamples=resamples))
  text = merged_files.write(merged, tmp_path).read_text()
  note = (
    'The intervals are computed from 9 scans only: with so few they are too narrow.'
  )
  assert (note in text) is bool(resamples)


def test_curves_leave_excluded_findings_out(plans, fold_results, tmp_path, monkeypatch):
  records, predicted = fold_results[0]
  excluded = (np.arange(len(records)) % 3 == 0) & (records.label == 0)
  changed = dataclasses.replace(records, excluded=excluded)
  folds_lib.write_scores(plans[0].scores_file, changed, predicted)
  drawn = []
  roc = fold_plots.roc
  monkeypatch.setattr(
    fold_plots, 'roc', lambda f, marks: (drawn.append((f, marks)), roc(f, marks))[1]
  )
  merged = merging.merge(plans, tmp_path, None, Resampling(resamples=0))
  merged_files.write(merged, tmp_path)
  folds, (mark,) = drawn[0]
  counts = [len(fold.labels) for fold in folds.values()]
  assert counts == [30 - excluded.sum(), 30, 30]
  # The marked point is that of the table's last row.
  pooled = merged.pooled.classification
  assert (mark.recall, mark.precision) == (pooled.recall, pooled.precision)
  assert mark.specificity == pooled.specificity


def test_a_fold_of_one_class_counts_in_the_curve_of_all_folds(
  plans, fold_results, tmp_path
):
  for plan, (records, predicted) in zip(plans, fold_results):
    of_one_class = records.select(records.label == (plan is plans[0]))
    folds_lib.write_scores(
      plan.scores_file, of_one_class, predicted[: len(of_one_class)]
    )
    fields = atomic_files.read_json(plan.metrics_file)
    atomic_files.write_json(plan.metrics_file, {**fields, 'pr_auc': None})
  merged = merging.merge(plans, tmp_path, None, Resampling(resamples=0))
  text = merged_files.write(merged, tmp_path).read_text()
  assert 'Curves' in Reader(text).headings
  names = {path.name for path in (tmp_path / 'plots').iterdir()}
  assert names == {'roc.png', 'precision_recall.png', 'reliability.png'}
