import hashlib
import random

import hypothesis
from hypothesis import strategies as st
import numpy as np
import oracles
import pytest

from luna_tfds import candidate_selection
from luna_tfds import record_keys

CODE = """
import json
keys = [f'1.2.3/{i}' for i in range(50)]
print(json.dumps([int(h) for h in record_keys.hash_keys(keys, 7, 'negatives')]))
"""


def choose(rows, ratio, seed=0):
  """Chooses among rows (seriesuid, candidate_id, label, subset)."""
  names, ids, labels, subsets = zip(*rows)
  return candidate_selection.select_candidates(
    seriesuids=np.array(names, object),
    candidate_ids=np.array(ids),
    labels=np.array(labels),
    subsets=np.array(subsets),
    negatives_per_positive=ratio,
    seed=seed,
  )


def make_rows(counts):
  """Rows of subsets with (positives, negatives) each, numbered through."""
  rows = []
  for subset, (positives, negatives) in counts.items():
    for label in [1] * positives + [0] * negatives:
      rows.append((f'scan{subset}.{len(rows) % 3}', len(rows), label, subset))
  return rows


def test_record_key():
  assert record_keys.record_key('1.2.3', 45) == '1.2.3/45'


def test_hash_is_keyed_blake2b():
  found = record_keys.hash_keys(['1.2.3/45', 'é'], 3, 'shuffle')
  assert found.dtype == np.uint64
  for key, value in zip(['1.2.3/45', 'é'], found):
    digest = hashlib.blake2b(key.encode(), digest_size=8, key=b'shuffle:3').digest()
    assert int(value) == int.from_bytes(digest, 'little')


def test_hash_never_changes():
  # Another value would silently make another dataset under the same version.
  (found,) = record_keys.hash_keys(['1.2.3/45'], 0, 'negatives')
  assert found == 9077924873898429652


def test_no_keys():
  assert record_keys.hash_keys([], 0, 'shuffle').shape == (0,)


def test_seed_and_purpose_change_the_hash():
  keys = ['1.2.3/45']
  hashes = [
    record_keys.hash_keys(keys, *arguments).item()
    for arguments in [(0, 'negatives'), (1, 'negatives'), (0, 'shuffle')]
  ]
  assert len(set(hashes)) == 3


def test_hash_is_the_same_in_a_fresh_interpreter(fresh_python):
  keys = [f'1.2.3/{i}' for i in range(50)]
  expected = [oracles.keyed_hash(key, 'negatives', 7) for key in keys]
  assert fresh_python(CODE, PYTHONHASHSEED='1') == expected
  assert fresh_python(CODE, PYTHONHASHSEED='2') == expected


@pytest.mark.parametrize('ratio', [0, 1, 3, 5])
def test_keeps_the_ratio_in_each_subset(ratio):
  rows = make_rows({0: (2, 40), 1: (5, 40), 7: (1, 9), 9: (0, 20)})
  chosen = choose(rows, ratio)
  for subset, positives in {0: 2, 1: 5, 7: 1, 9: 0}.items():
    labels = [row[2] for row, keep in zip(rows, chosen) if keep and row[3] == subset]
    assert labels.count(1) == positives
    assert labels.count(0) == ratio * positives


def test_keeps_all_negatives_if_there_are_fewer():
  rows = make_rows({3: (4, 7), 4: (1, 5)})
  assert choose(rows, 5).all()


def test_none_keeps_every_candidate():
  rows = make_rows({3: (0, 7), 4: (1, 50)})
  assert choose(rows, None).all()


def test_another_seed_chooses_others():
  rows = make_rows({3: (4, 200)})
  first, second = choose(rows, 5, seed=0), choose(rows, 5, seed=1)
  assert first.sum() == second.sum() == 24
  assert (first != second).any()


counts = st.dictionaries(
  st.integers(0, 9),
  st.tuples(st.integers(0, 4), st.integers(0, 30)),
  min_size=1,
  max_size=4,
).filter(lambda c: any(map(sum, c.values())))


@hypothesis.given(counts=counts, ratio=st.integers(0, 6), shuffle=st.randoms())
def test_choice_does_not_depend_on_the_order(counts, ratio, shuffle):
  rows = make_rows(counts)
  chosen = {row for row, keep in zip(rows, choose(rows, ratio)) if keep}
  shuffled = list(rows)
  shuffle.shuffle(shuffled)
  assert {row for row, keep in zip(shuffled, choose(shuffled, ratio)) if keep} == chosen


def test_choice_is_that_of_the_smallest_hashes():
  rows = make_rows({0: (2, 60), 5: (3, 80)})
  candidates = [(name, 0.0, 0.0, 0.0, label) for name, _, label, _ in rows]
  subset_of = {row[0]: row[3] for row in rows}
  chosen = choose(rows, 5, seed=3)
  assert set(np.flatnonzero(chosen)) == oracles.chosen_rows(candidates, subset_of, 5, 3)


def test_candidates_of_another_subset_change_nothing():
  rows = make_rows({0: (2, 60)})
  more = rows + [('other', 1000 + i, int(i < 3), 1) for i in range(90)]
  random.Random(0).shuffle(more)
  kept = {row for row, keep in zip(more, choose(more, 5)) if keep and row[3] == 0}
  assert kept == {row for row, keep in zip(rows, choose(rows, 5)) if keep}
