"""Runs mutation testing and checks that only mutants known to be equivalent survive.

Runs mutmut on the modules in pyproject.toml, which takes about ten minutes. Prints the
mutants of each module, and every surviving mutant that is not in equivalent_mutants.toml.

Exit codes: 0 if the surviving mutants are those of the file, else 1.
"""

from __future__ import annotations

import collections
import dataclasses
import pathlib
import shutil
import subprocess
import sys
import tomllib

ROOT = pathlib.Path(__file__).parents[1]
EQUIVALENT = pathlib.Path(__file__).with_name('equivalent_mutants.toml')

_KILLED = ('killed', 'timeout')


@dataclasses.dataclass(frozen=True, order=True)
class Mutant:
  """A change of one function; mutmut's own numbers change with the code.

  Attributes:
    function: its full name, e.g. `luna_tfds.geometry.Box.intersection`.
    original: the changed lines of the function, without indentation.
    mutated: what they were changed to.
  """

  function: str
  original: str
  mutated: str

  def __str__(self) -> str:
    return f'{self.function}\n  - {self.original}\n  + {self.mutated}'


def mutmut(*arguments: str) -> str:
  """Runs a command of mutmut; returns what it prints."""
  command = ['mutmut', *arguments]
  return subprocess.run(
    command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True
  ).stdout


def read_mutant(name: str) -> Mutant:
  """Returns a mutant by its name, e.g. `luna_tfds.geometry.xǁBoxǁslices__mutmut_1`."""
  module, _, function = name.rpartition('__mutmut_')[0].rpartition('.')
  function = function.removeprefix('x_').removeprefix('xǁ').replace('ǁ', '.')
  diff = mutmut('show', name).splitlines()
  removed = [d[1:].strip() for d in diff if d.startswith('-') and d[:3] != '---']
  added = [d[1:].strip() for d in diff if d.startswith('+') and d[:3] != '+++']
  return Mutant(f'{module}.{function}', ' '.join(removed), ' '.join(added))


def read_equivalent() -> set[Mutant]:
  """Returns the mutants that are known to be equivalent."""
  groups = tomllib.loads(EQUIVALENT.read_text())['equivalent']
  return {
    Mutant(group['function'], group['original'], mutated)
    for group in groups
    for mutated in group['mutated']
  }


def print_table(statuses: dict[str, str], surviving: set[str]) -> None:
  """Prints the numbers of mutants of each module.

  Args:
    statuses: mutmut's status of each mutant, by name.
    surviving: names of the mutants that no test killed.
  """
  modules = [name.rpartition('.')[0] for name in statuses]
  survived = collections.Counter(name.rpartition('.')[0] for name in surviving)
  print(f'{"module":32} {"mutants":>8} {"killed":>8} {"surviving":>10}')
  for module, count in sorted(collections.Counter(modules).items()):
    killed = count - survived[module]
    print(f'{module:32} {count:8} {killed:8} {survived[module]:10}')


def main() -> int:
  if not shutil.which('mutmut'):
    sys.exit("mutmut is not installed: pip install -e '.[mutation]' -c constraints.txt")
  # mutmut keeps the results of an earlier run although the tests have changed.
  shutil.rmtree(ROOT / 'mutants', ignore_errors=True)
  if subprocess.run(['mutmut', 'run'], cwd=ROOT, check=False).returncode:
    return 1
  lines = mutmut('results', '--all', 'true').splitlines()
  statuses = dict(line.strip().rsplit(': ', 1) for line in lines)
  surviving = {name for name, status in statuses.items() if status not in _KILLED}
  print_table(statuses, surviving)
  found, known = {read_mutant(name) for name in surviving}, read_equivalent()
  for mutant in sorted(found - known):
    print(
      f'\nNo test fails with this change: write one, or simplify the code\n{mutant}'
    )
  for mutant in sorted(known - found):
    print(f'\nDoes not survive: remove it from {EQUIVALENT.name}\n{mutant}')
  return int(found != known)


if __name__ == '__main__':
  sys.exit(main())
