"""All commands: installed, quick to answer, and strict about their flags.

They run in a fresh interpreter, which tells what was loaded by then.
"""

import ast
import importlib.metadata
import json
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[1]

# Runs commands in turn. Tells the exit code of each, what it printed, and which heavy
# packages it was the first to load.
RUN = """
import contextlib, importlib, io, json, sys, traceback
heavy = {'tensorflow', 'keras', 'apache_beam', 'SimpleITK', 'matplotlib', 'jinja2'}
results, loaded_before = [], set()
for entry_point, command, *arguments in json.loads(sys.argv[1]):
  module, function = entry_point.split(':')
  out, err = io.StringIO(), io.StringIO()
  with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
    try:
      code = getattr(importlib.import_module(module), function)([command, *arguments])
    except BaseException:
      code = None
      traceback.print_exc()
  loaded = heavy & {name.partition('.')[0] for name in sys.modules}
  results.append(
    [code, out.getvalue(), err.getvalue(), sorted(loaded - loaded_before)]
  )
  loaded_before = loaded
print(json.dumps(results))
"""

IMPORT_LUNA_TFDS = """
import json, sys
import luna_tfds
heavy = {'tensorflow', 'keras', 'apache_beam', 'SimpleITK', 'matplotlib', 'sklearn'}
ours = {'beam_jobs', 'model', 'trainer'}
loaded = {name.partition('.')[0] for name in sys.modules}
print(json.dumps(sorted(loaded & (heavy | ours))))
"""

IMPORT_CONFIG = """
import json, sys
import trainer.config
loaded = {name.partition('.')[0] for name in sys.modules}
print(json.dumps(sorted(loaded & {'tensorflow', 'keras', 'matplotlib', 'sklearn'})))
"""

# Command, the flag with a bad value, and the other flags that it needs.
INVALID_FLAGS = [
  ('luna16-phantom', '--scans=0', '--out_dir=out'),
  ('luna16-phantom', '--seed=-1', '--out_dir=out'),
  ('luna16-extract', '--patch_shape=0,50', '--luna_dir=luna'),
  ('luna16-extract', '--candidates=V3', '--luna_dir=luna'),
  ('luna16-extract', '--max_failed_scans=-1', '--luna_dir=luna'),
  ('luna16-train', '--model=unknown', '--workdir=run'),
  ('luna16-train', '--balance=unknown', '--workdir=run'),
  ('luna16-train', '--augment=unknown', '--workdir=run'),
  ('luna16-train', '--batch_size=0', '--workdir=run'),
  ('luna16-train', '--learning_rate=-1', '--workdir=run'),
  ('luna16-train', '--threshold=precision:2', '--workdir=run'),
  ('luna16-evaluate', '--bootstrap=-1', '--workdir=run'),
  ('luna16-evaluate', '--threshold=unknown', '--workdir=run'),
  ('luna16-predict', '--tta=maybe', '--workdir=run', '--scan=scan.mhd'),
  ('luna16-froc', '--bootstrap=-1', '--submission=marks.csv'),
  ('luna16-crossval', '--folds=0,10', '--workdir=run'),
  ('luna16-crossval', '--parallel_folds=0', '--workdir=run'),
  ('luna16-crossval', '--batch_size=0', '--workdir=run'),
  ('luna16-inspect', '--batch_size=0'),
  ('luna16-inspect', '--augment=unknown'),
  ('luna16-inspect', '--secs=-1'),
  ('luna16-visualize', '--workdir='),
  ('luna16-export', '--workdir='),
  ('luna16-demo', '--scans=1'),
]


def _entry_points():
  """Command -> `module:function`, as installed."""
  entry_points = importlib.metadata.distribution('luna16-patches').entry_points
  return {e.name: e.value for e in entry_points if e.group == 'console_scripts'}


COMMANDS = _entry_points()


@pytest.fixture(scope='module')
def run_commands(fresh_python):
  """The function `run_commands(rows)` -> {row: (code, out, err, loaded)}.

  A row is a tuple of a command and its arguments.
  """

  def run(rows):
    arguments = [(COMMANDS[command], command, *flags) for command, *flags in rows]
    results = fresh_python(RUN, json.dumps(arguments))
    return dict(zip(rows, map(tuple, results)))

  return run


@pytest.fixture(scope='module')
def refusals(run_commands):
  """The results of all rows of INVALID_FLAGS."""
  return run_commands(INVALID_FLAGS)


def test_commands_of_setup_are_installed():
  tree = ast.parse((ROOT / 'setup.py').read_text(encoding='utf-8'))
  (table,) = [
    ast.literal_eval(node.value)
    for node in tree.body
    if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == '_COMMANDS'
  ]
  expected = {name: f'{module}:run' for name, module in table.items()}
  assert expected == COMMANDS, 'run `pip install -e .` again'
  for module in table.values():
    text = (ROOT / f'{module.replace(".", "/")}.py').read_text(encoding='utf-8')
    assert "if __name__ == '__main__':" in text, f'python -m {module} does nothing'


def test_invalid_flags_are_tested_for_every_command():
  assert {command for command, *_ in INVALID_FLAGS} == set(COMMANDS)


def test_help_loads_nothing_heavy(run_commands):
  results = run_commands([(command, '--help') for command in COMMANDS])
  for (command, _), (code, out, err, loaded) in results.items():
    assert (code, err, loaded) == (0, '', []), command
    assert f'{command} flags:' in out
    assert '--verbosity' in out


@pytest.mark.parametrize('row', INVALID_FLAGS, ids=' '.join)
def test_invalid_flag_is_refused_before_anything_heavy_loads(row, refusals):
  command, bad_flag, *_ = row
  code, out, err, loaded = refusals[row]
  assert code == 2, err
  assert out == ''
  assert err.startswith(f'{command}: error: ')
  assert bad_flag.partition('=')[0].lstrip('-') in err
  assert err.count('\n') == 1
  assert loaded == []


def test_importing_luna_tfds_is_light(fresh_python):
  assert fresh_python(IMPORT_LUNA_TFDS) == []


def test_configuration_does_not_load_tensorflow(fresh_python):
  assert fresh_python(IMPORT_CONFIG) == []


@pytest.mark.parametrize(
  'argv', [['luna16-phantom'], ['-m', 'luna_tfds.phantom'], ['-m', 'pytest'], ['x.py']]
)
def test_ctrl_c_while_a_command_is_loaded(argv):
  """It ends a command without a traceback, and changes nothing in other programs."""
  code = (
    f'import os, signal, sys; sys.orig_argv = [sys.executable, *{argv}]\n'
    # Loading ends here, before any module that takes time.
    'sys.modules["luna_tfds.errors"] = None\n'
    'try:\n  import luna_tfds\nexcept ImportError:\n'
    '  os.kill(os.getpid(), signal.SIGINT)\n  import time; time.sleep(5)'
  )
  done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
  if argv[-1] in ('pytest', 'x.py'):
    assert 'KeyboardInterrupt' in done.stderr
  else:
    assert done.stderr == f'{argv[-1]}: error: interrupted\n'
    assert done.returncode == 130
