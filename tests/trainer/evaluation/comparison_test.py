import dataclasses

import numpy as np
import pytest

from luna_tfds.errors import UsageError
from model.metrics import froc
from model.metrics.resampling import Resampling
from trainer.evaluation import comparison
from trainer.report import text_table
from trainer.scoring.scored_records import ScoredRecords

FEW = Resampling(resamples=10)
EVERYTHING = 'train+validation+test'


@pytest.fixture(scope='module')
def first(evaluate_folders, trained):
  return evaluate_folders(trained, split=EVERYTHING, rule='0.3')


@pytest.fixture(scope='module')
def second(evaluate_folders, other_trained):
  return evaluate_folders(other_trained, split=EVERYTHING, rule='0.3')


def test_differences_are_those_of_the_metrics(first, second):
  found = comparison.compare(first, second, FEW)
  assert list(found.metrics) == ['pr_auc', 'roc_auc', 'f1', 'cpm']
  # Excluded findings are left out, as in the metrics.
  assert found.records == len(first.scored.records.without_excluded)
  assert found.records < len(first.scored.records)
  assert found.resampled_unit == 'scans'
  for name, row in found.metrics.items():
    a, b = (
      e.result.froc.curve.cpm
      if name == 'cpm'
      else e.result.split_metrics.classification.value(name)
      for e in (first, second)
    )
    assert (row.a, row.b) == (a, b)
    assert row.difference.value == pytest.approx(a - b)
    assert row.difference.interval.lower <= row.difference.interval.upper


def test_leaks_of_both_models_are_reported(first, second):
  found = comparison.compare(first, second, FEW)
  trained_on = first.result.records_trained_on
  assert trained_on > 0
  fields = found.to_json()
  assert fields['records_trained_on_a'] == fields['records_trained_on_b'] == trained_on
  paths = [str(e.scored.runs[0].workdir.path) for e in (first, second)]
  *of_models, of_scans = fields['warnings']
  assert [text.partition(': ')[0] for text in of_models] == paths
  assert 'computed from 12 scans only' in of_scans
  total = len(first.scored.records)
  assert f'{trained_on} of the {total} records' in fields['warnings'][0]


def test_froc_warnings_of_both_models_are_reported(first, second):
  def with_warning(evaluation, text):
    curve = dataclasses.replace(evaluation.result.froc, warnings=(text,))
    result = dataclasses.replace(evaluation.result, froc=curve)
    return dataclasses.replace(evaluation, result=result)

  a, b = with_warning(first, 'a tie'), with_warning(second, 'a cut shard')
  paths = [e.scored.runs[0].workdir.path for e in (first, second)]
  found = comparison.compare(a, b, FEW)
  expected = [f'{paths[0]}: a tie', f'{paths[1]}: a cut shard']
  assert found.to_json()['froc_warnings'] == expected
  table = text_table.comparison_table(found)
  assert all(f'CPM: {text}' in table for text in expected)


def test_a_model_does_not_differ_from_itself(first):
  for row in comparison.compare(first, first, FEW).metrics.values():
    interval = row.difference.interval
    assert row.difference.value == interval.lower == interval.upper == 0


def test_exchanged_models_have_the_opposite_differences(first, second):
  forth = comparison.compare(first, second, FEW).metrics
  back = comparison.compare(second, first, FEW).metrics
  for name, row in forth.items():
    assert row.difference.value == pytest.approx(-back[name].difference.value)
    lower, upper = row.difference.interval.to_json()
    other = back[name].difference.interval
    assert (lower, upper) == pytest.approx((-other.upper, -other.lower))


def test_records_in_another_order_are_compared_by_their_keys(first):
  order = np.random.default_rng(0).permutation(len(first.scored.records))
  shuffled = ScoredRecords(
    **{name: values[order] for name, values in vars(first.scored.records).items()}
  )
  source = dataclasses.replace(first.scored.source, fingerprint='another')
  other = dataclasses.replace(
    first,
    scored=dataclasses.replace(first.scored, records=shuffled, source=source),
    decision=dataclasses.replace(
      first.decision, predicted=first.decision.predicted[order]
    ),
  )
  found = comparison.compare(first, other, FEW)
  for row in found.metrics.values():
    assert row.difference.value == 0
    assert row.difference.interval.to_json() == [0, 0]


def test_models_of_two_datasets_are_compared_on_one(
  evaluate_folders, trained, trained_on_part
):
  a, b = (evaluate_folders(folder) for folder in (trained, trained_on_part))
  found = comparison.compare(a, b, FEW)
  assert found.records == len(a.scored.records.without_excluded)
  assert found.workdirs == (str(trained), str(trained_on_part))


def test_different_records_are_refused(first, evaluate_folders, trained):
  other = evaluate_folders(trained, split='test')
  source = dataclasses.replace(other.scored.source, fingerprint='another')
  other = dataclasses.replace(
    other, scored=dataclasses.replace(other.scored, source=source)
  )
  with pytest.raises(UsageError, match='compare models on the same candidates'):
    comparison.compare(first, other, FEW)


def test_compare_json(first, second):
  fields = comparison.compare(first, second, FEW).to_json()
  assert list(fields) == [
    'a',
    'b',
    'dataset_a',
    'dataset_b',
    'split',
    'records',
    'records_trained_on_a',
    'records_trained_on_b',
    'warnings',
    'bootstrap',
    'froc_nodules',
    'froc_warnings',
    'metrics',
  ]
  for row in fields['metrics'].values():
    assert list(row) == ['a', 'b', 'difference', 'lower', 'upper', 'p_value']


def test_table_has_a_line_for_each_metric(first, second, trained):
  found = comparison.compare(first, second, FEW)
  lines = text_table.comparison_table(found).splitlines()
  assert lines[0] == f'a: {trained}'
  assert lines[2].endswith('10 resamples of scans')
  rows = [line.split() for line in lines[4:]]
  assert [row[0] for row in rows] == ['PR', 'ROC', 'F1', 'CPM', 'CPM:']
  row = found.metrics['f1']
  assert rows[2][1:4] == [
    f'{row.a:.4f}',
    f'{row.b:.4f}',
    f'{row.difference.value:+.4f}',
  ]


def test_undefined_metrics_are_a_dash_in_the_table(evaluate_folders, trained):
  one_record = evaluate_folders(trained, split='test[:1]', rule='0.3')
  found = comparison.compare(one_record, one_record, FEW)
  assert '–' in text_table.comparison_table(found).splitlines()[4]


def test_cpm_is_compared_in_the_same_resamples(first, second):
  found = comparison.compare(first, second, FEW).metrics['cpm'].difference
  assert found == froc.paired_cpm_difference(
    first.result.froc.entries, second.result.froc.entries, FEW
  )


def test_without_known_scans_there_is_no_cpm(first):
  result = dataclasses.replace(first.result, froc=None)
  unknown = dataclasses.replace(first, result=result)
  found = comparison.compare(unknown, unknown, FEW)
  assert 'cpm' not in found.metrics
  assert found.to_json()['froc_nodules'] == ''
  assert 'CPM' not in text_table.comparison_table(found)
