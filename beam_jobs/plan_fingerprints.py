"""Fingerprints: what determines the bytes of a shard, by which finished ones are known."""

from __future__ import annotations

from collections.abc import Sequence
import hashlib
import json
import pathlib
from typing import Any

import numpy as np

from beam_jobs.tasks import ArticleTask
from beam_jobs.tasks import Task
from luna_tfds import luna16_patches
from luna_tfds.errors import ScanError
from luna_tfds.files import store_path
from luna_tfds.files.store_requests import StoreError
from luna_tfds.scans import meta_image_files

# To be increased when the same inputs give other bytes.
_FORMAT = 1


def fingerprint(fields: Any) -> str:
  """Returns a hash of JSON values, 16 hexadecimal digits."""
  text = json.dumps(fields, sort_keys=True, separators=(',', ':'))
  return _sha256(text.encode())[:16]


def records_fingerprint(
  split: str,
  config: luna16_patches.Luna16PatchesConfig,
  fields_of_tasks: Sequence[Any],
) -> str:
  """Returns the fingerprint of the records of one or more tasks.

  Args:
    split: the split of the tasks.
    config: config of the dataset.
    fields_of_tasks: the `task_fields` of each.
  """
  return fingerprint([_FORMAT, config.fingerprint_fields(), split, *fields_of_tasks])


def task_fields(task: Task, luna_dir: pathlib.Path) -> list[Any]:
  """Returns everything in a task that determines the bytes of its records."""
  if isinstance(task, ArticleTask):
    return [
      [str(i.path.relative_to(luna_dir)), i.label, i.path.stat().st_size]
      for i in task.images
    ]
  path = store_path.as_path(task.path)
  header = _header_bytes(path)
  arrays = (
    task.candidate_ids,
    task.labels,
    task.centers_xyz_mm,
    task.matches.nodule_id,
    task.matches.diameter_mm,
    task.matches.excluded,
  )
  return [
    str(path.relative_to(luna_dir)),
    header.hex(),
    _data_file_size(path, header),
    task.subset,
    *(_sha256(np.ascontiguousarray(array).tobytes()) for array in arrays),
  ]


def _header_bytes(path: pathlib.Path) -> bytes:
  """Returns a header; empty if it cannot be read."""
  try:
    return meta_image_files.read_header_bytes(path)
  except ScanError:  # reported when the worker opens the scan
    return b''


def _data_file_size(path: pathlib.Path, header: bytes) -> int:
  """Returns the size of the data file of a scan; -1 if it is missing or refused."""
  try:
    return meta_image_files.data_file_of(path, header).stat().st_size
  except StoreError:
    raise
  except (ScanError, OSError):  # reported when the worker opens the scan
    return -1


def _sha256(data: bytes) -> str:
  return hashlib.sha256(data).hexdigest()
