"""Checks a stored dataset completely, without TensorFlow: files, records and metadata.

lines = verification.verify(dataset_folder)
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
import dataclasses
import pathlib
from typing import TypeVar

import tensorflow_datasets as tfds

from luna_tfds import record_index
from luna_tfds import record_keys
from luna_tfds import records
from luna_tfds import shard_contents
from luna_tfds import splits
from luna_tfds import stored_dataset
from luna_tfds import stored_metadata
from luna_tfds.errors import JobError
from luna_tfds.errors import UsageError
from luna_tfds.files import file_checksums
from luna_tfds.files.store_requests import StoreError
from luna_tfds.text_format import bytes_text
from luna_tfds.text_format import count_text
from luna_tfds.text_format import error_text

_T = TypeVar('_T')

# TFDS's file of the names of the feature `label`.
_LABELS_FILE = 'label.labels.txt'

# Problems that are listed; of the others only the number.
_MAX_LISTED_PROBLEMS = 5

_REPAIR = 'run luna16-extract with the flags of the first run to repair it'


def check_files(folder: pathlib.Path) -> list[str]:
  """Checks the names and the sizes of the files of a dataset, without reading them.

  Args:
    folder: the folder of a version of the dataset.

  Returns:
    The problems found.

  Raises:
    UsageError: the folder contains no dataset, or its metadata are damaged.
  """
  dataset = _read_dataset(folder)
  return _file_problems(dataset)


def verify(
  folder: pathlib.Path, on_shard: Callable[[int, int], None] | None = None
) -> list[str]:
  """Reads every byte of a dataset and compares it with the stored metadata.

  It checks that exactly the shards of the metadata are there; the SHA-256 of each; both
  checksums of each record; the features and the image size of each record; the numbers
  of records, of classes and the subset of each shard; that no key occurs twice; that the
  keys of each shard are those of the plan; and that the record index is correct.

  Args:
    folder: the folder of a version of the dataset.
    on_shard: called first and after each shard with the number of shards done and of
      all shards.

  Returns:
    Lines of text: what was checked.

  Raises:
    UsageError: the folder contains no dataset.
    JobError: the dataset is damaged or contradicts its metadata.
  """
  dataset = _read_dataset(folder)
  problems = _file_problems(dataset)
  state = _KeyState()
  if on_shard:
    on_shard(0, len(dataset.shards))
  for done, shard in enumerate(dataset.shards, start=1):
    problems += _shard_problems(dataset, shard, state)
    if on_shard:
      on_shard(done, len(dataset.shards))
  _raise_problems(problems, folder)
  return _summary(dataset, state)


@dataclasses.dataclass(frozen=True)
class _StoredShard:
  """What the metadata say of a shard; None where an older dataset does not say it.

  Attributes:
    split: its split.
    path: its file.
    num_records: number of records.
    label_counts: number of records of each class.
    subset: subset of all its records.
    sha256: SHA-256 of the file, in hexadecimal digits.
    keys_sha256: SHA-256 of the keys of its records, see `record_keys.keys_sha256`.
    index: the index of its records.
  """

  split: str
  path: pathlib.Path
  num_records: int
  label_counts: list[int] | None
  subset: int | None
  sha256: str | None
  keys_sha256: str | None
  index: record_index.ShardIndex | None


@dataclasses.dataclass(frozen=True)
class _StoredDataset:
  """The metadata of a dataset.

  Attributes:
    folder: folder of the dataset.
    image_shape: shape of an image.
    split_bytes: size of all shards of each split.
    shards: all shards.
  """

  folder: pathlib.Path
  image_shape: tuple[int, ...]
  split_bytes: Mapping[str, int]
  shards: Sequence[_StoredShard]


@dataclasses.dataclass
class _KeyState:
  """The keys of the records read so far, to find those that occur twice.

  Attributes:
    seen: the keys; with the split in front if the scan is unknown.
    num_bytes: size of the shards read so far.
  """

  seen: set[str] = dataclasses.field(default_factory=set)
  num_bytes: int = 0

  def add(self, split: str, keys: Iterable[str]) -> int:
    """Adds the keys of a shard; returns how many were there already."""
    repeated = 0
    for key in keys:
      # The article's lists of two splits may be equal.
      key = f'{split}{key}' if key.startswith('/') else key
      repeated += key in self.seen
      self.seen.add(key)
    return repeated


def _read_dataset(folder: pathlib.Path) -> _StoredDataset:
  try:
    with stored_dataset.metadata_folder(folder) as local:
      _check_no_named_pipe(local)
      info = tfds.builder_from_directory(str(local)).info
    shards = _stored_shards(folder, info, stored_metadata.read(folder))
    image_shape = info.features['image'].shape
  except StoreError:
    raise
  except Exception as error:  # TFDS and protobuf raise errors of many types
    missing = not (folder / stored_dataset.INFO_FILE).is_file()
    if missing:
      problem = 'contains no dataset; extract it with luna16-extract'
    else:
      problem = f'its metadata are damaged: {error_text(error)}; {_REPAIR}'
    raise UsageError(f'{folder}: {problem}') from error
  return _StoredDataset(
    folder=folder,
    image_shape=image_shape,
    split_bytes={name: split.num_bytes for name, split in info.splits.items()},
    shards=shards,
  )


def _check_no_named_pipe(folder: pathlib.Path) -> None:
  """Checks the files that TFDS reads; it would wait forever for the data of a pipe."""
  for name in (stored_dataset.INFO_FILE, stored_dataset.FEATURES_FILE, _LABELS_FILE):
    if (folder / name).is_fifo():
      raise ValueError(f'{name} is a named pipe')


def _stored_shards(
  folder: pathlib.Path,
  info: tfds.core.DatasetInfo,
  metadata: stored_metadata.StoredMetadata,
) -> list[_StoredShard]:
  indexes = record_index.read_record_index(folder)
  shards = []
  for split, split_info in info.splits.items():
    if split not in splits.SPLITS:
      raise ValueError(f'unknown split {split}')
    for index, num_records in enumerate(split_info.shard_lengths):
      name = records.shard_name(split, index, len(split_info.shard_lengths))
      shards.append(
        _StoredShard(
          split=split,
          path=folder / name,
          num_records=num_records,
          label_counts=_of_shard(metadata.shard_label_counts, split, index),
          subset=_of_shard(metadata.shard_subsets, split, index),
          sha256=_of_shard(metadata.shard_sha256, split, index),
          keys_sha256=_of_shard(metadata.shard_keys_sha256, split, index),
          index=_of_shard(indexes, split, index),
        )
      )
  return shards


def _of_shard(
  by_split: Mapping[str, Sequence[_T]], split: str, index: int
) -> _T | None:
  """Returns the entry of a shard in a list of the metadata, None if there is none."""
  values = by_split.get(split, ())
  return values[index] if index < len(values) else None


def _file_problems(dataset: _StoredDataset) -> list[str]:
  problems = [
    *_file_name_problems(dataset),
    *_size_problems(dataset),
    *_label_file_problems(dataset.folder),
  ]
  # Datasets of release 1.0.0 have neither checksums nor an index.
  if any(shard.sha256 and not shard.index for shard in dataset.shards):
    problems.append('record_index.json is missing, or a shard is missing in it')
  return problems


def _file_name_problems(dataset: _StoredDataset) -> list[str]:
  """Compares the shards on disk with those of the metadata."""
  expected = {shard.path.name for shard in dataset.shards}
  # The shards of a split without records are on disk, but not in dataset_info.json.
  found = {p.name for p in dataset.folder.glob('*.tfrecord-*') if p.stat().st_size}
  found |= {shard.path.name for shard in dataset.shards if shard.path.is_file()}
  return [
    *(f'{name} is missing' for name in sorted(expected - found)),
    *(f'{name} is not a shard of the metadata' for name in sorted(found - expected)),
  ]


def _label_file_problems(folder: pathlib.Path) -> list[str]:
  """Checks the names of the classes, without which TFDS numbers the classes only."""
  path = folder / _LABELS_FILE
  try:
    names = path.read_text(encoding='utf-8').splitlines()
  except (OSError, ValueError):
    names = []
  return [] if names == list(records.LABELS) else [f'{path.name} is missing or damaged']


def _size_problems(dataset: _StoredDataset) -> list[str]:
  """Compares the size of each split, which every version of the dataset stores."""
  found = dict.fromkeys(dataset.split_bytes, 0)
  for shard in dataset.shards:
    if shard.path.is_file():
      found[shard.split] += shard.path.stat().st_size
  return [
    f'{split} has {found[split]} bytes, dataset_info.json lists {int(num_bytes)}'
    for split, num_bytes in dataset.split_bytes.items()
    if found[split] != num_bytes
  ]


def _shard_problems(
  dataset: _StoredDataset, shard: _StoredShard, state: _KeyState
) -> list[str]:
  name = shard.path.name
  if not shard.path.is_file():
    return []  # listed already
  state.num_bytes += shard.path.stat().st_size
  try:
    contents = shard_contents.read_shard(shard.path, dataset.image_shape)
    sha256 = file_checksums.file_sha256(shard.path) if shard.sha256 else None
  except (OSError, ValueError) as error:
    return [str(error)]
  problems = []
  if sha256 != shard.sha256:
    problems.append(f'{name}: its SHA-256 is not that of metadata.json')
  if len(contents.keys) != shard.num_records:
    problems.append(
      f'{name} contains {count_text(len(contents.keys), "record")}, dataset_info.json '
      f'lists {shard.num_records}'
    )
  if shard.label_counts not in (None, contents.label_counts):
    problems.append(
      f'{name} contains {contents.label_counts} records of each class, metadata.json '
      f'lists {shard.label_counts}'
    )
  if shard.subset is not None and contents.subsets - {shard.subset}:
    problems.append(
      f'{name} contains records of subsets {sorted(contents.subsets)}, metadata.json '
      f'lists {shard.subset}'
    )
  if shard.keys_sha256 not in (None, record_keys.keys_sha256(contents.keys)):
    problems.append(f'{name}: the keys of its records are not those of the plan')
  if shard.index not in (None, contents.index()):
    problems.append(f'{name}: record_index.json does not describe its records')
  if repeated := state.add(shard.split, contents.keys):
    verb = 'is' if repeated == 1 else 'are'
    problems.append(
      f'{name}: {count_text(repeated, "record")} {verb} stored twice in the dataset'
    )
  return problems


def _summary(dataset: _StoredDataset, state: _KeyState) -> list[str]:
  lines = [
    f'{dataset.folder}: {count_text(len(state.seen), "record")} in '
    f'{count_text(len(dataset.shards), "shard")}, {bytes_text(state.num_bytes)}',
    '  checksums of every record, classes, subsets, no key twice: correct',
  ]
  if all(shard.sha256 and shard.keys_sha256 for shard in dataset.shards):
    lines.append('  SHA-256 of every shard, keys as planned: correct')
  else:
    lines.append(
      '  metadata.json has no SHA-256 of the shards: the dataset was written by release '
      '1.0.0 of this package; extract it again to add them'
    )
  return lines


def _raise_problems(problems: Sequence[str], folder: pathlib.Path) -> None:
  if problems:
    listed = '; '.join(problems[:_MAX_LISTED_PROBLEMS])
    more = len(problems) - _MAX_LISTED_PROBLEMS
    raise JobError(
      f'{folder} is damaged: {listed}'
      + (f'; and {more} more' if more > 0 else '')
      + f'; {_REPAIR}'
    )
