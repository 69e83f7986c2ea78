import collections

from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st
import numpy as np
import pytest

from model.metrics import froc_matching


def along_x(x):
  return np.stack([x, 0 * x, 0 * x], axis=-1)


def make_marks(*rows):
  """Marks from (scan, x, score); y and z are 0."""
  rows = np.array(rows, float).reshape(-1, 3)
  return froc_matching.Marks(rows[:, 0].astype(int), along_x(rows[:, 1]), rows[:, 2])


def make_findings(*rows):
  """Findings from (scan, x, diameter); y and z are 0."""
  rows = np.array(rows, float).reshape(-1, 3)
  return froc_matching.Findings(
    rows[:, 0].astype(int), along_x(rows[:, 1]), rows[:, 2] / 2
  )


def test_mark_hits_if_its_distance_is_less_than_the_radius():
  matched = froc_matching.match_marks(
    make_marks((0, 5, 0.9), (0, 4.999, 0.8), (0, -5, 0.7)),
    make_findings((0, 0, 10)),
    None,
    1,
  )
  assert matched.counts.true_positives == 1
  assert matched.counts.false_positives == 2
  np.testing.assert_array_equal(matched.entries.score, [0.8, 0.9, 0.7])
  np.testing.assert_array_equal(matched.entries.is_nodule, [True, False, False])


def test_highest_mark_gives_the_score_and_further_marks_are_ignored():
  marks = make_marks((0, 1, 0.2), (0, 0, 0.7), (0, 2, 0.5), (0, 50, 0.6))
  matched = froc_matching.match_marks(marks, make_findings((0, 0, 10)), None, 1)
  assert (matched.counts.ignored_double, matched.counts.false_positives) == (2, 1)
  np.testing.assert_array_equal(matched.entries.score, [0.7, 0.6])


def test_nodules_are_matched_before_excluded_findings():
  marks = make_marks((0, 0, 0.7), (0, 8, 0.6), (0, 50, 0.5))
  counts = froc_matching.match_marks(
    marks, make_findings((0, 0, 6)), make_findings((0, 0, 20)), 1
  ).counts
  assert counts.true_positives == 1
  assert counts.ignored_on_excluded == 1
  assert counts.false_positives == 1
  assert counts.candidates == 3


def test_mark_on_two_nodules_finds_both_and_is_no_double():
  matched = froc_matching.match_marks(
    make_marks((0, 0, 0.7)), make_findings((0, -2, 10), (0, 2, 10)), None, 1
  )
  assert (matched.counts.true_positives, matched.counts.ignored_double) == (2, 0)
  assert matched.counts.candidates == 1
  np.testing.assert_array_equal(matched.entries.score, [0.7, 0.7])


def test_second_mark_on_two_nodules_is_a_double_of_each():
  counts = froc_matching.match_marks(
    make_marks((0, 0, 0.7), (0, 1, 0.6)),
    make_findings((0, -2, 10), (0, 2, 10)),
    None,
    1,
  ).counts
  assert (counts.true_positives, counts.ignored_double) == (2, 2)


def test_missed_nodule_is_an_entry_below_each_threshold():
  marks, nodules = make_marks((0, 0, 0.7)), make_findings((0, 0, 6), (0, 90, 6))
  matched = froc_matching.match_marks(marks, nodules, None, 1)
  assert (matched.counts.false_negatives, matched.counts.true_positives) == (1, 1)
  np.testing.assert_array_equal(matched.entries.score, [0.7, froc_matching.MISSED])


def test_mark_does_not_hit_a_nodule_of_another_scan():
  counts = froc_matching.match_marks(
    make_marks((1, 0, 0.7)), make_findings((0, 0, 6)), None, 2
  ).counts
  assert (counts.true_positives, counts.false_positives) == (0, 1)
  assert counts.scans_without_marks == 1


def test_limit_keeps_the_highest_marks():
  marks = make_marks((0, 10, 0.1), (0, 20, 0.3), (0, 30, 0.2))
  matched = froc_matching.match_marks(marks, make_findings((0, 10, 4)), None, 1, 2)
  counts = matched.counts
  assert counts.candidates == 2
  assert (counts.true_positives, counts.nodules_reachable) == (0, 1)
  assert counts.marks_lost_to_ties == counts.scans_with_lost_ties == 0
  np.testing.assert_array_equal(matched.entries.score, [froc_matching.MISSED, 0.3, 0.2])


def test_marks_that_tie_at_the_limit_are_all_dropped():
  marks = make_marks(
    *((0, 10 * k, score) for k, score in enumerate((0.9, 0.5, 0.5, 0.5, 0.1))),
    *((1, 10 * k, 0.5) for k in range(3)),
    *((2, 10 * k, 0.5) for k in range(4)),
  )
  counts = froc_matching.match_marks(
    marks, make_findings((0, 90, 4)), None, 3, 3
  ).counts
  assert counts.candidates == 1 + 3 + 0
  assert counts.marks_lost_to_ties == 2 + 3
  assert counts.scans_with_lost_ties == 2


def test_squares_are_added_in_the_order_of_the_official_script():
  # On the sphere but for rounding: x2 + y2 + z2 = 9.61 is below 3.1 squared, and
  # x2 + (y2 + z2) is not.
  scan = np.zeros(1, int)
  mark = froc_matching.Marks(scan, np.array([[2.7, 1.4, 0.6]]), np.ones(1))
  finding = froc_matching.Findings(scan, np.zeros((1, 3)), np.array([3.1]))
  counts = froc_matching.match_marks(mark, finding, None, 1).counts
  assert counts.true_positives == 1


@pytest.mark.parametrize(
  ('marks', 'limit', 'scans', 'message'),
  [
    (make_marks((0, 0, 0.5), (0, 0, np.nan)), 100, 1, 'finite.*nan for mark 1'),
    (make_marks((0, 0, 0.5)), 0, 1, 'max_marks_per_scan must be 1 or more'),
    (make_marks((0, 0, 0.5)), 100, 0, 'scans must be 1 or more'),
  ],
)
def test_invalid_arguments_are_refused(marks, limit, scans, message):
  with pytest.raises(ValueError, match=message):
    froc_matching.match_marks(marks, make_findings((0, 0, 6)), None, scans, limit)


def match_by_a_plain_loop(marks, nodules, excluded, scans, limit):
  """The protocol as the official script's comments describe it, mark by mark."""
  counts, entries = collections.Counter(), []
  for scan in range(scans):
    own = [(x, p) for s, x, p in marks if s == scan]
    if len(own) > limit:
      highest_dropped = sorted((p for _, p in own), reverse=True)[limit]
      own = [(x, p) for x, p in own if p > highest_dropped]
    counts['candidates'] += len(own)
    unmatched = dict(enumerate(own))
    findings = [(f, True) for f in nodules if f[0] == scan]
    findings += [(f, False) for f in excluded if f[0] == scan]
    for (_, x, diameter), included in findings:
      hits = [k for k, (at, _) in enumerate(own) if (at - x) ** 2 < (diameter / 2) ** 2]
      if included and hits:
        counts['true_positives'] += 1
        counts['ignored_double'] += len(hits) - 1
        entries.append((scan, max(own[k][1] for k in hits), True))
      elif included:
        counts['false_negatives'] += 1
        entries.append((scan, -np.inf, True))
      for k in hits:
        counts['ignored_on_excluded'] += k in unmatched and not included
        unmatched.pop(k, None)
    counts['false_positives'] += len(unmatched)
    entries += [(scan, p, False) for _, p in unmatched.values()]
  return counts, entries


_SCANS = 3
_POINT = st.tuples(st.integers(0, _SCANS - 1), st.integers(0, 25))
_MARK = st.builds(lambda p, s: (*p, s), _POINT, st.integers(0, 8).map(lambda n: n / 8))
_FINDING = st.builds(lambda p, d: (*p, d), _POINT, st.sampled_from((3.0, 4.0, 10.0)))


@given(
  st.lists(_MARK, max_size=30),
  st.lists(_FINDING, max_size=6),
  st.lists(_FINDING, max_size=6),
  st.integers(1, 8),
)
@settings(max_examples=200, deadline=None)
def test_matching_equals_a_plain_loop(marks, nodules, excluded, limit):
  expected, expected_entries = match_by_a_plain_loop(
    marks, nodules, excluded, _SCANS, limit
  )
  matched = froc_matching.match_marks(
    make_marks(*marks),
    make_findings(*nodules),
    make_findings(*excluded),
    _SCANS,
    limit,
  )
  entries = matched.entries
  rows = zip(entries.scan.tolist(), entries.score.tolist(), entries.is_nodule.tolist())
  assert list(rows) == expected_entries
  for name in (
    'candidates',
    'true_positives',
    'false_negatives',
    'false_positives',
    'ignored_double',
    'ignored_on_excluded',
  ):
    assert getattr(matched.counts, name) == expected[name], name
  assert matched.counts.nodules == len(nodules)
  unlimited, _ = match_by_a_plain_loop(marks, nodules, excluded, _SCANS, 10**6)
  assert matched.counts.nodules_reachable == unlimited['true_positives']


@pytest.mark.parametrize('limit', [3, 100])
def test_known_hits_are_matched_as_points_on_the_findings(limit):
  # Of each scan: nodules at 0, 100, ..., excluded findings at -100, other marks at -500.
  rng = np.random.default_rng(0)
  scan = rng.integers(5, size=80)
  score = np.round(rng.random(80), 1)
  nodule = rng.integers(-2, 3, size=80)  # -2: on an excluded finding
  nodule_id = np.where(nodule >= 0, 10 * scan + nodule, -1)
  x = np.select([nodule >= 0, nodule == -2], [100.0 * nodule, -100.0], -500.0)
  ids = np.unique(nodule_id[nodule_id >= 0])
  expected = froc_matching.match_marks(
    froc_matching.Marks(scan, along_x(x), score),
    make_findings(*((i // 10, 100.0 * (i % 10), 10) for i in ids)),
    make_findings(*((s, -100.0, 10) for s in range(5))),
    6,
    limit,
  )
  found = froc_matching.match_candidates(
    froc_matching.MatchedCandidates(scan, score, nodule_id, nodule == -2), 6, limit
  )
  assert found.counts == expected.counts
  for name in ('scan', 'score', 'is_nodule'):
    np.testing.assert_array_equal(
      getattr(found.entries, name), getattr(expected.entries, name)
    )
  assert found.counts.scans == 6


def test_scores_of_candidates_must_be_finite():
  candidates = froc_matching.MatchedCandidates(
    np.zeros(1, int), np.array([np.nan]), np.zeros(1, int), np.zeros(1, bool)
  )
  with pytest.raises(ValueError, match='finite'):
    froc_matching.match_candidates(candidates, 1)
