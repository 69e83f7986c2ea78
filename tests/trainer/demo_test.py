import json
import re
import subprocess
import sys
import types

import pytest

from trainer import demo


@pytest.fixture
def calls(monkeypatch):
  """The commands that were called: (module, arguments); they do nothing."""
  found = []

  def pretend(command, check):
    assert command[:2] == [sys.executable, '-m']
    found.append((command[2], command[3:]))
    return types.SimpleNamespace(returncode=pretend.codes.get(command[2], 0))

  pretend.codes = {}
  monkeypatch.setattr(demo.subprocess, 'run', pretend)
  found_and_codes = types.SimpleNamespace(found=found, codes=pretend.codes)
  return found_and_codes


MODULES = [
  'luna_tfds.phantom',
  'beam_jobs.extract_patches',
  'trainer.train',
  'trainer.evaluate',
]


@pytest.mark.parametrize('flag', ['--output_dir', '--out_dir'])
def test_the_four_commands_are_called_in_order(flag, calls, tmp_path, capsys):
  flags = [f'{flag}={tmp_path}', '--scans=21', '--epochs=3', '--seed=5']
  assert demo.run(['luna16-demo', *flags]) == 0
  assert [module for module, _ in calls.found] == MODULES
  phantom, extract, train, evaluate = (arguments for _, arguments in calls.found)
  assert {'--scans=21', '--seed=5', f'--output_dir={tmp_path}/luna16'} <= set(phantom)
  assert f'--luna_dir={tmp_path}/luna16' in extract
  assert {'--epochs=3', '--seed=5', f'--workdir={tmp_path}/run'} <= set(train)
  assert evaluate == [f'--workdir={tmp_path}/run']
  printed = capsys.readouterr().out
  commands = re.findall(r'^\$ (\S+)', printed, re.MULTILINE)
  assert commands == [
    'luna16-phantom',
    'luna16-extract',
    'luna16-train',
    'luna16-evaluate',
  ]
  assert printed.endswith('luna16-demo: finished in 0 min 0 s\n')


@pytest.mark.parametrize(
  ('failing', 'message'), [(2, 'rejected its input'), (1, 'failed with exit code 1')]
)
def test_a_command_that_fails_ends_the_demo(
  failing, message, calls, tmp_path, error_line
):
  calls.codes['beam_jobs.extract_patches'] = failing
  assert demo.run(['luna16-demo', f'--output_dir={tmp_path}']) == failing
  assert f'luna16-extract {message}' in error_line()
  assert [module for module, _ in calls.found] == MODULES[:2]


@pytest.mark.parametrize('flag', ['--scans=19', '--epochs=0', '--seed=-1', '--scans=x'])
def test_a_wrong_flag_is_one_line_and_exit_code_2(flag, calls, error_line):
  assert demo.run(['luna16-demo', flag]) == 2
  assert flag in error_line()
  assert calls.found == []


@pytest.mark.slow
def test_demo_writes_metrics_and_a_report(tmp_path):
  """The first command of the README, with its defaults."""
  done = subprocess.run(
    [sys.executable, '-m', 'trainer.demo', f'--output_dir={tmp_path}'],
    capture_output=True,
    text=True,
    check=False,
  )
  assert done.returncode == 0, done.stderr
  assert 'Traceback' not in done.stderr
  lines = done.stdout.splitlines()
  report = tmp_path / 'run' / 'report.html'
  assert f'report: {report}' in lines
  assert re.fullmatch(r'luna16-demo: finished in \d+ min \d+ s', lines[-1])
  print(lines[-1])
  assert 'Nodule classifier' in report.read_text()
  metrics = json.loads((tmp_path / 'run' / 'metrics.json').read_text())
  assert (metrics['split'], metrics['scans']) == ('test', 2)
  # The synthetic nodules are easy to learn.
  assert metrics['roc_auc'] > 0.8
