import csv
import json

import pytest

from luna_tfds.command_line import progress
from model.metrics.froc import FPS_PER_SCAN
from trainer import froc

_FINDINGS_HEADER = 'seriesuid,coordX,coordY,coordZ,diameter_mm\n'
_MARKS_HEADER = 'seriesuid,coordX,coordY,coordZ,probability\n'


@pytest.fixture
def inputs(tmp_path):
  """Two scans, two nodules, one of them found, one false positive, one ignored."""
  texts = {
    'submission': f'{_MARKS_HEADER}1.2,0,0,1,0.9\n1.3,0,0,0,0.8\n1.3,40,0,0,0.85\n',
    'annotations': f'{_FINDINGS_HEADER}1.2,0,0,0,6\r\n1.2,50,0,0,6',
    'annotations_excluded': f'{_FINDINGS_HEADER}1.3,40,0,0,-1\n',
    'seriesuids': 'seriesuid\r\n1.2\r\n\r\n1.3',
  }
  paths = {name: tmp_path / f'{name}.csv' for name in texts}
  for name, path in paths.items():
    path.write_bytes(texts[name].encode())
  return {**paths, 'output_dir': tmp_path / 'new' / 'froc'}


def arguments_of(inputs, *more):
  return [
    'luna16-froc',
    *(f'--{name}={value}' for name, value in inputs.items()),
    *more,
  ]


def run(inputs, *more):
  return froc.run(arguments_of(inputs, *more))


def test_command_writes_its_files(inputs, capsys):
  assert run(inputs, '--bootstrap=50') == 0
  captured = capsys.readouterr()
  assert captured.out.startswith('CPM 0.500 (95 %: ')
  assert '1 of 2 nodules found in 2 scans' in captured.out
  assert captured.err == ''
  result = json.loads((inputs['output_dir'] / 'froc.json').read_text())
  assert result['scans'] == result['nodules'] == 2
  assert result['true_positives'] == result['false_negatives'] == 1
  assert result['false_positives'] == result['ignored_on_excluded'] == 1
  assert result['candidates'] == 3
  assert result['nodules_reachable'] == 1
  assert result['sensitivity_ceiling'] == 0.5
  assert result['false_positives_per_scan'] == list(FPS_PER_SCAN)
  assert result['sensitivity'] == [0.5] * 7
  assert len(result['sensitivity_mean']) == len(result['sensitivity_lower']) == 7
  assert result['cpm_lower'] <= result['cpm'] <= result['cpm_upper']
  assert result['warnings'] == []
  with (inputs['output_dir'] / 'froc.csv').open(newline='') as file:
    rows = list(csv.DictReader(file))
  assert [row['threshold'] for row in rows] == ['inf', '0.9', '0.8']
  assert [bool(row['sensitivity_mean']) for row in rows] == [False, False, True]
  assert (inputs['output_dir'] / 'froc.png').read_bytes().startswith(b'\x89PNG')


def test_without_resamples_and_excluded_findings(inputs, capsys):
  del inputs['annotations_excluded']
  assert run(inputs, '--bootstrap=0') == 0
  (warning,) = capsys.readouterr().err.splitlines()
  assert warning.startswith('luna16-froc: warning: annotations_excluded is not given')
  result = json.loads((inputs['output_dir'] / 'froc.json').read_text())
  assert result['false_positives'] == 2
  assert 'sensitivity_mean' not in result
  assert len(result['warnings']) == 1
  header = (inputs['output_dir'] / 'froc.csv').read_text().splitlines()[0]
  assert header == 'false_positives_per_scan,sensitivity,threshold'


def test_flags_reach_the_result(inputs):
  assert run(inputs, '--bootstrap=3', '--seed=5', '--max_marks_per_scan=1') == 0
  result = json.loads((inputs['output_dir'] / 'froc.json').read_text())
  assert result['bootstrap'] == {'resamples': 3, 'seed': 5, 'unit': 'scans'}
  assert result['max_marks_per_scan'] == 1
  assert result['candidates'] == 2


@pytest.mark.parametrize(
  ('name', 'text', 'words'),
  [
    ('submission', None, ['submission.csv', 'cannot be read']),
    ('submission', '', ['submission.csv', 'is empty']),
    ('submission', _MARKS_HEADER, ['submission.csv', 'no rows']),
    (
      'submission',
      'seriesuid,coordX,coordY,coordZ\n',
      ['submission.csv', 'probability'],
    ),
    ('submission', f'{_MARKS_HEADER}1.2,0,0,0,1\n1.2,0,0,0,high\n', ['row 1', 'high']),
    ('submission', f'{_MARKS_HEADER}1.2,0,0,0,nan\n', ['row 0', 'nan']),
    ('submission', f'{_MARKS_HEADER}9.9,0,0,0,1\n', ['no mark', '--seriesuids']),
    ('annotations', None, ['annotations.csv', 'cannot be read']),
    ('annotations', f'{_FINDINGS_HEADER}9.9,0,0,0,6\n', ['no nodule', '--seriesuids']),
    ('annotations_excluded', None, ['annotations_excluded.csv', 'cannot be read']),
    ('seriesuids', None, ['seriesuids.csv', 'cannot be read']),
    ('seriesuids', '1.2\n1.3\n1.2\n', ['line 3', '1.2', 'line 1']),
  ],
)
def test_a_wrong_file_is_one_line_and_exit_code_2(
  inputs, error_line, name, text, words
):
  inputs[name].unlink()
  if text is not None:
    inputs[name].write_text(text)
  assert run(inputs) == 2
  line = error_line()
  for word in words:
    assert word in line
  assert not (inputs['output_dir'] / 'froc.json').exists()


@pytest.mark.parametrize(
  ('flag', 'words'),
  [
    ('--bootstrap=-1', ['--bootstrap', '0 or more']),
    ('--bootstrap=many', ['--bootstrap=many']),
    ('--max_marks_per_scan=0', ['max_marks_per_scan']),
    ('--seed=-1', ['seed']),
    ('--submission=', ['--submission is required']),
    ('--annotations=', ['--annotations is required']),
    ('--seriesuids=', ['--seriesuids is required']),
    ('--output_dir=', ['--output_dir is required']),
    ('--bootstrp=5', ['Did you mean: bootstrap']),
  ],
)
def test_a_wrong_flag_is_one_line_and_exit_code_2(inputs, error_line, flag, words):
  assert run(inputs, flag) == 2
  line = error_line()
  for word in words:
    assert word in line


def test_an_output_folder_that_cannot_be_made_is_refused(inputs, error_line):
  inputs['output_dir'] = inputs['submission'] / 'below_a_file'
  assert run(inputs) == 2
  assert '--output_dir' in error_line()


def test_command_loads_neither_tensorflow_nor_beam(inputs, fresh_python):
  code = (
    'import json, sys\n'
    'from trainer import froc\n'
    'early = "matplotlib" in sys.modules\n'
    'code = froc.run(json.loads(sys.argv[1]))\n'
    'heavy = ("tensorflow", "keras", "apache_beam", "SimpleITK", "sklearn")\n'
    'loaded = [name for name in heavy if name in sys.modules]\n'
    'print(json.dumps([early, code, loaded]))\n'
  )
  arguments = json.dumps(arguments_of(inputs, '--bootstrap=5'))
  assert fresh_python(code, arguments) == [False, 0, []]


def test_progress_of_the_bootstrap_is_displayed(inputs, monkeypatch, capsys):
  monkeypatch.setattr(progress, '_LINE_SECS', 0.0)
  assert run(inputs, '--bootstrap=50') == 0
  last = capsys.readouterr().err.splitlines()[-1]
  assert last.startswith('bootstrap: 50/50 resamples, ')
