import random

import hypothesis
from hypothesis import strategies as st
import numpy as np
import oracles
import pytest

from luna_tfds import candidate_selection


def select(rows, ratio, seed=0):
  """Selects among rows (seriesuid, candidate_id, label, subset)."""
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
  """Returns rows; counts are (positives, negatives) of each subset."""
  rows = []
  for subset, (positives, negatives) in counts.items():
    for label in [1] * positives + [0] * negatives:
      rows.append((f'scan{subset}.{len(rows) % 3}', len(rows), label, subset))
  return rows


@pytest.mark.parametrize('ratio', [0, 1, 3, 5])
def test_keeps_the_ratio_in_each_subset(ratio):
  rows = make_rows({0: (2, 40), 1: (5, 40), 7: (1, 9), 9: (0, 20)})
  selected = select(rows, ratio)
  for subset, positives in {0: 2, 1: 5, 7: 1, 9: 0}.items():
    labels = [row[2] for row, keep in zip(rows, selected) if keep and row[3] == subset]
    assert labels.count(1) == positives
    assert labels.count(0) == ratio * positives


def test_keeps_all_negatives_if_there_are_fewer():
  rows = make_rows({3: (4, 7), 4: (1, 5)})
  assert select(rows, 5).all()


def test_none_keeps_every_candidate():
  rows = make_rows({3: (0, 7), 4: (1, 50)})
  assert select(rows, None).all()


def test_another_seed_selects_other_negatives():
  rows = make_rows({3: (4, 200)})
  first, second = select(rows, 5, seed=0), select(rows, 5, seed=1)
  assert first.sum() == second.sum() == 24
  assert (first != second).any()


counts = st.dictionaries(
  st.integers(0, 9),
  st.tuples(st.integers(0, 4), st.integers(0, 30)),
  min_size=1,
  max_size=4,
).filter(lambda c: any(map(sum, c.values())))


@hypothesis.given(counts=counts, ratio=st.integers(0, 6), shuffle=st.randoms())
def test_selection_does_not_depend_on_the_order(counts, ratio, shuffle):
  rows = make_rows(counts)
  selected = {row for row, keep in zip(rows, select(rows, ratio)) if keep}
  shuffled = list(rows)
  shuffle.shuffle(shuffled)
  assert {
    row for row, keep in zip(shuffled, select(shuffled, ratio)) if keep
  } == selected


def test_negatives_with_the_smallest_hashes_are_selected():
  rows = make_rows({0: (2, 60), 5: (3, 80)})
  candidates = [(name, 0.0, 0.0, 0.0, label) for name, _, label, _ in rows]
  subset_of = {row[0]: row[3] for row in rows}
  selected = select(rows, 5, seed=3)
  assert set(np.flatnonzero(selected)) == oracles.selected_rows(
    candidates, subset_of, 5, 3
  )


def test_candidates_of_other_subsets_do_not_matter():
  rows = make_rows({0: (2, 60)})
  more = rows + [('other', 1000 + i, int(i < 3), 1) for i in range(90)]
  random.Random(0).shuffle(more)
  kept = {row for row, keep in zip(more, select(more, 5)) if keep and row[3] == 0}
  assert kept == {row for row, keep in zip(rows, select(rows, 5)) if keep}
