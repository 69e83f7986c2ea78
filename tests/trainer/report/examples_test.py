import dataclasses

import fake_scores
import numpy as np
import pytest

from trainer.report import examples as examples_lib


@pytest.fixture
def records():
  """Ten nodules and twenty non-nodules, of different probabilities."""
  rng = np.random.default_rng(0)
  return fake_scores.make_records(
    [{'label': int(k < 10), 'probability': p} for k, p in enumerate(rng.random(30))]
  )


def test_groups_hold_the_most_confident_records_of_each_outcome(records):
  predicted = records.probability >= 0.5
  examples = examples_lib.choose_examples(records, predicted)
  by_name = {group.name: group for group in examples.groups}
  assert list(by_name) == [
    'False negatives',
    'False positives',
    'True positives',
    'True negatives',
    'Excluded findings predicted to be nodules',
  ]
  for name, label, is_predicted in (
    ('False negatives', 1, False),
    ('False positives', 0, True),
    ('True positives', 1, True),
    ('True negatives', 0, False),
  ):
    group = by_name[name]
    members = np.flatnonzero((records.label == label) & (predicted == is_predicted))
    assert group.total == len(members) > 0
    assert set(group.positions) <= set(members.tolist())
    shown = records.probability[list(group.positions)]
    distance = np.abs(records.probability[members] - 0.5)
    # The farther a probability is from the threshold, the more confident.
    np.testing.assert_allclose(
      np.abs(shown - 0.5), np.sort(distance)[::-1][: len(shown)]
    )
    assert group.is_error == name.startswith('False')
  assert by_name['False negatives'].file_stem == 'false_negatives'


def test_at_most_twelve_of_an_outcome_are_shown(records):
  examples = examples_lib.choose_examples(records, np.ones(30, bool))
  shown = {group.name: (len(group.positions), group.total) for group in examples.groups}
  assert shown['False positives'] == (12, 20)
  assert shown['True positives'] == (10, 10)
  assert shown['True negatives'] == (0, 0)


def test_images_are_found_by_their_slots(records):
  examples = examples_lib.choose_examples(records, records.probability >= 0.5)
  for group in examples.groups:
    slots = examples.slots(group)
    assert [examples.positions[slot] for slot in slots] == list(group.positions)
  slot = examples.slot(examples.most_probable)
  assert examples.positions[slot] == examples.most_probable


def test_the_most_probable_record_is_a_nodule_if_there_is_one(records):
  found = examples_lib.choose_examples(records, np.ones(30, bool)).most_probable
  assert found == np.argmax(records.probability[:10])
  records = fake_scores.make_records([{'probability': 0.1}, {'probability': 0.7}])
  examples = examples_lib.choose_examples(records, np.array([False, False]))
  assert examples.most_probable == 1


def test_correct_predictions_have_no_errors(records):
  examples = examples_lib.choose_examples(records, records.label == 1)
  assert not examples.has_errors
  assert examples_lib.choose_examples(records, records.label == 0).has_errors


def test_an_excluded_finding_is_no_error(records):
  excluded = np.arange(30) >= 12  # so 18 of the 20 non-nodules
  records = dataclasses.replace(records, excluded=excluded)
  examples = examples_lib.choose_examples(records, np.ones(30, bool))
  totals = {group.name: group.total for group in examples.groups}
  assert totals == {
    'False negatives': 0,
    'False positives': 2,
    'True positives': 10,
    'True negatives': 0,
    'Excluded findings predicted to be nodules': 18,
  }
  assert not examples.groups[-1].is_error
  nobody = examples_lib.choose_examples(records, np.zeros(30, bool))
  assert nobody.groups[-1].total == 0
