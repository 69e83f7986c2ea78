"""history.csv: the metrics of each epoch of a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import csv
import dataclasses
import pathlib

from luna_tfds.errors import UsageError
from luna_tfds.files import atomic_files

# Stands for a metric that an epoch does not have; Keras's CSVLogger wrote it too.
_NOT_AVAILABLE = 'NA'


@dataclasses.dataclass(frozen=True)
class History:
  """The file of a run's metrics, a row for each epoch.

  Attributes:
    path: the file; missing before the first epoch ends.
  """

  path: pathlib.Path

  def read(self) -> list[dict[str, float]]:
    """Returns the rows of history.csv; empty before the first epoch.

    Metrics that an epoch does not have, as those of validation in a run without, are
    left out of its row.

    Raises:
      UsageError: the file is damaged.
    """
    return [
      {name: float(text) for name, text in row.items() if text != _NOT_AVAILABLE}
      for row in self._rows()
    ]

  def _rows(self) -> list[dict[str, str]]:
    if not self.path.is_file():
      return []
    rows = []
    try:
      with self.path.open(newline='', encoding='utf-8') as file:
        for row in csv.DictReader(file):
          int(row['epoch'])
          for text in row.values():
            if text != _NOT_AVAILABLE:
              float(text)
          rows.append(row)
    except (KeyError, TypeError, ValueError, csv.Error) as error:
      raise UsageError(
        f'{self.path}, row {len(rows)} (from 0) is not a row of numbers; restore the '
        'file, or delete it to continue without the metrics of earlier epochs'
      ) from error
    return rows

  def truncate(self, epochs: int) -> None:
    """Removes the rows of epochs that are not in the last checkpoint.

    Args:
      epochs: number of epochs that the checkpoint holds.

    Raises:
      UsageError: the file is damaged.
    """
    rows = [row for row in self._rows() if int(row['epoch']) < epochs]
    if rows:
      self._write(rows)
    else:
      self.path.unlink(missing_ok=True)

  def append(self, epoch: int, metrics: Mapping[str, float]) -> None:
    """Adds the row of an epoch.

    The whole file is replaced: a row that was only appended could be lost in a power
    failure, although the checkpoint of its epoch is kept.

    Args:
      epoch: number of the epoch, from 0.
      metrics: the metrics of the epoch by name; a metric that only other rows have is NA.
    """
    row = {'epoch': str(epoch), **{k: str(metrics[k]) for k in sorted(metrics)}}
    self._write([*self._rows(), row])

  def _write(self, rows: Sequence[Mapping[str, str]]) -> None:
    names = dict.fromkeys(name for row in rows for name in row)
    with atomic_files.atomic_text(self.path) as file:
      writer = csv.DictWriter(file, list(names), restval=_NOT_AVAILABLE)
      writer.writeheader()
      writer.writerows(rows)
