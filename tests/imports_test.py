import ast
import importlib.metadata
import json
import pathlib

import pytest

ROOT = pathlib.Path(__file__).parents[1]
ROOMS = {'luna_tfds', 'beam_jobs', 'model', 'trainer'}

# What a file of each room may import of ours and of Beam.
ALLOWED = {
  'luna_tfds': {'luna_tfds'},
  'beam_jobs': {'beam_jobs', 'luna_tfds', 'apache_beam'},
  'model': {'model'},
  'trainer': {'trainer', 'model', 'luna_tfds'},
}

IMPORT_ONLY = """
import json, sys
import luna_tfds
heavy = {'tensorflow', 'apache_beam', 'SimpleITK', 'matplotlib', 'keras', 'sklearn'}
rooms = {'beam_jobs', 'model', 'trainer'}
roots = {name.partition('.')[0] for name in sys.modules}
print(json.dumps(sorted(roots & (heavy | rooms))))
"""

# Asks each command for help and tells what was loaded by then, and what came of it.
HELP = """
import contextlib, importlib, io, json, sys
found = {}
for name, value in json.loads(sys.argv[1]).items():
  module, _, function = value.partition(':')
  text = io.StringIO()
  with contextlib.redirect_stdout(text):
    code = getattr(importlib.import_module(module), function)([name, '--help'])
  roots = {m.partition('.')[0] for m in sys.modules}
  heavy = sorted(roots & {'tensorflow', 'keras', 'apache_beam', 'SimpleITK', 'matplotlib'})
  found[name] = [code, heavy, text.getvalue()]
print(json.dumps(found))
"""


def files(room):
  return sorted((ROOT / room).rglob('*.py'))


def imported(path):
  """(root package, whether inside a function) of every import in a file."""
  found = []

  def visit(node, inside):
    inside = inside or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    if isinstance(node, ast.Import):
      found.extend((alias.name.partition('.')[0], inside) for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
      assert node.level == 0, f'{path}: relative import'
      found.append((node.module.partition('.')[0], inside))
    for child in ast.iter_child_nodes(node):
      visit(child, inside)

  visit(ast.parse(path.read_text(encoding='utf-8')), False)
  return found


def commands():
  entry_points = importlib.metadata.distribution('luna16-patches').entry_points
  return {e.name: e.value for e in entry_points if e.group == 'console_scripts'}


@pytest.mark.parametrize('room', sorted(ROOMS))
def test_imports_point_one_way(room):
  assert files(room)
  for path in files(room):
    for root, inside in imported(path):
      # The demo runs the main job; nothing else of the trainer may.
      if path == ROOT / 'trainer' / 'demo.py' and inside and root == 'beam_jobs':
        continue
      if root in ROOMS | {'apache_beam'}:
        assert root in ALLOWED[room], f'{path.relative_to(ROOT)} imports {root}'


@pytest.mark.parametrize('room', ['luna_tfds', 'trainer'])
def test_only_the_scan_and_the_phantom_load_simpleitk(room):
  users = {
    str(path.relative_to(ROOT))
    for path in files(room)
    if any(root == 'SimpleITK' for root, _ in imported(path))
  }
  assert users <= {'luna_tfds/scan.py', 'luna_tfds/phantom.py'}


def test_modules_of_the_reader_load_simpleitk_and_tensorflow_late():
  for path in files('luna_tfds'):
    for root, inside in imported(path):
      if root in {'SimpleITK', 'tensorflow', 'PIL', 'matplotlib'}:
        assert inside, f'{path.relative_to(ROOT)} imports {root} at the top'


def test_importing_the_package_is_light(fresh_python):
  assert fresh_python(IMPORT_ONLY) == []


def test_help_never_loads_tensorflow(fresh_python):
  found = fresh_python(HELP, json.dumps(commands()))
  assert len(found) >= 6
  for name, (code, heavy, text) in found.items():
    assert code == 0, name
    assert heavy == [], name
    assert f'{name} flags:' in text
    assert '--verbosity' in text


def test_commands_of_the_setup_are_installed():
  text = (ROOT / 'setup.py').read_text(encoding='utf-8')
  tree = ast.parse(text)
  (table,) = [
    node.value
    for node in tree.body
    if isinstance(node, ast.Assign) and node.targets[0].id == '_COMMANDS'
  ]
  expected = {name: f'{module}:run' for name, module in ast.literal_eval(table).items()}
  if commands() != expected:
    pytest.fail(
      'the installed commands are not those of setup.py; run pip install -e .'
    )
  for value in expected.values():
    path = ROOT / (value.removesuffix(':run').replace('.', '/') + '.py')
    assert "if __name__ == '__main__':" in path.read_text(encoding='utf-8'), (
      f'{path}: no python -m'
    )


def test_no_file_is_a_drawer():
  for room in ROOMS:
    for path in files(room):
      assert path.stem not in {'utils', 'helpers', 'constants', 'util', 'helper'}
