import collections
import csv
import json
import pathlib
import subprocess
import sys

from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st
import numpy as np
import pytest
from sklearn import metrics as sklearn_metrics

from luna_tfds import candidates
from luna_tfds.errors import UsageError
from model import froc
from trainer import froc as froc_command

_GOLDEN = pathlib.Path(__file__).parent.parent.parent / 'shared' / 'data' / 'froc'


def _marks(*rows):
  """Marks from (scan, x, score); y and z are 0."""
  rows = np.array(rows, float).reshape(-1, 3)
  return froc.Marks(rows[:, 0].astype(int), _along_x(rows[:, 1]), rows[:, 2])


def _findings(*rows):
  """Findings from (scan, x, diameter); y and z are 0."""
  rows = np.array(rows, float).reshape(-1, 3)
  return froc.Findings(
    rows[:, 0].astype(int), _along_x(rows[:, 1]), candidates.radii_mm(rows[:, 2])
  )


def _along_x(x):
  return np.stack([x, 0 * x, 0 * x], axis=-1)


def _table(seriesuids, rows):
  """A table from (scan, x, value) rows."""
  rows = np.array(rows, float).reshape(-1, 3)
  names = np.array([seriesuids[int(scan)] for scan in rows[:, 0]], object)
  return candidates.Table(names, _along_x(rows[:, 1]), rows[:, 2], np.arange(len(rows)))


def _entries(scans, *rows):
  """Entries from (scan, score, is_nodule)."""
  rows = np.array(rows, float).reshape(-1, 3)
  return froc.Entries(rows[:, 0].astype(int), rows[:, 1], rows[:, 2] == 1, scans)


# The protocol, by hand.


def test_hit_is_strictly_nearer_than_the_radius():
  entries, counts = froc.evaluate(
    _marks((0, 5, 0.9), (0, 4.999, 0.8), (0, -5, 0.7)), _findings((0, 0, 10)), None, 1
  )
  assert counts.true_positives == 1
  assert counts.false_positives == 2
  np.testing.assert_array_equal(entries.score, [0.8, 0.9, 0.7])
  np.testing.assert_array_equal(entries.is_nodule, [True, False, False])


def test_negative_diameter_is_10_mm():
  marks = _marks((0, 100, 0.5), (0, 4.9, 0.9), (0, 5, 0.8))
  _, counts = froc.evaluate(marks, _findings((0, 100, 5)), _findings((0, 0, -1)), 1)
  assert counts.ignored_on_excluded == 1
  assert counts.false_positives == 1


def test_highest_mark_scores_the_nodule_and_doubles_are_ignored():
  marks = _marks((0, 1, 0.2), (0, 0, 0.7), (0, 2, 0.5), (0, 50, 0.6))
  entries, counts = froc.evaluate(marks, _findings((0, 0, 10)), None, 1)
  assert (counts.ignored_double, counts.false_positives) == (2, 1)
  np.testing.assert_array_equal(entries.score, [0.7, 0.6])


def test_nodules_come_before_excluded_findings():
  marks = _marks((0, 0, 0.7), (0, 8, 0.6), (0, 50, 0.5))
  _, counts = froc.evaluate(marks, _findings((0, 0, 6)), _findings((0, 0, 20)), 1)
  assert counts.true_positives == 1
  assert counts.ignored_on_excluded == 1
  assert counts.false_positives == 1
  assert counts.candidates == 3


def test_mark_on_two_nodules_finds_both_and_is_no_double():
  entries, counts = froc.evaluate(
    _marks((0, 0, 0.7)), _findings((0, -2, 10), (0, 2, 10)), None, 1
  )
  assert (counts.true_positives, counts.ignored_double) == (2, 0)
  assert counts.candidates == 1
  np.testing.assert_array_equal(entries.score, [0.7, 0.7])


def test_two_marks_on_two_nodules_are_a_double_of_each():
  _, counts = froc.evaluate(
    _marks((0, 0, 0.7), (0, 1, 0.6)), _findings((0, -2, 10), (0, 2, 10)), None, 1
  )
  assert (counts.true_positives, counts.ignored_double) == (2, 2)


def test_missed_nodule_lowers_the_sensitivity():
  marks, nodules = _marks((0, 0, 0.7)), _findings((0, 0, 6), (0, 90, 6))
  entries, counts = froc.evaluate(marks, nodules, None, 1)
  assert (counts.false_negatives, counts.true_positives) == (1, 1)
  np.testing.assert_array_equal(entries.score, [0.7, froc.MISSED])
  assert froc.cpm(froc.froc_curve(entries)) == 0.5


def test_marks_of_one_scan_do_not_hit_in_another():
  _, counts = froc.evaluate(_marks((1, 0, 0.7)), _findings((0, 0, 6)), None, 2)
  assert (counts.true_positives, counts.false_positives) == (0, 1)
  assert counts.scans_without_marks == 1


def test_scans_without_nodules_or_marks_count():
  marks = _marks((0, 0, 0.7), (0, 50, 0.8))
  curves = [
    froc.froc_curve(froc.evaluate(marks, _findings((0, 0, 6)), None, scans)[0])
    for scans in (1, 4)
  ]
  np.testing.assert_array_equal(curves[0].fps_per_scan, [0, 1, 1])
  np.testing.assert_array_equal(curves[1].fps_per_scan, [0, 0.25, 0.25])


def test_cap_keeps_the_highest():
  marks = _marks((0, 10, 0.1), (0, 20, 0.3), (0, 30, 0.2))
  entries, counts = froc.evaluate(marks, _findings((0, 10, 4)), None, 1, 2)
  assert counts.candidates == 2
  assert (counts.true_positives, counts.nodules_reachable) == (0, 1)
  assert counts.marks_lost_to_ties == counts.scans_with_lost_ties == 0
  np.testing.assert_array_equal(entries.score, [froc.MISSED, 0.3, 0.2])


def test_ties_at_the_cap_all_go():
  marks = _marks(
    *((0, 10 * k, score) for k, score in enumerate((0.9, 0.5, 0.5, 0.5, 0.1))),
    *((1, 10 * k, 0.5) for k in range(3)),
    *((2, 10 * k, 0.5) for k in range(4)),
  )
  _, counts = froc.evaluate(marks, _findings((0, 90, 4)), None, 3, 3)
  assert counts.candidates == 1 + 3 + 0
  assert counts.marks_lost_to_ties == 2 + 3
  assert counts.scans_with_lost_ties == 2


def test_squares_are_added_in_the_official_order():
  # On the sphere but for rounding: x2 + y2 + z2 = 9.61 is below 3.1 squared, and
  # x2 + (y2 + z2) is not.
  mark = froc.Marks(np.zeros(1, int), np.array([[2.7, 1.4, 0.6]]), np.ones(1))
  finding = froc.Findings(np.zeros(1, int), np.zeros((1, 3)), np.array([3.1]))
  assert froc.evaluate(mark, finding, None, 1)[1].true_positives == 1


def test_curve_and_cpm_by_hand():
  entries = _entries(
    4, (0, 0.9, 1), (0, 0.8, 0), (1, 0.7, 1), (1, 0.6, 0), (2, -np.inf, 1)
  )
  curve = froc.froc_curve(entries)
  np.testing.assert_allclose(curve.fps_per_scan, [0, 0, 0.25, 0.25, 0.5])
  np.testing.assert_allclose(curve.sensitivity, [0, 1 / 3, 1 / 3, 2 / 3, 2 / 3])
  np.testing.assert_array_equal(curve.threshold, [np.inf, 0.9, 0.8, 0.7, 0.6])
  assert froc.cpm(curve) == pytest.approx((1 / 3 + 6 * 2 / 3) / 7)


def test_no_false_positive_and_no_mark():
  perfect = froc.froc_curve(_entries(2, (0, 0.9, 1), (1, 0.8, 1)))
  np.testing.assert_array_equal(perfect.fps_per_scan, 0)
  assert froc.cpm(perfect) == 1
  blind = froc.froc_curve(_entries(2, (0, -np.inf, 1)))
  assert froc.cpm(blind) == 0


@pytest.mark.parametrize(
  'marks, cap, scans, message',
  [
    (_marks((0, 0, np.nan)), 100, 1, 'finite'),
    (_marks((0, 0, 0.5)), 0, 1, '1 or more'),
    (_marks((0, 0, 0.5)), 100, 0, '1 or more'),
  ],
)
def test_bad_arguments(marks, cap, scans, message):
  with pytest.raises(ValueError, match=message):
    froc.evaluate(marks, _findings((0, 0, 6)), None, scans, cap)


def test_no_nodule_has_no_sensitivity():
  with pytest.raises(ValueError, match='no nodule'):
    froc.froc_curve(_entries(1, (0, 0.5, 0)))
  with pytest.raises(ValueError, match='resamples'):
    froc.bootstrap_band(_entries(1, (0, 0.5, 1)), resamples=-1)


# The protocol, against a plain loop, scikit-learn and explicit resampling.


def _naive_evaluation(marks, nodules, excluded, scans, cap):
  """The protocol of LUNA16's script as its text says it, a mark at a time."""
  tally, entries = collections.Counter(), []
  for scan in range(scans):
    own = [(x, p) for s, x, p in marks if s == scan]
    if len(own) > cap:
      limit = sorted((p for _, p in own), reverse=True)[cap]
      own = [(x, p) for x, p in own if p > limit]
    tally['candidates'] += len(own)
    pool = dict(enumerate(own))
    findings = [(f, True) for f in nodules if f[0] == scan]
    findings += [(f, False) for f in excluded if f[0] == scan]
    for (_, x, diameter), included in findings:
      diameter = 10 if diameter < 0 else diameter
      hits = [k for k, (at, _) in enumerate(own) if (at - x) ** 2 < (diameter / 2) ** 2]
      if included and hits:
        tally['true_positives'] += 1
        tally['ignored_double'] += len(hits) - 1
        entries.append((scan, max(own[k][1] for k in hits), True))
      elif included:
        tally['false_negatives'] += 1
        entries.append((scan, -np.inf, True))
      for k in hits:
        tally['ignored_on_excluded'] += k in pool and not included
        pool.pop(k, None)
    tally['false_positives'] += len(pool)
    entries += [(scan, p, False) for _, p in pool.values()]
  return tally, entries


def _official_curve(entries, scans):
  """`computeFROC` in formulas: scikit-learn's ROC, scaled."""
  marked = [(is_nodule, score) for _, score, is_nodule in entries if score > -np.inf]
  detected = sum(is_nodule for is_nodule, _ in marked)
  nodules = sum(is_nodule for _, _, is_nodule in entries)
  fpr, tpr, thresholds = sklearn_metrics.roc_curve(*zip(*marked))
  return fpr * (len(marked) - detected) / scans, tpr * detected / nodules, thresholds


_SCANS = 3
_POINT = st.tuples(st.integers(0, _SCANS - 1), st.integers(0, 25))
_MARK = st.builds(lambda p, s: (*p, s), _POINT, st.integers(0, 8).map(lambda n: n / 8))
_FINDING = st.builds(
  lambda p, d: (*p, d), _POINT, st.sampled_from((-1.0, 3.0, 4.0, 10.0))
)


@given(
  st.lists(_MARK, max_size=30),
  st.lists(_FINDING, max_size=6),
  st.lists(_FINDING, max_size=6),
  st.integers(1, 8),
)
@settings(max_examples=200, deadline=None)
def test_evaluation_equals_a_plain_loop(marks, nodules, excluded, cap):
  tally, expected = _naive_evaluation(marks, nodules, excluded, _SCANS, cap)
  entries, counts = froc.evaluate(
    _marks(*marks), _findings(*nodules), _findings(*excluded), _SCANS, cap
  )
  got = zip(entries.scan.tolist(), entries.score.tolist(), entries.is_nodule.tolist())
  assert list(got) == expected
  for name in (
    'candidates',
    'true_positives',
    'false_negatives',
    'false_positives',
    'ignored_double',
    'ignored_on_excluded',
  ):
    assert getattr(counts, name) == tally[name], name
  assert counts.nodules == len(nodules)
  uncapped, _ = _naive_evaluation(marks, nodules, excluded, _SCANS, 10**6)
  assert counts.nodules_reachable == uncapped['true_positives']


_ENTRY = st.tuples(
  st.integers(0, _SCANS - 1),
  st.one_of(st.integers(0, 10).map(float), st.floats(0, 1)),
  st.booleans(),
)


@given(st.lists(_ENTRY, max_size=60), st.integers(0, 3))
@settings(max_examples=200, deadline=None)
def test_curve_equals_scikit_learns(rows, missed):
  # Scikit-learn's curve is undefined without one of each.
  rows = [*rows, (0, 0.5, True), (1, 0.25, False), *[(2, -np.inf, True)] * missed]
  curve = froc.froc_curve(_entries(_SCANS, *rows))
  fps_per_scan, sensitivity, thresholds = _official_curve(rows, _SCANS)
  np.testing.assert_array_equal(curve.fps_per_scan, fps_per_scan)
  np.testing.assert_array_equal(curve.sensitivity, sensitivity)
  np.testing.assert_array_equal(curve.threshold, thresholds)


def _random_entries(scans, seed):
  rng = np.random.default_rng(seed)
  size = 12 * scans
  is_nodule = rng.random(size) < 0.2
  score = np.round(rng.random(size) * 0.7 + 0.3 * is_nodule, 2)
  score[is_nodule & (rng.random(size) < 0.2)] = froc.MISSED
  # The last scan has no entry.
  return froc.Entries(rng.integers(scans - 1, size=size), score, is_nodule, scans)


def test_weights_equal_explicit_resampling():
  entries, resamples = _random_entries(scans=10, seed=1), 40
  fps_per_scan = np.linspace(0.125, 8, 200)
  got = froc.resampled_sensitivity(entries, fps_per_scan, resamples, seed=5)
  rng = np.random.default_rng(5)
  for row in got:
    rows = np.concatenate(
      [np.flatnonzero(entries.scan == scan) for scan in rng.integers(10, size=10)]
    )
    drawn = froc.Entries(
      entries.scan[rows], entries.score[rows], entries.is_nodule[rows], 10
    )
    curve = froc.froc_curve(drawn)
    np.testing.assert_allclose(row, curve.sensitivity_at(fps_per_scan), rtol=1e-12)
    marked = drawn.score > froc.MISSED
    fpr, tpr, _ = sklearn_metrics.roc_curve(
      drawn.is_nodule[marked], drawn.score[marked], drop_intermediate=False
    )
    detected = drawn.is_nodule[marked].sum()
    np.testing.assert_array_equal(
      row,
      np.interp(
        fps_per_scan,
        fpr * (marked.sum() - detected) / 10,
        tpr * detected / drawn.is_nodule.sum(),
      ),
    )


def test_band():
  entries = _random_entries(scans=30, seed=2)
  band = froc.bootstrap_band(entries, resamples=200, seed=3)
  again = froc.bootstrap_band(entries, resamples=200, seed=3)
  other = froc.bootstrap_band(entries, resamples=200, seed=4)
  np.testing.assert_array_equal(band.sensitivity.lower, again.sensitivity.lower)
  assert band.cpm == again.cpm
  assert band.cpm != other.cpm
  np.testing.assert_array_equal(band.fps_per_scan[::32], froc.FPS_PER_SCAN)
  drawn = froc.resampled_sensitivity(entries, np.array(froc.FPS_PER_SCAN), 200, seed=3)
  # The official script's order statistics of 200: the 5th and the 195th, from 0.
  np.testing.assert_allclose(band.sensitivity_at_points.mean, drawn.mean(axis=0))
  np.testing.assert_array_equal(
    band.sensitivity_at_points.lower, np.sort(drawn, axis=0)[5]
  )
  np.testing.assert_array_equal(
    band.sensitivity_at_points.upper, np.sort(drawn, axis=0)[195]
  )
  assert band.cpm.lower < froc.cpm(froc.froc_curve(entries)) < band.cpm.upper


def test_resamples_without_nodules_are_left_out():
  entries = _entries(2, (0, 0.9, 1), (1, 0.5, 0))
  drawn = froc.resampled_sensitivity(entries, np.ones(1), 50, seed=0)
  assert 0 < np.isnan(drawn).sum() < 50
  assert froc.bootstrap_band(entries, 50).cpm.mean == 1


# In memory.


def test_score_submission_leaves_unlisted_scans_out():
  names = ['a', 'b', 'unlisted']
  result = froc_command.score_submission(
    _table(names, [(0, 0, 0.9), (1, 0, 0.8), (2, 0, 0.7), (2, 5, 0.7)]),
    _table(names, [(0, 0, 6), (2, 0, 6)]),
    None,
    ['b', 'a'],
    bootstrap=0,
  )
  counts = result.counts
  assert (counts.scans, counts.nodules, counts.candidates) == (2, 1, 2)
  assert (counts.true_positives, counts.false_positives) == (1, 1)
  assert result.band is None
  assert '2 marks lie in 1 scans' in result.warnings[0]
  assert 'unlisted' in result.warnings[0]
  assert 'CPM falls by about 0.1' in result.warnings[1]


def test_score_submission_warns_of_ties():
  marks = [(0, 10 * k, 0.5) for k in range(5)]
  result = froc_command.score_submission(
    _table(['a'], [*marks, (0, 0, 0.6)]),
    _table(['a'], [(0, 0, 6)]),
    _table(['a'], []),
    ['a'],
    max_marks_per_scan=4,
    bootstrap=0,
  )
  assert len(result.warnings) == 1
  assert '3 marks in 1 scans are dropped since they tie' in result.warnings[0]


@pytest.mark.parametrize('mark, nodule', [('x', 'a'), ('a', 'x')])
def test_score_submission_needs_marks_and_nodules_in_the_list(mark, nodule):
  with pytest.raises(UsageError, match='belong together'):
    froc_command.score_submission(
      _table([mark], [(0, 0, 0.6)]), _table([nodule], [(0, 0, 6)]), None, ['a']
    )


# The command.


def _write(path, text):
  path.write_bytes(text.encode())
  return path


@pytest.fixture
def inputs(tmp_path):
  """Two scans, two nodules, one of them found, one false positive, one ignored."""
  finding_header = 'seriesuid,coordX,coordY,coordZ,diameter_mm'
  return {
    'submission': _write(
      tmp_path / 'submission.csv',
      'seriesuid,coordX,coordY,coordZ,probability\n'
      '1.2,0,0,1,0.9\n1.3,0,0,0,0.8\n1.3,40,0,0,0.85\n',
    ),
    'annotations': _write(
      tmp_path / 'annotations.csv', f'{finding_header}\r\n1.2,0,0,0,6\r\n1.2,50,0,0,6'
    ),
    'annotations_excluded': _write(
      tmp_path / 'annotations_excluded.csv', f'{finding_header}\n1.3,40,0,0,-1\n'
    ),
    'seriesuids': _write(tmp_path / 'seriesuids.csv', 'seriesuid\r\n1.2\r\n\r\n1.3'),
    'output_dir': tmp_path / 'made' / 'froc',
  }


def _run(inputs, *flags):
  arguments = [f'--{name}={value}' for name, value in inputs.items()]
  return froc_command.run(['luna16-froc', *arguments, *flags])


def test_command_writes_its_files(inputs, capsys):
  assert _run(inputs, '--bootstrap=50') == 0
  captured = capsys.readouterr()
  assert captured.out.startswith('CPM 0.500 (95%: ')
  assert captured.err == ''
  result = json.loads((inputs['output_dir'] / 'froc.json').read_text())
  assert result['scans'] == result['nodules'] == 2
  assert result['true_positives'] == result['false_negatives'] == 1
  assert result['false_positives'] == result['ignored_on_excluded'] == 1
  assert result['candidates'] == 3
  assert result['nodules_reachable'] == 1
  assert result['sensitivity_ceiling'] == 0.5
  assert result['false_positives_per_scan'] == list(froc.FPS_PER_SCAN)
  assert result['sensitivity'] == [0.5] * 7
  assert len(result['sensitivity_mean']) == len(result['sensitivity_lower']) == 7
  assert result['cpm_lower'] <= result['cpm'] <= result['cpm_upper']
  assert result['warnings'] == []
  with (inputs['output_dir'] / 'froc.csv').open() as file:
    rows = list(csv.DictReader(file))
  assert [row['threshold'] for row in rows] == ['inf', '0.9', '0.8']
  assert [float(row['false_positives_per_scan']) for row in rows] == [0, 0, 0.5]
  assert [bool(row['sensitivity_mean']) for row in rows] == [False, False, True]
  assert (inputs['output_dir'] / 'froc.png').read_bytes().startswith(b'\x89PNG')


def test_command_without_bootstrap_and_excluded_list(inputs, capsys):
  del inputs['annotations_excluded']
  assert _run(inputs, '--bootstrap=0') == 0
  captured = capsys.readouterr()
  assert captured.err.count('\n') == 1
  assert 'CPM falls by about 0.1' in captured.err
  result = json.loads((inputs['output_dir'] / 'froc.json').read_text())
  assert result['false_positives'] == 2
  assert 'sensitivity_mean' not in result
  assert len(result['warnings']) == 1
  header = (inputs['output_dir'] / 'froc.csv').read_text().splitlines()[0]
  assert header == 'false_positives_per_scan,sensitivity,threshold'


def test_undefined_band_is_null(inputs):
  # The one resample of this seed holds the scan without nodules only.
  seed = next(
    s for s in range(99) if np.random.default_rng(s).integers(2, size=2).min() == 1
  )
  assert _run(inputs, '--bootstrap=1', f'--seed={seed}') == 0
  result = json.loads((inputs['output_dir'] / 'froc.json').read_text())
  assert result['cpm_mean'] is None
  assert result['sensitivity_lower'] == [None] * 7


_MARKS_HEADER = 'seriesuid,coordX,coordY,coordZ,probability\n'


@pytest.mark.parametrize(
  'name, text, words',
  [
    ('submission', None, ['submission.csv', 'cannot be read']),
    ('submission', '', ['submission.csv', 'is empty']),
    ('submission', _MARKS_HEADER, ['submission.csv', 'no rows']),
    ('submission', 'seriesuid,coordX,coordY,coordZ\n', ['probability is missing']),
    ('submission', f'{_MARKS_HEADER}1.2,0,0,0,1\n1.2,0,0,0,high\n', ['row 1', 'high']),
    ('submission', f'{_MARKS_HEADER}1.2,0,0,0,nan\n', ['row 0', 'nan']),
    ('submission', f'{_MARKS_HEADER}9.9,0,0,0,1\n', ['no mark', '--seriesuids']),
    ('annotations', None, ['annotations.csv', 'cannot be read']),
    (
      'annotations',
      'seriesuid,coordX,coordY,coordZ,diameter_mm\n9.9,0,0,0,6\n',
      ['no nodule', '--seriesuids'],
    ),
    ('annotations_excluded', None, ['annotations_excluded.csv', 'cannot be read']),
    ('seriesuids', None, ['seriesuids.csv', 'cannot be read']),
    ('seriesuids', 'seriesuid\n\n', ['seriesuids.csv', 'names no scan']),
    ('seriesuids', '1.2\n1.3\n1.2\n', ['line 3', '1.2', 'line 1']),
    ('seriesuids', 'seriesuid,coordX\n', ['line 1', 'one seriesuid a line']),
  ],
)
def test_bad_input_is_one_line_and_exit_code_2(inputs, capsys, name, text, words):
  inputs[name].unlink()
  if text is not None:
    inputs[name].write_text(text)
  assert _run(inputs) == 2
  error = capsys.readouterr().err
  assert error.count('\n') == 1
  for word in words:
    assert word in error
  assert not (inputs['output_dir'] / 'froc.json').exists()


@pytest.mark.parametrize(
  'flag, word',
  [
    ('--bootstrap=-1', 'bootstrap'),
    ('--bootstrap=many', 'bootstrap'),
    ('--max_marks_per_scan=0', 'max_marks_per_scan'),
    ('--seed=-1', 'seed'),
    ('--submission=', 'submission is required'),
    ('--bootstrp=5', 'Did you mean: bootstrap'),
  ],
)
def test_bad_flag_is_one_line_and_exit_code_2(inputs, capsys, flag, word):
  assert _run(inputs, flag) == 2
  error = capsys.readouterr().err
  assert error.count('\n') == 1
  assert word in error


def test_output_dir_that_cannot_be_made(inputs, capsys):
  inputs['output_dir'] = inputs['submission'] / 'below_a_file'
  assert _run(inputs) == 2
  error = capsys.readouterr().err
  assert error.count('\n') == 1
  assert '--output_dir' in error


def test_output_dir_that_is_not_writable(inputs, capsys, monkeypatch):
  monkeypatch.setattr(froc_command.os, 'access', lambda *unused: False)
  assert _run(inputs) == 2
  assert 'is not writable' in capsys.readouterr().err


def test_command_loads_neither_tensorflow_nor_beam(inputs):
  arguments = [f'--{name}={value}' for name, value in inputs.items()]
  code = (
    'import sys\n'
    'from trainer import froc\n'
    'assert "matplotlib" not in sys.modules\n'
    f'assert froc.run({["luna16-froc", *arguments, "--bootstrap=5"]!r}) == 0\n'
    'for name in ("tensorflow", "keras", "apache_beam", "SimpleITK", "sklearn"):\n'
    '  assert name not in sys.modules, name\n'
  )
  subprocess.run([sys.executable, '-c', code], check=True)


@pytest.mark.skipif(
  not _GOLDEN.is_dir(), reason='the golden case of the official script is not here'
)
def test_golden_case(tmp_path):
  inputs = {
    name: _GOLDEN / f'{name}.csv'
    for name in ('submission', 'annotations', 'annotations_excluded', 'seriesuids')
  }
  assert _run({**inputs, 'output_dir': tmp_path}, '--bootstrap=0') == 0
  result = json.loads((tmp_path / 'froc.json').read_text())
  expected = json.loads((_GOLDEN / 'expected.json').read_text())
  del expected['source']
  # The script prints sensitivities with 9 digits and no CPM: that is their mean.
  cpm = expected.pop('cpm')
  for name, value in expected.items():
    assert np.round(result[name], 9).tolist() == value, name
  assert np.round(np.mean(np.round(result['sensitivity'], 9)), 9) == cpm
  assert result['cpm'] == pytest.approx(cpm, abs=1e-9)
