"""Which scored records a run has seen: in training, or where its threshold was chosen.

Records are compared by their scan, so that they are found in another dataset of the same
scans too. Patches of one scan resemble each other: a record of a scan that was trained on
is no test, whether or not that very record was in the training split.
"""

from __future__ import annotations

from collections.abc import Sequence
import dataclasses

import numpy as np

from luna_tfds.errors import UsageError
from luna_tfds.text_format import count_text
from trainer.data import dataset as dataset_lib
from trainer.data import shared_scans
from trainer.data.dataset import OpenedDataset
from trainer.data.split_source import SplitSource
from trainer.evaluation.trained_run import TrainedRun
from trainer.scoring.scored_records import ScoredRecords


@dataclasses.dataclass(frozen=True)
class ScoredSource:
  """Scored records and where they were read.

  Attributes:
    dataset: the dataset.
    source: the split.
    records: scored records of the split, in stored order.
  """

  dataset: OpenedDataset
  source: SplitSource
  records: ScoredRecords


def num_trained_on(runs: Sequence[TrainedRun], scored: ScoredSource) -> int | None:
  """Counts the scored records of scans that a run was trained on.

  Where scans are unknown, as in the article's patches, the records themselves are
  compared.

  Args:
    runs: one, or the members of an ensemble.
    scored: the records.

  Returns:
    How many; None if it cannot be told, because the dataset of a run is not there any
    more, or because it is another one and its scans are unknown.
  """
  seen = np.zeros(len(scored.records), bool)
  for run in runs:
    of_run = records_in_split(run, run.config.train_split, scored)
    if of_run is None:
      return None
    seen |= of_run
  return int(seen.sum())


def selection_warnings(
  num_records: int, trained_on: int | None, *, calibrated: bool = False
) -> list[str]:
  """Warns if a threshold was chosen on records that training saw.

  Args:
    num_records: number of records that the threshold was chosen on.
    trained_on: how many of them are of scans that were trained on; None if unknown.
    calibrated: whether probabilities were calibrated on the records too.
  """
  chosen = 'the threshold was chosen'
  if calibrated:
    chosen += ' and the probabilities were calibrated'
  if trained_on is None:
    return [
      f'{chosen} on {count_text(num_records, "record")}; whether these are of scans that '
      'were trained on is not known: the dataset of a training is not there any more, or '
      'its scans are unknown'
    ]
  if not trained_on:
    return []
  return [
    f'{chosen} on {count_text(num_records, "record")}, of which {trained_on} are of scans '
    'that were trained on: on new scans another threshold may be better'
  ]


def records_in_split(
  run: TrainedRun, split: str, scored: ScoredSource
) -> np.ndarray | None:
  """Returns which scored records are of scans in a split of the dataset of a run.

  Args:
    run: whose dataset it is.
    split: TFDS split string.
    scored: the records.

  Returns:
    [n] bool; None if it cannot be told, see `num_trained_on`.
  """
  fingerprint = run.dataset_fingerprint
  same = bool(fingerprint) and fingerprint == scored.source.fingerprint
  try:
    dataset = scored.dataset if same else _dataset_of(run)
    source = dataset.open_split(split)
  except UsageError:
    return None
  if dataset.metadata.fingerprint != fingerprint:
    return None
  same = same or dataset.folder == scored.dataset.folder
  return records_shared_with(dataset, source, scored, same_dataset=same)


def records_shared_with(
  dataset: OpenedDataset,
  source: SplitSource,
  scored: ScoredSource,
  *,
  same_dataset: bool,
) -> np.ndarray | None:
  """Returns which scored records are of scans in a split of a dataset.

  Args:
    dataset: the dataset of the split.
    source: the split.
    scored: the records.
    same_dataset: whether the scored records were read from that dataset. Then only the
      shards of their subsets are read, because no scan is in two subsets.

  Returns:
    [n] bool; None if scans are unknown in one of two datasets.
  """
  records = scored.records
  if not records.scans_known and not same_dataset:
    return None
  shared = np.zeros(len(records), bool)
  if same_dataset:
    shared = source.shared_positions(scored.source)
    source = dataset.in_subsets(source, np.unique(records.subset).tolist())
  uids = shared_scans.read_seriesuids(source)
  if '' in uids and not same_dataset:
    return None
  result: np.ndarray = shared | np.isin(records.seriesuid, sorted(uids - {''}))
  return result


def _dataset_of(run: TrainedRun) -> OpenedDataset:
  return dataset_lib.open_dataset(run.config.data_dir, run.config.dataset)
