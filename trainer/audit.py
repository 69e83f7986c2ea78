"""Proves on the stored records that the splits of a dataset do not leak."""

from __future__ import annotations

import csv
import pathlib
from typing import Any

from luna_tfds.errors import JobError
from luna_tfds.errors import UsageError

_MOST_PROBLEMS = 5


def check_metadata(builder: Any) -> None:
  """Checks the metadata against itself, without reading a record.

  That every shard's length is the sum of its class counts, and that no subset lies in
  two splits. It says nothing of a dataset that has no such metadata.

  Raises:
    JobError: it does not fit.
  """
  from trainer import sources

  problems = _metadata_problems(builder, sources.metadata(builder))
  _fail_if(problems, builder)


def audit(builder: Any, patients: str | None = None) -> str:
  """Reads every record of every split and checks what the splits promise.

  Args:
    builder: of the dataset.
    patients: CSV with the columns seriesuid and patient; None for none.

  Returns:
    What was checked, in lines.

  Raises:
    JobError: a scan, nodule or patient lies in two splits, a record is stored twice, a
      file is damaged, or a count is not the metadata's.
    UsageError: the CSV is wrong.
  """
  from trainer import sources

  patient_of = _read_patients(patients) if patients else {}
  metadata = sources.metadata(builder)
  problems = _metadata_problems(builder, metadata)
  seen: dict[str, dict[Any, str]] = {'scan': {}, 'nodule': {}, 'patient': {}}
  keys: set[tuple[bytes, int]] = set()
  for split in builder.info.splits:
    source = sources.open_source(builder, split)
    for index, piece in enumerate(source.pieces):
      problems += _audit_shard(
        piece.path, split, index, (metadata, builder, seen, keys, patient_of)
      )
  if patients:
    _check_all_have_patients(seen['scan'], patient_of, patients)
  _fail_if(problems, builder)
  return _audit_summary(builder, seen, len(keys), metadata)


def _audit_shard(path: str, split: str, index: int, state: tuple) -> list[str]:
  """Checks one shard and adds what it holds to what was seen."""
  import numpy as np
  import tensorflow as tf

  from luna_tfds import records

  metadata, builder, seen, keys, patient_of = state
  name = pathlib.Path(path).name
  names = ('label', 'seriesuid', 'candidate_id', 'subset', 'nodule_id')
  blocks = []
  try:
    for block in tf.data.TFRecordDataset(path).batch(512):
      blocks.append(records.parse_batch(block, (), names))
  except tf.errors.OpError as error:
    return [f'{name} cannot be read: {error.message.splitlines()[0]}']
  of = {k: np.concatenate([[], *(b[k].numpy() for b in blocks)]) for k in names[:1]}
  of.update({k: np.concatenate([b[k].numpy() for b in blocks]) for k in names[1:]})
  problems = _count_problems(of, name, split, index, metadata, builder)
  before = len(keys)
  own = list(zip(of['seriesuid'].tolist(), of['candidate_id'].tolist()))
  keys.update(own)
  if len(keys) < before + len(own):
    problems.append(f'{name}: {before + len(own) - len(keys)} records are stored twice')
  scans = {s.decode() for s in np.unique(of['seriesuid'].astype(bytes)).tolist() if s}
  holds = {
    'scan': scans,
    'nodule': {int(n) for n in np.unique(of['nodule_id']) if n >= 0},
    'patient': {patient_of[s] for s in scans if s in patient_of},
  }
  for kind, members in holds.items():
    for member in sorted(members):
      other = seen[kind].setdefault(member, split)
      if other != split:
        problems.append(f'{kind} {member} lies in {other} and in {split}')
  return problems


def _count_problems(
  of: dict[str, Any],
  name: str,
  split: str,
  index: int,
  metadata: dict[str, Any],
  builder: Any,
) -> list[str]:
  """Compares what a shard holds with what the metadata says of it."""
  import numpy as np

  problems = []
  lengths = builder.info.splits[split].shard_lengths
  if len(of['label']) != lengths[index]:
    problems.append(
      f'{name} holds {len(of["label"])} records, dataset_info.json says {lengths[index]}'
    )
  counts = np.bincount(of['label'].astype(np.int64), minlength=2).tolist()
  told = metadata.get('shard_label_counts', {}).get(split, [])
  if index < len(told) and counts != list(told[index]):
    problems.append(f'{name} holds {counts} of each class, metadata says {told[index]}')
  subsets = np.unique(of['subset']).tolist()
  told = metadata.get('shard_subsets', {}).get(split, [])
  if index < len(told) and subsets != [told[index]]:
    problems.append(f'{name} holds subsets {subsets}, metadata says {told[index]}')
  return problems


def _metadata_problems(builder: Any, metadata: dict[str, Any]) -> list[str]:
  problems = []
  split_of: dict[int, str] = {}
  counts, subsets = (
    metadata.get(name, {}) for name in ('shard_label_counts', 'shard_subsets')
  )
  for split, info in builder.info.splits.items():
    lengths = list(info.shard_lengths)
    if split in counts and [sum(c) for c in counts[split]] != lengths:
      problems.append(f'class counts of the shards of {split} do not add up to theirs')
    if split in subsets and len(subsets[split]) != len(lengths):
      problems.append(
        f'{split} has {len(lengths)} shards, but subsets of {len(subsets[split])}'
      )
    for subset in sorted({s for s in subsets.get(split, []) if s >= 0}):
      other = split_of.setdefault(subset, split)
      if other != split:
        problems.append(f'subset {subset} lies in {other} and in {split}')
  return problems


def _read_patients(path: str) -> dict[str, str]:
  patient_of: dict[str, str] = {}
  try:
    with open(pathlib.Path(path).expanduser(), newline='') as file:
      rows = csv.DictReader(file)
      for name in ('seriesuid', 'patient'):
        if name not in (rows.fieldnames or ()):
          raise UsageError(f'{path}: no column {name}')
      for row in rows:
        scan, patient = row['seriesuid'], row['patient']
        if not scan or not patient:
          raise UsageError(f'{path}, line {rows.line_num}: a value is missing')
        if patient_of.setdefault(scan, patient) != patient:
          raise UsageError(
            f'{path}, line {rows.line_num}: scan {scan} has two patients, '
            f'{patient_of[scan]} and {patient}'
          )
  except (OSError, UnicodeDecodeError, csv.Error) as error:
    raise UsageError(f'{path}: cannot be read: {error}') from error
  return patient_of


def _check_all_have_patients(
  scans: dict[str, str], patient_of: dict[str, str], path: str
) -> None:
  missing = sorted(scans.keys() - patient_of.keys())
  if missing:
    more = f' and {len(missing) - 1} more' if len(missing) > 1 else ''
    raise UsageError(f'{path}: no row for scan {missing[0]}{more} of the dataset')


def _audit_summary(
  builder: Any,
  seen: dict[str, dict[Any, str]],
  count: int,
  metadata: dict[str, Any],
) -> str:
  lines = [f'{builder.info.full_name}: {count} records, no key twice']
  if not seen['scan']:
    lines.append('  scans unknown: only candidates can be compared')
  for kind, members in seen.items():
    if members:
      per_split = ', '.join(
        f'{split} {list(members.values()).count(split)}'
        for split in builder.info.splits
      )
      lines.append(f'  {kind}s: {len(members)} ({per_split}), none in two splits')
  lines.append(
    '  counts of every shard, class and subset as in the metadata'
    if metadata.get('shard_label_counts')
    else '  no metadata.json: only lengths of shards could be compared'
  )
  return '\n'.join(lines)


def _fail_if(problems: list[str], builder: Any) -> None:
  if problems:
    shown = '; '.join(problems[:_MOST_PROBLEMS])
    more = len(problems) - _MOST_PROBLEMS
    raise JobError(
      f'{builder.info.full_name} fails the audit: {shown}'
      + (f'; and {more} more' if more > 0 else '')
      + '; extract it again with luna16-extract'
    )
