"""What --help of every command of the trainer says."""

import importlib
import re

import pytest

COMMANDS = (
  'train',
  'evaluate',
  'predict',
  'crossval',
  'froc',
  'inspect',
  'visualize',
  'export',
  'demo',
)


@pytest.mark.parametrize('name', COMMANDS)
def test_help_has_a_default_for_each_flag_or_says_that_it_is_required(name, capsys):
  command = importlib.import_module(f'trainer.{name}')
  assert command.run([f'luna16-{name}', '--help']) == 0
  _, _, flags = capsys.readouterr().out.partition(f'luna16-{name} flags:\n')
  items = re.findall(r'^  --(\w+)(.*(?:\n    .*)*)', flags, re.MULTILINE)
  assert len(items) >= 4
  for flag, text in items:
    if flag != 'version':
      assert re.search(r'\(default: .+\)|\(required\b', text), f'--{flag}{text}'


@pytest.mark.parametrize(
  ('name', 'old', 'new'),
  [('export', 'output', 'output_dir'), ('demo', 'out_dir', 'output_dir')],
)
def test_help_names_the_old_name_of_a_flag(name, old, new, capsys):
  command = importlib.import_module(f'trainer.{name}')
  command.run([f'luna16-{name}', '--help'])
  assert f'  --{new} (or --{old}): ' in capsys.readouterr().out


@pytest.mark.parametrize('name', COMMANDS)
def test_version(name, capsys):
  command = importlib.import_module(f'trainer.{name}')
  assert command.run([f'luna16-{name}', '--version']) == 0
  assert re.fullmatch(
    rf'luna16-{name} \d+\.\d+\.\d+(\.dev\d+)?\n', capsys.readouterr().out
  )
