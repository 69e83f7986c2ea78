"""The record index: where records start in each shard, and which of them are nodules.

The extraction stores it beside the shards, in `record_index.json`. A reader can then
draw records of a class, and start to read in the middle of a shard, without reading
everything once before.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import dataclasses
import itertools
import json
import pathlib
from typing import Any

from luna_tfds import dataclass_json
from luna_tfds import tfrecord
from luna_tfds.files import atomic_files

RECORD_INDEX = 'record_index.json'

# The byte offset of every 64th record is stored: few enough for a small file, and close
# enough that reading can start near any record.
RECORDS_PER_OFFSET = 64


@dataclasses.dataclass(frozen=True)
class ShardIndex:
  """The index of one shard; records are numbered from 0 in the order of the file.

  Attributes:
    num_records: number of records.
    nodules: the records of class nodule, ascending.
    excluded: the records whose feature `excluded` is true, ascending.
    offsets: byte offset in the file of record 0, 64, 128, ...
  """

  num_records: int
  nodules: tuple[int, ...]
  excluded: tuple[int, ...]
  offsets: tuple[int, ...]

  def __post_init__(self) -> None:
    for numbers in (self.nodules, self.excluded):
      ascending = all(a < b for a, b in itertools.pairwise(numbers))
      if not ascending or (
        numbers and not 0 <= numbers[0] <= numbers[-1] < self.num_records
      ):
        raise ValueError(
          f'records must ascend within 0..{self.num_records - 1}. Received: {numbers}'
        )
    if not all(a < b for a, b in itertools.pairwise((-1, *self.offsets))):
      raise ValueError(f'offsets must ascend from 0. Received: {self.offsets}')
    if len(self.offsets) != -(-self.num_records // RECORDS_PER_OFFSET):
      raise ValueError(
        f'{self.num_records} records need one offset for each {RECORDS_PER_OFFSET}. '
        f'Received: {len(self.offsets)}'
      )

  @classmethod
  def from_records(
    cls, labels: Sequence[int], excluded: Sequence[bool], num_bytes: Sequence[int]
  ) -> ShardIndex:
    """Makes the index of a shard from its records, in the order of the file.

    Args:
      labels: 1 for a nodule, 0 for anything else.
      excluded: the feature `excluded`.
      num_bytes: size of each serialised record.
    """
    sizes = (size + tfrecord.TFRECORD_OVERHEAD_BYTES for size in num_bytes)
    starts = [0, *itertools.accumulate(sizes)][:-1]
    return cls(
      num_records=len(labels),
      nodules=tuple(i for i, label in enumerate(labels) if label),
      excluded=tuple(i for i, is_excluded in enumerate(excluded) if is_excluded),
      offsets=tuple(starts[::RECORDS_PER_OFFSET]),
    )

  @classmethod
  def from_json(cls, fields: Mapping[str, Any]) -> ShardIndex:
    """Restores an index from `dataclasses.asdict` of one.

    Raises:
      KeyError, TypeError, ValueError: the values are not those of an index.
    """
    tuples = {name: tuple(fields[name]) for name in ('nodules', 'excluded', 'offsets')}
    return dataclass_json.make(cls, {**fields, **tuples})


def write_record_index(
  folder: pathlib.Path, by_split: Mapping[str, Sequence[ShardIndex]]
) -> None:
  """Writes the index of a dataset beside its shards.

  Args:
    folder: the folder of a version of the dataset.
    by_split: the index of each shard, by split.
  """
  content = {
    split: [dataclasses.asdict(index) for index in indexes]
    for split, indexes in by_split.items()
  }
  # Not indented, as each number would take a line.
  atomic_files.write_text(folder / RECORD_INDEX, json.dumps(content) + '\n')


def read_record_index(folder: pathlib.Path) -> dict[str, tuple[ShardIndex, ...]]:
  """Reads the index of a dataset.

  Args:
    folder: the folder of a version of the dataset.

  Returns:
    The index of each shard, by split; empty for a dataset of release 1.0.0, which has
    none.

  Raises:
    OSError: the file cannot be read.
    AttributeError, KeyError, TypeError, ValueError: the file is damaged.
  """
  path = folder / RECORD_INDEX
  if not path.is_file():
    return {}
  return {
    split: tuple(map(ShardIndex.from_json, indexes))
    for split, indexes in atomic_files.read_json(path).items()
  }
