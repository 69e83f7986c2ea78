import dataclasses

import pytest

from model.metrics.resampling import Resampling
from trainer.evaluation import steps
from trainer.report import text_table


@pytest.fixture(scope='module')
def evaluation(evaluate_folders, trained):
  return evaluate_folders(trained, split='validation+test', rule='0.3')


def test_table_has_the_main_metrics_beside_those_of_the_article(evaluation):
  metrics = steps.measure(
    evaluation.scored, evaluation.decision, Resampling(resamples=20)
  )
  first, *lines = text_table.metrics_table(metrics).splitlines()
  measured = metrics.measurement
  assert first == (
    f'validation+test: {measured.metrics.records} records, '
    f'{measured.metrics.nodules} nodules'
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
  ]
  recall = lines[2]
  lower, upper = measured.intervals['recall'].to_json()
  assert f'{measured.metrics.recall:.4f}   {lower:.3f} … {upper:.3f}' in recall
  assert recall.endswith('(article 0.712)')
  assert 'article' not in lines[-1]


def test_without_intervals_and_with_undefined_metrics(evaluation):
  measured = evaluation.metrics.measurement
  undefined = dataclasses.replace(measured.metrics, pr_auc=float('nan'), nodules=1)
  metrics = dataclasses.replace(
    evaluation.metrics, measurement=dataclasses.replace(measured, metrics=undefined)
  )
  lines = text_table.metrics_table(metrics).splitlines()
  assert lines[0].endswith(' records, 1 nodule')
  assert lines[-1].split() == ['PR', 'AUC', '–']
  assert all('…' not in line for line in lines)
