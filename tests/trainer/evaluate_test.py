import json
import re
import shutil

import evaluate_command
import fake_source
import numpy as np
import pytest

from trainer.report import page

pytestmark = pytest.mark.usefixtures('no_network_pictures')


def test_metrics_and_report_are_printed(trained, tmp_path, capsys):
  code = evaluate_command.run(
    f'--workdir={trained}', '--split=validation', f'--output_dir={tmp_path}'
  )
  assert code == 0
  lines = capsys.readouterr().out.splitlines()
  assert re.match(
    r'validation: \d+ records, 1 nodule candidate; \d+ excluded findings? left out',
    lines[0],
  )
  assert lines[-1] == f'report: {tmp_path / "report.html"}'
  # Records of the split chose the stored threshold.
  assert (
    'two-fold cross-fitting'
    in evaluate_command.read_metrics(tmp_path)['threshold_chosen_on']
  )


def test_results_are_written_to_the_workdir_by_default(trained, tmp_path):
  workdir = shutil.copytree(trained, tmp_path / 'run')
  assert evaluate_command.run(f'--workdir={workdir}', '--bootstrap=0') == 0
  assert evaluate_command.read_metrics(workdir)['split'] == 'test'
  assert (workdir / 'report.html').is_file()


def test_flags_reach_the_evaluation(trained, tmp_path):
  flags = ['--threshold=0.3', '--tta', '--seed=4', f'--output_dir={tmp_path}']
  assert evaluate_command.run(f'--workdir={trained}', *flags) == 0
  found = evaluate_command.read_metrics(tmp_path)
  rows = [
    row for row in evaluate_command.read_predictions(tmp_path) if row['excluded'] == '0'
  ]
  predicted = evaluate_command.column(rows, 'probability') >= 0.3
  labels = evaluate_command.column(rows, 'label', int)
  assert (found['threshold'], found['threshold_chosen_on']) == (0.3, 'given')
  assert found['tta'] is True
  assert found['bootstrap'] == {'resamples': 50, 'seed': 4, 'unit': 'scans'}
  matrix = found['confusion_matrix']
  assert matrix['true_positives'] == np.sum(predicted & (labels == 1))
  assert matrix['false_positives'] == np.sum(predicted & (labels == 0))


def test_a_split_of_one_class(trained, tmp_path):
  code = evaluate_command.run(
    f'--workdir={trained}', '--split=test[:1]', f'--output_dir={tmp_path}'
  )
  assert code == 0
  found = evaluate_command.read_metrics(tmp_path)
  assert found['records'] == 1
  assert found['pr_auc'] is None
  assert found['operating_points'] == []
  assert found['intervals']['roc_auc'] == [None, None]
  assert 'one class only' in (tmp_path / 'report.html').read_text()


@pytest.mark.slow
def test_ensemble_in_a_list_and_in_several_flags(trained, other_trained, tmp_path):
  paths = shutil.copytree(trained, tmp_path / 'run'), other_trained
  probabilities = {}
  for name, flags in {
    'list': ['--ensemble={},{}'.format(*paths)],
    'flags': [f'--workdir={path}' for path in paths],
  }.items():
    assert (
      evaluate_command.run(*flags, '--bootstrap=0', f'--output_dir={tmp_path / name}')
      == 0
    )
    assert evaluate_command.read_metrics(tmp_path / name)['models'] == 2
    rows = evaluate_command.read_predictions(tmp_path / name)
    probabilities[name] = evaluate_command.column(rows, 'probability')
  np.testing.assert_array_equal(probabilities['flags'], probabilities['list'])


def test_ensemble_writes_to_a_folder_of_its_own(trained, other_trained, tmp_path):
  workdir = shutil.copytree(trained, tmp_path / 'run')
  assert (
    evaluate_command.run(f'--ensemble={workdir},{other_trained}', '--bootstrap=0') == 0
  )
  assert evaluate_command.read_metrics(workdir / 'ensemble')['models'] == 2
  assert not (workdir / 'metrics.json').exists()


def test_compare(trained, other_trained, tmp_path, capsys, evaluate_folders):
  code = evaluate_command.run(
    '--compare', trained, other_trained, f'--output_dir={tmp_path}'
  )
  assert code == 0
  found = json.loads((tmp_path / 'compare.json').read_text())
  assert (found['split'], found['bootstrap']['resamples']) == ('test', 50)
  a, b = (
    evaluate_folders(path).result.split_metrics.classification
    for path in (trained, other_trained)
  )
  for name in ('pr_auc', 'roc_auc', 'f1'):
    row = found['metrics'][name]
    assert (row['a'], row['b']) == (a.value(name), b.value(name))
    assert row['difference'] == pytest.approx(row['a'] - row['b'])
    # The split has one scan, so each resample is the split.
    assert row['lower'] == pytest.approx(row['difference'])
  printed = capsys.readouterr().out
  assert f'{a.pr_auc:.4f}' in printed
  assert str(other_trained) in printed
  assert printed.endswith(f'comparison: {tmp_path / "compare.json"}\n')


def test_compare_in_one_argument(trained, tmp_path):
  flags = [f'--compare={trained},{trained}', f'--split={evaluate_command.EVERYTHING}']
  assert evaluate_command.run(*flags, f'--output_dir={tmp_path}') == 0
  rows = json.loads((tmp_path / 'compare.json').read_text())['metrics']
  for row in rows.values():
    assert row['difference'] == row['lower'] == row['upper'] == 0


def test_leaks_are_reported_on_stderr(trained, tmp_path, capsys, monkeypatch):
  monkeypatch.setattr(page, 'build_page', lambda evaluation, folder: '')
  folder = f'--output_dir={tmp_path}'
  split = '--split=test+train[:7]'
  assert evaluate_command.run(f'--workdir={trained}', split, folder) == 0
  (line,) = capsys.readouterr().err.splitlines()
  assert line.startswith('luna16-evaluate: warning: 7 of the ')
  assert evaluate_command.read_metrics(tmp_path)['warnings'] == [
    line.partition('warning: ')[2]
  ]
  assert evaluate_command.run(f'--compare={trained},{trained}', split, folder) == 0
  lines = capsys.readouterr().err.splitlines()
  found = [f'{trained}: 7 of the ' in line for line in lines]
  assert found == [True, True, False]
  assert 'scans only: with so few' in lines[2]


def test_a_split_of_excluded_findings_only(
  trained, opened_dataset, tmp_path, capsys, no_network_pictures
):
  source = opened_dataset.open_split('train')
  excluded = fake_source.read_columns(source, ('excluded',))['excluded']
  position = [bool(value) for value in excluded].index(True)
  flags = f'--split=train[{position}:{position + 1}]', f'--output_dir={tmp_path}'
  assert evaluate_command.run(f'--workdir={trained}', *flags) == 0
  metrics = evaluate_command.read_metrics(tmp_path)
  assert (metrics['records'], metrics['excluded_records']) == (0, 1)
  assert metrics['pr_auc'] is metrics['brier'] is metrics['ece'] is None
  assert metrics['all_candidates']['records'] == 1
  text = 'the record hits an excluded finding'
  assert any(warning.startswith(text) for warning in metrics['warnings'])
  assert f'luna16-evaluate: warning: {text}' in capsys.readouterr().err
  assert text.capitalize() in (tmp_path / 'report.html').read_text()
  assert evaluate_command.run(f'--compare={trained},{trained}', *flags) == 0
  result = json.loads((tmp_path / 'compare.json').read_text())
  assert result['metrics']['pr_auc']['a'] is None
