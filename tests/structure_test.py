"""The architecture: which module may import which.

Reads the imports of all four packages, also those inside functions and under
TYPE_CHECKING, without running the code. `commands_test.py` checks in fresh interpreters
what the commands load.
"""

import ast
import dataclasses
import graphlib
import pathlib

import pytest

ROOT = pathlib.Path(__file__).parents[1]
PACKAGES = ('luna_tfds', 'beam_jobs', 'model', 'trainer')

# What the modules of a group may import, beside modules of the same group and what the
# groups named here may import themselves. A command or a flags module of trainer is in
# `trainer.commands`; other modules directly in trainer/ are in `trainer.base`.
MAY_IMPORT = {
  'luna_tfds': (),
  'beam_jobs': ('luna_tfds',),
  'model': (),
  'model.networks': (),
  'model.metrics': (),
  'trainer.base': ('luna_tfds', 'model.networks', 'model.metrics'),
  'trainer.data': ('trainer.base',),
  'trainer.scoring': ('trainer.data',),
  'trainer.pictures': ('trainer.base',),
  'trainer.training': ('trainer.scoring', 'trainer.pictures'),
  'trainer.evaluation': ('trainer.scoring',),
  'trainer.report': ('trainer.evaluation', 'trainer.pictures'),
  'trainer.crossvalidation': ('trainer.report', 'trainer.training'),
  'trainer.commands': ('trainer.crossvalidation',),
}

# Which packages inside luna_tfds may import which others of them. All may import the
# modules directly in luna_tfds/, which have no group: `test_no_import_cycle` orders them.
MAY_IMPORT_IN_LUNA_TFDS = {
  'files': ('processes',),
  'processes': (),
  'scans': ('files',),
  'command_line': ('files',),
  'luna16_patches': ('files',),
}

# Packages of others that only these groups or modules may import.
RESTRICTED = {
  'apache_beam': ('beam_jobs',),
  'SimpleITK': (
    'luna_tfds.scans.scan',
    'luna_tfds.scans.dicom_series',
    'luna_tfds.phantom',
  ),
}

# Slow to load: up to seconds and hundreds of MB. (TFDS without TensorFlow loads in 0.4 s,
# and `import luna_tfds` must load it, to register the dataset.)
HEAVY = {
  'SimpleITK',
  'apache_beam',
  'jinja2',
  'keras',
  'matplotlib',
  'sklearn',
  'tensorflow',
}

# Modules other than commands that import inside functions, and why they must.
LATE_IMPORTS = {
  'luna_tfds.command_line.cli': 'every command imports it before it has read its flags',
  'luna_tfds.example_figure': 'a reader of the dataset has no need of Matplotlib',
  'luna_tfds.scans.scan': 'a reader of the dataset has no need of SimpleITK',
  'luna_tfds.scans.dicom_series': 'as luna_tfds.scans.scan, which imports it',
  'luna_tfds.records': 'the Beam workers encode records without TensorFlow',
  'luna_tfds.article_patches': 'a reader of the dataset has no need of Pillow',
  'luna_tfds.command_line.progress': 'the bar is for terminals only',
  'luna_tfds.processes.worker_start': 'it ends with its launcher before anything is loaded',
  'beam_jobs.job': 'the launcher of local workers has no need of Beam',
  'beam_jobs.pipeline': 'as beam_jobs.job, which imports it',
  'beam_jobs.runners': 'Dask is an optional dependency',
  'luna_tfds.files.tfds_stores': '`import luna_tfds` loads it, and must not load TensorFlow',
  'luna_tfds.files.store_requests': 'a local run has no need of fsspec',
}


@dataclasses.dataclass(frozen=True)
class Import:
  """One import statement.

  Attributes:
    importer: module that holds it.
    target: module of ours, e.g. `trainer.config`, or package of others, e.g. `numpy`.
    place: file and line.
    is_late: whether it is inside a function.
    is_for_types: whether it is under TYPE_CHECKING, so that it is never carried out.
  """

  importer: str
  target: str
  place: str
  is_late: bool
  is_for_types: bool

  def __str__(self):
    return f'{self.place} imports {self.target}'


def _module_name(path):
  parts = path.relative_to(ROOT).with_suffix('').parts
  return '.'.join(parts[:-1] if parts[-1] == '__init__' else parts)


FILES = {
  _module_name(path): path
  for package in PACKAGES
  for path in sorted((ROOT / package).rglob('*.py'))
}


def _targets(node):
  """The modules that one statement imports."""
  if isinstance(node, ast.Import):
    names = [alias.name for alias in node.names]
  elif isinstance(node, ast.ImportFrom):
    assert node.level == 0, 'relative imports are not used'
    # `from luna_tfds.command_line import cli` imports a module, `from dataclasses import field` not.
    names = [f'{node.module}.{alias.name}' for alias in node.names]
    names = [name if name in FILES else node.module for name in names]
  else:
    return []
  return [name if name in FILES else name.partition('.')[0] for name in names]


def _read_imports(module):
  tree = ast.parse(FILES[module].read_text(encoding='utf-8'))
  functions = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)
  late = {
    child
    for function in ast.walk(tree)
    if isinstance(function, functions)
    for child in ast.walk(function)
  }
  for_types = {
    child
    for block in ast.walk(tree)
    if isinstance(block, ast.If) and ast.unparse(block.test) == 'TYPE_CHECKING'
    for child in ast.walk(block)
  }
  path = FILES[module].relative_to(ROOT)
  return [
    Import(module, target, f'{path}:{node.lineno}', node in late, node in for_types)
    for node in ast.walk(tree)
    for target in _targets(node)
  ]


def _read_commands():
  """The table `_COMMANDS` of setup.py: command -> module."""
  for node in ast.parse((ROOT / 'setup.py').read_text(encoding='utf-8')).body:
    if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == '_COMMANDS':
      return ast.literal_eval(node.value)
  raise AssertionError('setup.py has no _COMMANDS')


IMPORTS = [each for module in FILES for each in _read_imports(module)]
COMMANDS = set(_read_commands().values())


def group_of(module):
  """The key of MAY_IMPORT that a module belongs to."""
  package, _, rest = module.partition('.')
  if package == 'trainer' and '.' not in rest and f'trainer.{rest}' not in MAY_IMPORT:
    is_command = module in COMMANDS or module.endswith('_flags')
    return 'trainer.commands' if is_command else 'trainer.base'
  inner = '.'.join(module.split('.')[:2])
  return inner if inner in MAY_IMPORT else package


def allowed_groups(group):
  """The group, and all groups that it may import directly or indirectly."""
  return {group}.union(*(allowed_groups(other) for other in MAY_IMPORT[group]))


def _check(violations):
  assert not violations, '\n' + '\n'.join(violations)


def test_modules_import_only_allowed_groups():
  violations = []
  for each in IMPORTS:
    group, allowed = group_of(each.importer), allowed_groups(group_of(each.importer))
    if each.target in FILES and group_of(each.target) not in allowed:
      others = ', '.join(sorted(allowed - {group})) or 'no other group'
      violations.append(f'{each}: {group} may import {others}')
  _check(violations)


def package_in_luna_tfds(module):
  """The key of MAY_IMPORT_IN_LUNA_TFDS of a module, or None."""
  parts = module.split('.')
  return parts[1] if parts[0] == 'luna_tfds' and len(parts) > 2 else None


def test_packages_of_luna_tfds_import_one_way():
  violations = []
  for each in IMPORTS:
    package, target = map(package_in_luna_tfds, (each.importer, each.target))
    if package and target and package != target:
      allowed = MAY_IMPORT_IN_LUNA_TFDS[package]
      if target not in allowed:
        violations.append(f'{each}: {package} may import {allowed or "none of them"}')
  _check(violations)
  found = {package_in_luna_tfds(module) for module in FILES} - {None}
  assert found == set(MAY_IMPORT_IN_LUNA_TFDS)


def test_every_group_has_modules():
  assert {group_of(module) for module in FILES} == set(MAY_IMPORT)


def test_no_import_cycle():
  graph = {
    module: {e.target for e in IMPORTS if e.importer == module and e.target in FILES}
    for module in FILES
  }
  cycle = []
  try:
    graphlib.TopologicalSorter(graph).prepare()
  except graphlib.CycleError as error:
    cycle = error.args[1]
  assert cycle == []


def test_no_module_imports_a_command():
  _check([f'{e}, which is a command' for e in IMPORTS if e.target in COMMANDS])


def test_only_commands_import_flags_modules():
  _check(
    [
      f'{e}: only commands and flags modules may'
      for e in IMPORTS
      if e.target.endswith('_flags')
      and e.importer not in COMMANDS
      and not e.importer.endswith('_flags')
    ]
  )


@pytest.mark.parametrize('package', sorted(RESTRICTED))
def test_restricted_package(package):
  allowed = RESTRICTED[package]
  _check(
    [
      f'{e}: only {", ".join(allowed)} may'
      for e in IMPORTS
      if e.target == package and not {e.importer, group_of(e.importer)} & set(allowed)
    ]
  )


def test_late_imports_have_a_reason():
  allowed = COMMANDS | set(LATE_IMPORTS)
  _check(
    [
      f'{e} inside a function: move it to the top of the file, or add the reason'
      ' to LATE_IMPORTS'
      for e in IMPORTS
      if e.is_late and e.importer not in allowed
    ]
  )


def test_listed_late_imports_exist():
  late = {each.importer for each in IMPORTS if each.is_late}
  _check(
    [
      f'{module} imports nothing inside a function: remove it from LATE_IMPORTS'
      for module in sorted(set(LATE_IMPORTS) - late)
    ]
  )


def test_commands_and_their_flags_load_nothing_heavy_at_the_top():
  """Follows the imports at the top of the files, as `--help` does."""
  violations = []
  for command in sorted(COMMANDS):
    reached, waiting = set(), [command]
    while waiting:
      module = waiting.pop()
      reached.add(module)
      own = [e for e in IMPORTS if e.importer == module]
      top = [e for e in own if not e.is_late and not e.is_for_types]
      waiting += [e.target for e in top if e.target in set(FILES) - reached]
      violations += [f'{command} loads {e}' for e in top if e.target in HEAVY]
  _check(sorted(set(violations)))


def test_garbage_is_not_collected_where_tf_data_calls_python():
  calls = ('numpy_function(', 'py_function(', 'from_generator(')
  module = 'luna_tfds.processes.garbage_collection'
  _check(
    [
      f'{name} lets tf.data call Python without {module}, which says what may hang'
      for name, path in FILES.items()
      if any(call in path.read_text() for call in calls)
      and not any(e.importer == name and e.target == module for e in IMPORTS)
    ]
  )


def test_module_names_say_what_they_hold():
  vague = {'utils', 'util', 'helpers', 'helper', 'constants', 'common', 'misc'}
  assert not [module for module in FILES if module.rpartition('.')[2] in vague]
