import dataclasses
import json

import fake_scores
import numpy as np
import pytest

from luna_tfds.errors import UsageError
from model.metrics.threshold_rule import ThresholdRule
from trainer.scoring import operating_point
from trainer.scoring.operating_point import OperatingPoint


def make_point(**fields):
  defaults = {
    'rule': 'max_f1',
    'threshold': 0.3,
    'chosen_on': 'validation',
    'tta': True,
    'trained_prior': 0.5,
    'deployed_prior': 0.1,
  }
  return OperatingPoint(**{**defaults, **fields})


SEPARABLE = fake_scores.make_records(
  [{'label': int(p > 0.5), 'probability': p, 'scan': f's{p}'} for p in (0.2, 0.6, 0.8)]
)


def test_a_written_point_is_read_again(tmp_path):
  path = tmp_path / 'operating_point.json'
  point = make_point()
  point.write(path)
  assert OperatingPoint.read(path) == point
  assert json.loads(path.read_text()) == dataclasses.asdict(point)


@pytest.mark.parametrize(
  ('stored', 'rule', 'expected'),
  [
    ('given', '0.7', None),
    ('no validation split', 'max_f1', None),
    ('validation[:50%]', 'max_f1', 'validation[:50%]'),
  ],
)
def test_a_point_of_release_1_0_0_is_read(stored, rule, expected, tmp_path):
  """It says in words why no record chose the threshold."""
  path = tmp_path / 'operating_point.json'
  point = make_point(rule=rule, chosen_on=expected)
  path.write_text(json.dumps({**dataclasses.asdict(point), 'chosen_on': stored}))
  assert OperatingPoint.read(path) == point


@pytest.mark.parametrize(
  'text', ['{"rule": "max_f1"}', '{"other": 1}', '[1]', 'no JSON', '{"rule": "best"}']
)
def test_a_file_that_is_no_operating_point_is_refused(text, tmp_path):
  path = tmp_path / 'operating_point.json'
  path.write_text(text)
  with pytest.raises(
    UsageError,
    match=r'operating_point\.json: cannot be read: .*; run the same luna16-train command',
  ):
    OperatingPoint.read(path)


def test_threshold_is_chosen_by_the_rule_on_the_records_given():
  point = make_point(chosen_on=None).choose(SEPARABLE, 'validation')
  assert point.threshold == pytest.approx(0.4)
  assert point.chosen_on == 'validation'
  assert point == make_point(threshold=point.threshold)  # nothing else changes


def test_a_number_is_taken_as_the_threshold():
  point = make_point(rule='0.7')
  assert point.is_fixed
  assert not make_point().is_fixed
  chosen = point.choose(SEPARABLE, 'validation')
  assert (chosen.threshold, chosen.chosen_on) == (0.7, None)
  assert chosen.chosen_on_text == 'given'
  assert point.choose(None, None) == chosen


def test_without_records_the_threshold_is_one_half():
  chosen = make_point(rule='recall:0.9').choose(None, None)
  assert (chosen.threshold, chosen.chosen_on) == (0.5, None)
  assert chosen.chosen_on_text == 'no validation records of both classes'


def decide(point, shares_selection_records, records=SEPARABLE):
  return operating_point.decide(
    records, 'test', point, shares_selection_records=shares_selection_records
  )


def test_a_record_at_the_threshold_is_predicted_to_be_a_nodule():
  decision = decide(make_point(threshold=0.6), False)
  assert decision.predicted.tolist() == [False, True, True]
  assert (decision.point.threshold, decision.point.rule) == (0.6, 'max_f1')
  assert decision.chosen_on_text == 'validation'


@pytest.mark.parametrize(
  ('rule', 'text'),
  [('0.6', 'given'), ('max_f1', 'no validation records of both classes')],
)
def test_a_threshold_that_no_record_chose_needs_no_cross_fitting(rule, text):
  point = make_point(rule=rule, threshold=0.6, chosen_on=None)
  decision = decide(point, True)
  assert decision.predicted.tolist() == [False, True, True]
  assert (decision.point, decision.chosen_on_text) == (point, text)


def test_reused_selection_records_are_cross_fitted():
  records = fake_scores.random_records(0)
  decision = decide(make_point(rule='recall:0.7'), True, records)
  predicted, thresholds = operating_point.cross_fit(
    records, ThresholdRule('recall', 0.7)
  )
  np.testing.assert_array_equal(decision.predicted, predicted)
  assert decision.point.threshold == pytest.approx(sum(thresholds) / 2)
  assert decision.point.chosen_on == 'test'
  text = 'the other half of test, by two-fold cross-fitting'
  assert decision.chosen_on_text == text


def test_the_halves_divide_scans_not_records():
  records = fake_scores.random_records(0)
  first = operating_point.in_first_half(records)
  assert 0.2 < first.mean() < 0.8
  for scan in np.unique(records.groups):
    assert len(np.unique(first[records.groups == scan])) == 1


def test_cross_fitting_never_uses_the_half_that_it_decides():
  rule = ThresholdRule('recall', 0.7)
  records = fake_scores.random_records(0)
  first = operating_point.in_first_half(records)
  _, before = operating_point.cross_fit(records, rule)
  for decided, number in ((first, 0), (~first, 1)):
    label, probability = records.label.copy(), records.probability.copy()
    label[decided] = 1 - label[decided]
    probability[decided] **= 3
    changed = dataclasses.replace(records, label=label, probability=probability)
    predicted, thresholds = operating_point.cross_fit(changed, rule)
    assert thresholds[number] == before[number]
    assert thresholds[1 - number] != before[1 - number]
    np.testing.assert_array_equal(
      predicted[decided], probability[decided] >= before[number]
    )


def test_a_half_without_both_classes_gives_the_other_half_a_threshold_of_one_half():
  one_scan = [
    {'scan': 'a', 'label': 1, 'probability': 0.9},
    {'scan': 'a', 'label': 0, 'probability': 0.4},
  ]
  predicted, thresholds = operating_point.cross_fit(
    fake_scores.make_records(one_scan), ThresholdRule('max_f1')
  )
  # The scan chooses the threshold of the other half, which is empty.
  assert sorted(thresholds) == [0.5, pytest.approx(0.65)]
  assert predicted.tolist() == [True, False]


@pytest.mark.parametrize(
  'change', [{'threshold': 'x'}, {'threshold': None}, {'rule': 5}, {'tta': []}]
)
def test_a_value_of_another_type_is_rejected(change, tmp_path):
  path = tmp_path / 'operating_point.json'
  path.write_text(json.dumps({**dataclasses.asdict(make_point()), **change}))
  with pytest.raises(UsageError, match=f'{next(iter(change))} must be'):
    OperatingPoint.read(path)


def test_a_threshold_that_is_no_number_is_rejected(tmp_path):
  path = tmp_path / 'operating_point.json'
  path.write_text(json.dumps({**dataclasses.asdict(make_point()), 'threshold': np.nan}))
  with pytest.raises(UsageError, match='threshold must be finite'):
    OperatingPoint.read(path)


def test_excluded_findings_choose_no_threshold():
  records = fake_scores.random_records(0)
  excluded = (records.label == 0) & (records.probability > 0.4)
  marked = dataclasses.replace(records, excluded=excluded)
  kept = records.select(~excluded)
  point = make_point(rule='precision:0.6')
  chosen = point.choose(marked, 'validation')
  assert chosen == point.choose(kept, 'validation')
  assert chosen.threshold != point.choose(records, 'validation').threshold
  rule = ThresholdRule('precision', 0.6)
  predicted, thresholds = operating_point.cross_fit(marked, rule)
  of_kept, expected = operating_point.cross_fit(kept, rule)
  assert thresholds == expected
  np.testing.assert_array_equal(predicted[~excluded], of_kept)
  assert predicted[excluded].any()  # an excluded finding is predicted like any record


def test_with_excluded_non_nodules_only_there_is_no_record_to_choose_on():
  records = fake_scores.random_records(0)
  marked = dataclasses.replace(records, excluded=records.label == 0)
  chosen = make_point().choose(marked, 'validation')
  assert (chosen.threshold, chosen.chosen_on) == (0.5, None)
