"""Files that are complete or not there: written under another name, then renamed.

The one way in which this project writes a file that a later step trusts.
"""

from __future__ import annotations

from collections.abc import Iterator
import contextlib
import json
import math
import os
import pathlib
from typing import Any
import uuid

_MARK = '.writing-'


@contextlib.contextmanager
def atomic_write(path: pathlib.Path) -> Iterator[pathlib.Path]:
  """Yields a temporary path; when the `with` block succeeds it becomes `path`.

  The file and its folder are flushed to disk, so that after a power failure `path` holds
  the old file or the new one. The temporary name differs between processes and between
  hosts that share the folder, and keeps the suffix of `path`.

  Args:
    path: the file to write; replaced if it is there. Its folder must be there.

  Raises:
    OSError: the file cannot be written.
  """
  temporary = path.with_name(f'{path.stem}{_MARK}{uuid.uuid4().hex}{path.suffix}')
  try:
    yield temporary
    _flush(temporary)
    os.replace(temporary, path)
    _flush(path.parent)
  finally:
    temporary.unlink(missing_ok=True)


def write_text(path: pathlib.Path, text: str) -> None:
  """Writes a text file (UTF-8, line ends as given), complete or not at all."""
  with atomic_write(path) as temporary:
    temporary.write_text(text, encoding='utf-8', newline='')


def write_json(path: pathlib.Path, fields: Any) -> None:
  """Writes indented JSON, complete or not at all; NaN and infinities become null."""
  text = json.dumps(replace_nan(fields), indent=2, allow_nan=False)
  write_text(path, text + '\n')


def read_json(path: pathlib.Path) -> Any:
  """Reads a JSON file."""
  return json.loads(path.read_text(encoding='utf-8'))


def replace_nan(value: Any) -> Any:
  """Replaces what JSON has no number for, NaN and infinities, by None, at any depth."""
  if isinstance(value, dict):
    return {key: replace_nan(item) for key, item in value.items()}
  if isinstance(value, list | tuple):
    return [replace_nan(item) for item in value]
  if isinstance(value, float) and not math.isfinite(value):
    return None
  return value


def remove_temporaries(folder: pathlib.Path) -> None:
  """Deletes what writers that were killed left in a folder; no writer may be active."""
  for path in folder.glob(f'*{_MARK}*'):
    path.unlink(missing_ok=True)


def _flush(path: pathlib.Path) -> None:
  """Makes sure that a file, or the list of files of a folder, is on disk."""
  if path.is_dir() and os.name == 'nt':  # folders cannot be opened there
    return
  descriptor = os.open(path, os.O_RDONLY)
  try:
    os.fsync(descriptor)
  finally:
    os.close(descriptor)
