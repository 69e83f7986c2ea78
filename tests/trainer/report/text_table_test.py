import dataclasses
import types

import fake_scores
import pytest

from model.metrics.resampling import Resampling
from trainer.evaluation import split_metrics
from trainer.evaluation import steps
from trainer.report import text_table


@pytest.fixture(scope='module')
def evaluation(evaluate_folders, trained):
  return evaluate_folders(trained, split='validation+test', rule='0.3')


def test_table_has_the_main_metrics_and_for_its_patches_those_of_the_article(
  evaluation,
):
  result = steps.compute_metrics(
    evaluation.scored, evaluation.decision, Resampling(resamples=20)
  )
  first, *lines = text_table.metrics_table(result).splitlines()
  split_metrics = result.split_metrics
  assert first.startswith(
    f'validation+test: {split_metrics.classification.records} records, '
    f'{split_metrics.classification.nodules} nodule candidates; '
  )
  labels = [line[2:14].rstrip() for line in lines]
  assert labels == [
    'accuracy',
    'precision',
    'recall',
    'specificity',
    'F1',
    'ROC AUC',
    'PR AUC',
    'CPM',
    'The sensitiv',
  ]
  band = result.froc.band.cpm.interval
  assert lines[7].split() == [
    'CPM',
    f'{result.froc.curve.cpm:.4f}',
    f'{band.lower:.3f}',
    '…',
    f'{band.upper:.3f}',
  ]
  assert 'that a candidate reaches in the 2 scans' in lines[8]
  recall = lines[2]
  lower, upper = split_metrics.intervals['recall'].to_json()
  assert (
    f'{split_metrics.classification.recall:.4f}   {lower:.3f} … {upper:.3f}' in recall
  )
  assert not any('article' in line for line in lines)
  of_article = dataclasses.replace(result, dataset='luna16_patches/article/1.0.0')
  of_article_lines = text_table.metrics_table(of_article).splitlines()
  assert of_article_lines[3] == f'{recall}   (article 0.712)'


def test_without_intervals_and_with_undefined_metrics(evaluation):
  split_metrics = evaluation.result.split_metrics
  undefined = dataclasses.replace(
    split_metrics.classification, pr_auc=float('nan'), nodules=1
  )
  result = dataclasses.replace(
    evaluation.result,
    split_metrics=dataclasses.replace(split_metrics, classification=undefined),
  )
  lines = text_table.metrics_table(result).splitlines()
  assert ' records, 1 nodule candidate; 3 excluded findings ' in lines[0]
  assert lines[7].split()[:3] == ['PR', 'AUC', '–']
  assert lines[8].split()[0] == 'CPM'
  assert all('…' not in line for line in lines)


def test_metrics_with_excluded_findings_are_in_brackets():
  records = fake_scores.make_records(
    [
      {'scan': 'a', 'label': 1, 'probability': 0.9},
      {'scan': 'a', 'label': 0, 'probability': 0.1},
      {'scan': 'b', 'label': 0, 'probability': 0.8, 'excluded': True},
    ]
  )
  computed = split_metrics.compute(
    records, records.probability >= 0.5, None, Resampling(resamples=0)
  )
  result = types.SimpleNamespace(
    split='test', split_metrics=computed, froc=None, article={}
  )
  first, _, precision, *_ = text_table.metrics_table(result).splitlines()
  assert first == (
    'test: 2 records, 1 nodule candidate; 1 excluded finding left out, in brackets with '
    'them as non-nodules'
  )
  assert precision.split() == ['precision', '1.0000', '[0.5000]']
