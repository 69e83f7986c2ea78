import csv
import json
import pathlib
import subprocess
import sys

import numpy as np
import pytest

from luna_tfds import tables
from luna_tfds.errors import UsageError
from model.metrics import froc
from trainer import froc as froc_command

_GOLDEN = pathlib.Path(__file__).parents[3] / 'shared' / 'data' / 'froc'


def _along_x(x):
  return np.stack([x, 0 * x, 0 * x], axis=-1)


def _table(seriesuids, rows):
  """A table from (scan, x, value) rows."""
  rows = np.array(rows, float).reshape(-1, 3)
  names = np.array([seriesuids[int(scan)] for scan in rows[:, 0]], object)
  return tables.PointTable(
    names, _along_x(rows[:, 1]), rows[:, 2], np.arange(len(rows))
  )


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
