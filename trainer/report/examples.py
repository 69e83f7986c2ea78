"""Which records a report shows."""

from __future__ import annotations

import dataclasses

import numpy as np

from trainer.scoring.scored_records import ScoredRecords

_MAX_RECORDS = 12


@dataclasses.dataclass(frozen=True)
class ExampleGroup:
  """Records of one outcome.

  Attributes:
    name: e.g. 'False negatives'.
    positions: positions in the stored order of the split of the records that are shown;
      the most confident first.
    total: all records of this outcome.
    is_error: whether the prediction is wrong.
  """

  name: str
  positions: tuple[int, ...]
  total: int
  is_error: bool

  @property
  def file_stem(self) -> str:
    """E.g. 'false_negatives'."""
    return self.name.lower().replace(' ', '_')


@dataclasses.dataclass(frozen=True)
class Examples:
  """The records of a report.

  Attributes:
    groups: errors first.
    most_probable: position of the nodule with the highest probability; of the record
      with the highest one if there is no nodule.
  """

  groups: tuple[ExampleGroup, ...]
  most_probable: int

  @property
  def positions(self) -> list[int]:
    """All positions, to read their images at once."""
    shown = [position for group in self.groups for position in group.positions]
    return [*shown, self.most_probable]

  @property
  def has_errors(self) -> bool:
    """Whether a prediction is wrong."""
    return any(group.total for group in self.groups if group.is_error)

  def slot(self, position: int) -> int:
    """Returns where a position stands in `positions`."""
    return self.positions.index(position)

  def slots(self, group: ExampleGroup) -> list[int]:
    """Returns where the positions of a group stand in `positions`."""
    return [self.slot(position) for position in group.positions]


def choose_examples(records: ScoredRecords, predicted: np.ndarray) -> Examples:
  """Chooses the most confident records of each outcome.

  Args:
    records: the scored records.
    predicted: [n] bool, whether a record is predicted to be a nodule. Of the excluded
      findings, which are no errors, only these are shown.
  """
  counted = ~records.excluded
  nodule, other = counted & (records.label == 1), counted & (records.label == 0)
  most_probable = int(np.argmax(np.where(nodule, 1, -1) + records.probability))
  groups = (
    _group('False negatives', nodule & ~predicted, records, is_error=True),
    _group('False positives', other & predicted, records, is_error=True),
    _group('True positives', nodule & predicted, records, is_error=False),
    _group('True negatives', other & ~predicted, records, is_error=False),
    _group(
      'Excluded findings predicted to be nodules',
      records.excluded & predicted,
      records,
      is_error=False,
    ),
  )
  return Examples(groups, most_probable)


def _group(
  name: str, mask: np.ndarray, records: ScoredRecords, *, is_error: bool
) -> ExampleGroup:
  """The records of a mask: of negatives the least probable first."""
  members = np.flatnonzero(mask)
  sign = 1 if name.endswith('negatives') else -1
  order = np.argsort(sign * records.probability[members], kind='stable')
  positions = members[order[:_MAX_RECORDS]]
  return ExampleGroup(name, tuple(positions.tolist()), len(members), is_error)
