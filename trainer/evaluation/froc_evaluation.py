"""The FROC curve of scored records, by the protocol of LUNA16.

The sensitivity is a fraction of nodules, and the records know only those that a
candidate hits. With annotations.csv all nodules of the scans are counted, as LUNA16
does.
"""

from __future__ import annotations

from collections.abc import Sequence
import dataclasses
import pathlib

import numpy as np

from luna_tfds import records as records_lib
from luna_tfds import tables
from luna_tfds.errors import UsageError
from luna_tfds.text_format import count_text
from model.metrics import froc_matching
from model.metrics.resampling import Resampling
from model.metrics.resampling import ScanIndex
from trainer.data.dataset import OpenedDataset
from trainer.data.split_source import SplitSource
from trainer.scoring import froc_submission
from trainer.scoring.froc_submission import FrocReference
from trainer.scoring.froc_submission import FrocResult
from trainer.scoring.scored_records import ScoredRecords


def evaluate_froc(
  records: ScoredRecords,
  reference: FrocReference | None,
  resampling: Resampling,
  warnings: Sequence[str] = (),
) -> FrocResult | None:
  """Scores the records of whole scans as the marks of a detector.

  Args:
    records: the scored records.
    reference: the annotations; None for the nodules that the records hit. Without a list
      of scans, those with a record are scored.
    resampling: how the confidence band is computed.
    warnings: warnings about the dataset or the split, which the result repeats.

  Returns:
    The curve; None if scans are unknown, or there is no nodule in them.

  Raises:
    UsageError: the list of scans names none of the scored ones.
  """
  if not records.scans_known:
    return None
  if reference is None:
    return _of_reached_nodules(records, resampling, warnings)
  scored = set(records.seriesuid.tolist())
  listed = scored if reference.seriesuids is None else set(reference.seriesuids)
  if not scored & listed:
    raise UsageError('--seriesuids: lists none of the scored scans; give their list')
  if not listed & set(reference.nodules.seriesuids.tolist()):
    return None
  marks = tables.PointTable(
    seriesuids=records.seriesuid.astype(object),
    xyz_mm=records.center_xyz_mm,
    values=records.probability,
    rows=np.arange(len(records)),
    value_column='probability',
  )
  result = froc_submission.score_submission(marks, reference, resampling)
  return dataclasses.replace(result, warnings=(*warnings, *result.warnings))


def missing_negatives_warnings(dataset: OpenedDataset, flag: str) -> list[str]:
  """Warns if the config of the dataset leaves candidates out.

  Args:
    dataset: the scored dataset.
    flag: the flag that names another dataset.
  """
  if dataset.holds_all_candidates:
    return []
  return [
    f'{dataset.name} holds only a part of the negatives: the false positives per scan '
    "are too low for LUNA16's protocol; test on all candidates, e.g. with "
    f'{flag}=luna16_patches/axial_50px_all'
  ]


def cut_shards_warnings(dataset: OpenedDataset, source: SplitSource) -> list[str]:
  """Warns if the split leaves out a part of a shard, and so candidates of its scans."""
  taken: dict[tuple[str, int], int] = {}
  for item in source.slices:
    shard = records_lib.parse_shard_name(pathlib.Path(item.path).name)
    taken[shard] = taken.get(shard, 0) + item.take
  if all(n == dataset.shard_lengths(split)[k] for (split, k), n in taken.items()):
    return []
  return [
    f'the split {source.split} leaves out candidates of its scans: the false positives '
    'per scan are too low; score whole shards, e.g. test[:1shard]'
  ]


def describe_nodules(result: FrocResult) -> str:
  """Returns a sentence on which nodules the sensitivity is a share of."""
  counts = result.counts
  scans = count_text(counts.scans, 'scan')
  if result.nodules_counted == froc_submission.ANNOTATED:
    missed = counts.nodules - counts.nodules_reachable
    return (
      f'The sensitivity is a share of all {count_text(counts.nodules, "nodule")} that '
      f'are annotated in the {scans}, of which {missed} are reached by no candidate.'
    )
  return (
    f'The sensitivity is a share of the {count_text(counts.nodules, "nodule")} that a '
    f'candidate reaches in the {scans} with a record. Nodules that no candidate reaches '
    'are not in the dataset, so it can be higher than by the protocol of LUNA16; with '
    '--luna_dir or --annotations all nodules are counted.'
  )


def _of_reached_nodules(
  records: ScoredRecords, resampling: Resampling, warnings: Sequence[str]
) -> FrocResult | None:
  if not np.any(records.nodule_id >= 0):
    return None
  scans = ScanIndex.from_ids(records.seriesuid)
  matched = froc_matching.match_candidates(
    froc_matching.MatchedCandidates(
      scans.of_record, records.probability, records.nodule_id, records.excluded
    ),
    scans.num_scans,
  )
  unmatched = int(np.sum((records.label == 1) & (records.nodule_id < 0)))
  if unmatched:
    warnings = [
      *warnings,
      f'{count_text(unmatched, "record")} of the class nodule hit no annotated nodule; '
      'by the protocol of LUNA16 they are false positives',
    ]
  return froc_submission.make_result(
    matched, froc_submission.REACHED, warnings, resampling
  )
