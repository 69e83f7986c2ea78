"""The versions that a run was started with, and how they changed since."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import importlib.metadata
import pathlib
import platform
import subprocess
from typing import Any

_PACKAGES = (
  'tensorflow',
  'keras',
  'tensorflow-datasets',
  'numpy',
  'scikit-learn',
)


def current(precision_used: str) -> dict[str, Any]:
  """Returns the versions and the precision of this process, as fields of config.json.

  Args:
    precision_used: the Keras dtype policy of the network.
  """
  return {
    'code_version': _code_version(),
    'versions': _versions(),
    'precision_used': precision_used,
  }


def at_start(config_json: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, Any]:
  """Returns the same of the start of a run.

  Args:
    config_json: the fields of config.json.
    now: result of `current`; taken for what config.json lacks, as that of release 1.0.0
      does.
  """
  stored = {name: config_json.get(name) for name in now}
  return {
    name: stored[name]
    if stored[name] and isinstance(stored[name], type(value))
    else value
    for name, value in now.items()
  }


def changes(
  started_with: Mapping[str, Any],
  earlier: Sequence[Mapping[str, Any]],
  now: Mapping[str, Any],
  epoch: int,
) -> list[dict[str, Any]]:
  """Returns what has changed since the run was continued last.

  Args:
    started_with: result of `at_start`.
    earlier: the changes before, in order.
    now: result of `current`.
    epoch: epochs that are done.

  Returns:
    For each change epoch, name, and value before and after.
  """
  last = _flat(started_with)
  for change in earlier:
    if 'after' in change:
      last[change['name']] = change['after']
  return [
    {'epoch': epoch, 'name': name, 'before': last[name], 'after': value}
    for name, value in _flat(now).items()
    if name in last and last[name] != value
  ]


def is_change(value: object) -> bool:
  """Whether a value read from config.json is of the form that `changes` returns."""
  return isinstance(value, dict) and isinstance(value.get('name'), str)


def change_text(change: Mapping[str, Any]) -> str:
  """Returns e.g. 'keras 3.10.0 -> 3.11.0'."""
  name = change['name'].removeprefix('versions.')
  return f'{name} {change["before"]} -> {change["after"]}'


def _flat(fields: Mapping[str, Any]) -> dict[str, Any]:
  """Returns the fields with the name 'versions.<package>' for each version."""
  flat = {name: value for name, value in fields.items() if name != 'versions'}
  return flat | {f'versions.{name}': v for name, v in fields['versions'].items()}


def _code_version() -> str:
  """The package's version and, in a git checkout, the commit."""
  version = importlib.metadata.version('luna16-patches')
  root = pathlib.Path(__file__).parent.parent
  try:
    commit = subprocess.run(
      ['git', '-C', str(root), 'describe', '--always', '--dirty'],
      capture_output=True,
      text=True,
      check=True,
      timeout=10,
    ).stdout.strip()
  except (OSError, subprocess.SubprocessError):
    return version
  return f'{version} ({commit})'


def _versions() -> dict[str, str]:
  return {
    'python': platform.python_version(),
    **{name: importlib.metadata.version(name) for name in _PACKAGES},
  }
