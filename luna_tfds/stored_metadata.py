"""What the extraction stored in metadata.json, beside the shards of a dataset."""

from __future__ import annotations

from collections.abc import Mapping
import dataclasses
import pathlib
from typing import Any

from luna_tfds import dataclass_json
from luna_tfds import patches
from luna_tfds import splits
from luna_tfds.files import atomic_files

METADATA_FILE = 'metadata.json'


@dataclasses.dataclass(frozen=True)
class StoredSelection:
  """Which candidates the dataset holds.

  Attributes:
    candidate_list: the candidate list of LUNA16, `V1` or `V2`.
    negatives_per_positive: non-nodules for each nodule; None for all candidates.
    seed: seed of the selection of non-nodules.
  """

  candidate_list: str
  negatives_per_positive: int | None
  seed: int


@dataclasses.dataclass(frozen=True)
class StoredMetadata:
  """The content of metadata.json, as far as it is read; empty where it has none.

  Attributes:
    fingerprint: fingerprint of the plan.
    patch: how the patches were cut; None if this project did not cut them.
    selection: which candidates were selected; None if this project did not select them,
      and for datasets written by release 1.0.0 of this package.
    shard_subsets: LUNA16's subset of each shard, by split.
    shard_label_counts: records of non-nodules and of nodules of each shard, by split.
    shard_sha256: SHA-256 of the file of each shard, in hexadecimal digits, by split.
    shard_keys_sha256: SHA-256 of the record keys of each shard, see
      `record_keys.keys_sha256`; by split.
  """

  fingerprint: str = ''
  patch: patches.PatchSpec | None = None
  selection: StoredSelection | None = None
  shard_subsets: dict[str, list[int]] = dataclasses.field(default_factory=dict)
  shard_label_counts: dict[str, list[list[int]]] = dataclasses.field(
    default_factory=dict
  )
  shard_sha256: dict[str, list[str]] = dataclasses.field(default_factory=dict)
  shard_keys_sha256: dict[str, list[str]] = dataclasses.field(default_factory=dict)

  def __post_init__(self) -> None:
    subsets = {
      subset for of_split in self.shard_subsets.values() for subset in of_split
    }
    if not subsets <= set(range(-1, splits.NUM_SUBSETS)):
      raise ValueError(f'shard_subsets must be -1..9. Received: {sorted(subsets)[:5]}')
    for of_split in self.shard_label_counts.values():
      if not all(len(counts) == 2 and min(counts) >= 0 for counts in of_split):
        raise ValueError('shard_label_counts must have two counts for each shard')

  @classmethod
  def from_json(cls, fields: Mapping[str, Any]) -> StoredMetadata:
    """Takes what is known of the fields of metadata.json.

    Raises:
      AttributeError, KeyError, TypeError, ValueError: they are not those of such a file.
    """
    names = [field.name for field in dataclasses.fields(cls)]
    known = {name: value for name, value in fields.items() if name in names}
    # The article's patches have no fields.
    if patch := known.pop('patch', None):
      known['patch'] = patches.PatchSpec.from_json(patch)
    if selection := known.pop('selection', None):
      known['selection'] = dataclass_json.make(StoredSelection, selection)
    return dataclass_json.make(cls, known)


def read(folder: pathlib.Path) -> StoredMetadata:
  """Reads metadata.json.

  Args:
    folder: the folder of a version of the dataset.

  Raises:
    OSError: the file cannot be read.
    AttributeError, KeyError, TypeError, ValueError: the file is damaged.
  """
  return StoredMetadata.from_json(read_fields(folder))


def read_fields(folder: pathlib.Path) -> Any:
  """Reads the JSON values of metadata.json, and does not check them.

  Args:
    folder: the folder of a version of the dataset.

  Raises:
    OSError: the file cannot be read.
    ValueError: the file is not JSON.
  """
  return atomic_files.read_json(folder / METADATA_FILE)
