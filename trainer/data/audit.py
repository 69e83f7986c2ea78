"""Checks on the stored records that the splits of a dataset do not leak."""

from __future__ import annotations

import collections
from collections.abc import Iterable, Mapping
import csv
import dataclasses
import pathlib
from typing import TypeVar

import numpy as np
import tensorflow as tf

from luna_tfds import records
from luna_tfds.command_line import progress
from luna_tfds.errors import JobError
from luna_tfds.errors import UsageError
from luna_tfds.files import store_path
from luna_tfds.text_format import count_text
from luna_tfds.text_format import shown_text
from trainer.data import store_records
from trainer.data.dataset import OpenedDataset

# Problems that are listed; of the others only the number.
_MAX_LISTED_PROBLEMS = 5
_RECORDS_PER_READ = 512
# A seriesuid, a nodule_id or a patient.
_Member = TypeVar('_Member', str, int)

_FEATURES = ('label', 'seriesuid', 'candidate_id', 'subset', 'nodule_id')


def check_metadata(dataset: OpenedDataset) -> None:
  """Checks the metadata for contradictions, without reading a record.

  The length of every shard must be the sum of its class counts, and no subset may be in
  two splits. A dataset without such metadata passes.

  Raises:
    JobError: the metadata contradict each other.
  """
  _raise_problems(_metadata_problems(dataset), dataset)


def audit(dataset: OpenedDataset, patients_csv: str | None = None) -> str:
  """Reads every record of every split and checks that no split leaks into another.

  The progress is displayed.

  Args:
    dataset: an extracted dataset.
    patients_csv: path of a CSV with the columns seriesuid and patient; None for none.

  Returns:
    What was checked, in lines of text.

  Raises:
    JobError: a scan, nodule or patient is in two splits, a record is stored twice, a
      file is damaged, or a count differs from the metadata.
    UsageError: the CSV is wrong.
  """
  patient_of_scan = read_patients(patients_csv) if patients_csv else {}
  problems = _metadata_problems(dataset)
  state = _AuditState(patient_of_scan)
  shards = [
    (split, index, store_path.as_path(item.path))
    for split in dataset.split_names
    for index, item in enumerate(dataset.open_split(split).slices)
  ]
  with progress.displayed('shards', 'audit') as report:
    report(0, len(shards))
    for done, (split, index, path) in enumerate(shards, start=1):
      problems += _audit_shard(dataset, split, index, path, state)
      report(done, len(shards))
  if patients_csv:
    _check_every_scan_has_a_patient(state, patients_csv)
  _raise_problems(problems, dataset)
  return _summary(dataset, state)


@dataclasses.dataclass
class _AuditState:
  """What was found in the shards that were read so far.

  Attributes:
    patient_of_scan: patient of each seriesuid, if known.
    record_keys: (seriesuid, candidate_id) of every record.
    split_of_scan: the split in which a seriesuid was found first.
    split_of_nodule: the same of a nodule_id.
    split_of_patient: the same of a patient.
  """

  patient_of_scan: Mapping[str, str]
  record_keys: set[tuple[bytes, int]] = dataclasses.field(default_factory=set)
  split_of_scan: dict[str, str] = dataclasses.field(default_factory=dict)
  split_of_nodule: dict[int, str] = dataclasses.field(default_factory=dict)
  split_of_patient: dict[str, str] = dataclasses.field(default_factory=dict)

  def add_keys(self, keys: Iterable[tuple[bytes, int]]) -> int:
    """Adds the keys of some records; returns how many were there already."""
    keys = list(keys)
    before = len(self.record_keys)
    self.record_keys.update(keys)
    return before + len(keys) - len(self.record_keys)

  def add_members(
    self, split: str, seriesuids: set[str], nodule_ids: set[int]
  ) -> list[str]:
    """Adds scans and nodules of a split; returns which are in another split too."""
    patients = {
      self.patient_of_scan[uid] for uid in seriesuids if uid in self.patient_of_scan
    }
    return [
      *_add_to_split('scan', seriesuids, split, self.split_of_scan),
      *_add_to_split('nodule', nodule_ids, split, self.split_of_nodule),
      *_add_to_split('patient', patients, split, self.split_of_patient),
    ]


def _add_to_split(
  name: str, members: set[_Member], split: str, split_of: dict[_Member, str]
) -> list[str]:
  problems = []
  for member in sorted(members):
    other = split_of.setdefault(member, split)
    if other != split:
      problems.append(f'{name} {member} is in {other} and in {split}')
  return problems


def _audit_shard(
  dataset: OpenedDataset,
  split: str,
  index: int,
  path: pathlib.Path,
  state: _AuditState,
) -> list[str]:
  """Checks one shard and adds what it holds to the state."""
  try:
    columns = _read_columns(path)
  except tf.errors.OpError as error:
    return [f'{path.name} cannot be read: {error.message.splitlines()[0]}']
  problems = _count_problems(dataset, split, index, path.name, columns)
  keys = zip(columns['seriesuid'].tolist(), columns['candidate_id'].tolist())
  if repeated := state.add_keys(keys):
    repeats = count_text(repeated, 'record is', 'records are')
    problems.append(f'{path.name}: {repeats} stored twice')
  seriesuids = {uid.decode() for uid in set(columns['seriesuid'].tolist()) if uid}
  nodule_ids = {int(n) for n in np.unique(columns['nodule_id']) if n >= 0}
  return problems + state.add_members(split, seriesuids, nodule_ids)


def _read_columns(path: pathlib.Path) -> dict[str, np.ndarray]:
  """Reads the features of all records of a shard but the image, [n] each."""
  blocks = [
    records.parse_batch(block, (), _FEATURES)
    for block in store_records.file_records(str(path)).batch(_RECORDS_PER_READ)
  ]
  if not blocks:
    return {name: np.zeros(0, np.int64) for name in _FEATURES}
  return {
    name: np.concatenate([block[name].numpy() for block in blocks])
    for name in _FEATURES
  }


def _count_problems(
  dataset: OpenedDataset,
  split: str,
  index: int,
  name: str,
  columns: dict[str, np.ndarray],
) -> list[str]:
  """Compares what a shard holds with what the metadata say."""
  metadata = dataset.metadata
  problems = []
  count, expected = len(columns['label']), dataset.shard_lengths(split)[index]
  if count != expected:
    problems.append(
      f'{name} holds {count_text(count, "record")}, dataset_info.json says {expected}'
    )
  label_counts = np.bincount(columns['label'].astype(np.int64), minlength=2).tolist()
  expected_counts = metadata.shard_label_counts.get(split, ())
  if index < len(expected_counts) and label_counts != list(expected_counts[index]):
    problems.append(
      f'{name} holds {label_counts} records of each class, metadata.json says '
      f'{list(expected_counts[index])}'
    )
  subsets = np.unique(columns['subset']).tolist()
  expected_subsets = metadata.shard_subsets.get(split, ())
  if index < len(expected_subsets) and subsets != [expected_subsets[index]]:
    problems.append(
      f'{name} holds subsets {subsets}, metadata.json says {expected_subsets[index]}'
    )
  return problems


def _metadata_problems(dataset: OpenedDataset) -> list[str]:
  problems = []
  split_of_subset: dict[int, str] = {}
  label_counts = dataset.metadata.shard_label_counts
  shard_subsets = dataset.metadata.shard_subsets
  for split in dataset.split_names:
    lengths = dataset.shard_lengths(split)
    if split in label_counts and [sum(c) for c in label_counts[split]] != lengths:
      problems.append(
        f'the class counts of the shards of {split} do not add up to their lengths'
      )
    subsets = shard_subsets.get(split, ())
    if split in shard_subsets and len(subsets) != len(lengths):
      problems.append(
        f'{split} has {count_text(len(lengths), "shard")}, but metadata.json lists the '
        f'subsets of {len(subsets)}'
      )
    known = {subset for subset in subsets if subset >= 0}
    problems += _add_to_split('subset', known, split, split_of_subset)
  return problems


def read_patients(path: str) -> dict[str, str]:
  """Reads the patient of each scan.

  Args:
    path: path of a CSV file with the columns seriesuid and patient.

  Raises:
    UsageError: a column or a value is missing, or a scan has two patients.
  """
  patient_of_scan: dict[str, str] = {}
  try:
    with store_path.as_path(path).expanduser().open(newline='') as file:
      rows = csv.DictReader(file)
      for name in ('seriesuid', 'patient'):
        if name not in (rows.fieldnames or ()):
          raise UsageError(f'{path}: the column {name} is missing; add it')
      for row in rows:
        seriesuid, patient = row['seriesuid'], row['patient']
        if not seriesuid or not patient:
          raise UsageError(f'{path}, line {rows.line_num}: a value is missing; add it')
        if patient_of_scan.setdefault(seriesuid, patient) != patient:
          raise UsageError(
            f'{path}, line {rows.line_num}: scan {shown_text(seriesuid)} has two '
            f'patients, {shown_text(patient_of_scan[seriesuid])} and '
            f'{shown_text(patient)}; remove one'
          )
  except (OSError, UnicodeDecodeError, csv.Error) as error:
    raise UsageError(f'{path}: cannot be read: {error}') from error
  return patient_of_scan


def _check_every_scan_has_a_patient(state: _AuditState, path: str) -> None:
  missing = sorted(state.split_of_scan.keys() - state.patient_of_scan.keys())
  if missing:
    more = f' and {len(missing) - 1} more' if len(missing) > 1 else ''
    raise UsageError(
      f'{path}: no row for scan {missing[0]}{more} of the dataset; add the patient'
    )


def _summary(dataset: OpenedDataset, state: _AuditState) -> str:
  records_found = count_text(len(state.record_keys), 'record')
  lines = [f'{dataset.name}: {records_found}, no key twice']
  if not state.split_of_scan:
    lines.append('  scans are unknown: only candidates can be compared')
  for name, split_of in (
    ('scan', state.split_of_scan),
    ('nodule', state.split_of_nodule),
    ('patient', state.split_of_patient),
  ):
    if split_of:
      counts = collections.Counter(split_of.values())
      per_split = ', '.join(f'{split} {counts[split]}' for split in dataset.split_names)
      found = count_text(len(split_of), name)
      lines.append(f'  {found} ({per_split}), none in two splits')
  lines.append(
    '  counts of every shard, class and subset as in the metadata'
    if dataset.metadata.shard_label_counts
    else '  no metadata.json: only the lengths of shards could be compared'
  )
  return '\n'.join(lines)


def _raise_problems(problems: list[str], dataset: OpenedDataset) -> None:
  if problems:
    listed = '; '.join(problems[:_MAX_LISTED_PROBLEMS])
    more = len(problems) - _MAX_LISTED_PROBLEMS
    raise JobError(
      f'{dataset.name} fails the audit: {listed}'
      + (f'; and {more} more' if more > 0 else '')
      + '; extract it again with luna16-extract'
    )
