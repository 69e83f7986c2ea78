"""What a worker returns for a shard."""

from __future__ import annotations

import dataclasses
from typing import Any

from beam_jobs import input_state
from luna_tfds import dataclass_json
from luna_tfds import record_index


@dataclasses.dataclass(frozen=True)
class FailedScan:
  """A scan that could not be read; `reason` is one line."""

  seriesuid: str
  candidates_lost: int
  reason: str


@dataclasses.dataclass
class ShardStats:
  """Counts of one shard.

  Attributes:
    label_counts: number of non-nodule records and of nodule records.
    scans_read: scans opened and read.
    bytes_read: bytes of voxels read; regions that overlap are counted each.
    patches_padded: records of which a part is outside the scan.
    candidates_outside: records whose centre is outside the scan.
    failed: the scans that could not be read.
  """

  label_counts: list[int] = dataclasses.field(default_factory=lambda: [0, 0])
  scans_read: int = 0
  bytes_read: int = 0
  patches_padded: int = 0
  candidates_outside: int = 0
  failed: list[FailedScan] = dataclasses.field(default_factory=list)


@dataclasses.dataclass(frozen=True)
class ShardResult:
  """The result of writing a shard.

  Attributes:
    split: 'train', 'validation' or 'test'.
    index: number of the shard in its split.
    subset: subset of all its scans; -1 if unknown.
    fingerprint: fingerprint of the shard.
    num_records: number of records written.
    num_bytes: size of the file.
    stats: counts.
    sha256: SHA-256 of the file, in hexadecimal digits.
    record_index: where its records start, and which are nodules.
    inputs: the input of each task before it was read.
    etag: ETag of the file in a store; '' on a disk, or if the store has none.
  """

  split: str
  index: int
  subset: int
  fingerprint: str
  num_records: int
  num_bytes: int
  stats: ShardStats
  sha256: str
  record_index: record_index.ShardIndex
  inputs: tuple[input_state.TaskInputs, ...] = ()
  etag: str = ''

  @property
  def failed_scans(self) -> frozenset[str]:
    """The seriesuids of the scans that could not be read."""
    return frozenset(scan.seriesuid for scan in self.stats.failed)

  def to_json(self) -> dict[str, Any]:
    """Returns the result as JSON values."""
    fields = dataclasses.asdict(self)
    for item in [
      fields,
      *(file for task in fields['inputs'] for file in task['files']),
    ]:
      if not item['etag']:
        del item['etag']
    return fields

  @classmethod
  def from_json(cls, fields: dict[str, Any]) -> ShardResult:
    """Restores a result from the output of `to_json`.

    Raises:
      KeyError, TypeError, ValueError: it is not the output of `to_json` of this version.
    """
    stats = dict(fields['stats'])
    failed = [dataclass_json.make(FailedScan, scan) for scan in stats['failed']]
    return dataclass_json.make(
      cls,
      {
        **fields,
        'stats': dataclass_json.make(ShardStats, {**stats, 'failed': failed}),
        'record_index': record_index.ShardIndex.from_json(fields['record_index']),
        'inputs': tuple(map(input_state.TaskInputs.from_json, fields['inputs'])),
      },
    )
