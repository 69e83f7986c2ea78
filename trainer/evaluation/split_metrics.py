"""All metrics of scored records, with intervals and by subgroups."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from luna_tfds import patches
from luna_tfds.text_format import count_text
from model.metrics import bootstrap
from model.metrics import resampling as resampling_lib
from model.metrics import thresholds
from model.metrics.classification import ClassificationMetrics
from model.metrics.classification import classification_metrics
from model.metrics.resampling import FEW_SCANS
from model.metrics.resampling import Interval
from model.metrics.resampling import Resampling
from model.metrics.threshold_rule import ThresholdRule
from trainer.article_baseline import ARTICLE
from trainer.evaluation import subgroups
from trainer.evaluation.subgroups import DiameterRow
from trainer.evaluation.subgroups import GroupRow
from trainer.scoring.scored_records import ScoredRecords

# The article's precision and specificity, and some values of the recall.
_TARGETS = (
  ThresholdRule('precision', ARTICLE['precision']),
  ThresholdRule('specificity', ARTICLE['specificity']),
  ThresholdRule('recall', 0.8),
  ThresholdRule('recall', 0.9),
  ThresholdRule('recall', 0.95),
  ThresholdRule('recall', 0.99),
)


@dataclasses.dataclass(frozen=True)
class TargetRow:
  """The rates at a threshold that just reaches a target.

  Attributes:
    target: e.g. 'recall >= 0.9'.
    result: threshold and rates, of the records the threshold was chosen on.
    intervals: confidence intervals of the rates at this threshold, by name; empty
      without resamples.
  """

  target: str
  result: thresholds.RatesAtThreshold
  intervals: dict[str, Interval]

  def to_json(self) -> dict[str, Any]:
    """Returns the row as in metrics.json."""
    return {
      'target': self.target,
      **self.result.to_json(),
      **resampling_lib.intervals_to_json(self.intervals),
    }


@dataclasses.dataclass(frozen=True)
class AllCandidates:
  """The metrics if excluded findings count as non-nodules, as in the article.

  Attributes:
    classification: metrics of all records.
    intervals: confidence intervals of `classification`, by name; empty without resamples.
  """

  classification: ClassificationMetrics
  intervals: dict[str, Interval]

  def to_json(self) -> dict[str, Any]:
    """Returns metrics and intervals as in metrics.json."""
    return {
      **self.classification.to_json(),
      **resampling_lib.intervals_to_json(self.intervals),
    }


@dataclasses.dataclass(frozen=True)
class SplitMetrics:
  """The metrics of scored records.

  A record that hits an excluded finding is neither a nodule nor a true negative. It counts
  in `all_candidates` only.

  Attributes:
    classification: metrics of the records without excluded findings.
    all_candidates: the same with excluded findings.
    scans: number of scans of the records that count; None if unknown.
    targets: the rates at thresholds that reach targets.
    intervals: confidence intervals of `classification`, by name; empty without resamples.
    resampling: how intervals were computed: by resampling scans, or records where scans
      are unknown.
    by_diameter: rows by the diameter of the nodule.
    by_subset: rows by LUNA16's subset.
    by_slice_thickness: rows by the distance between slices.
  """

  classification: ClassificationMetrics
  all_candidates: AllCandidates
  scans: int | None
  targets: tuple[TargetRow, ...]
  intervals: dict[str, Interval]
  resampling: Resampling
  by_diameter: tuple[DiameterRow, ...]
  by_subset: tuple[GroupRow, ...]
  by_slice_thickness: tuple[GroupRow, ...]

  @property
  def num_excluded(self) -> int:
    """Records that hit an excluded finding."""
    return self.all_candidates.classification.records - self.classification.records

  @property
  def resampled_unit(self) -> str:
    """What is drawn: 'scans' or 'records'."""
    return resampled_unit(self.scans)

  @property
  def warnings(self) -> list[str]:
    """What a reader of the intervals should know; each is one line."""
    has_intervals = self.intervals and self.classification.records
    return few_scans_warnings(self.scans) if has_intervals else []

  def to_json(self) -> dict[str, Any]:
    """Returns what metrics.json holds of it; tables without rows are left out."""
    fields: dict[str, Any] = {
      **self.classification.to_json(),
      'scans': self.scans,
      'excluded_records': self.num_excluded,
      'all_candidates': self.all_candidates.to_json(),
      'operating_points': [row.to_json() for row in self.targets],
    }
    if self.intervals:
      fields |= {
        **resampling_lib.intervals_to_json(self.intervals),
        'bootstrap': self.resampling.to_json(self.resampled_unit),
      }
    for name in ('by_diameter', 'by_subset', 'by_slice_thickness'):
      if rows := getattr(self, name):
        fields[name] = [row.to_json() for row in rows]
    return fields


def resampled_unit(scans: int | None) -> str:
  """Returns what resampling draws: scans, or records if the scans are unknown (None)."""
  return 'records' if scans is None else 'scans'


def few_scans_warnings(scans: int | None) -> list[str]:
  """Warns if intervals are computed from few scans.

  Args:
    scans: number of scans that were resampled; None if unknown.
  """
  if scans is None or scans >= FEW_SCANS:
    return []
  return [
    f'the intervals are computed from {count_text(scans, "scan")} only: with so few they '
    'are too narrow'
  ]


def only_excluded_warnings(records: ScoredRecords) -> list[str]:
  """Warns if no record counts, so that all metrics are undefined."""
  if not len(records) or not records.excluded.all():
    return []
  undefined = 'the metrics without excluded findings are undefined'
  if len(records) == 1:
    return [f'the record hits an excluded finding: {undefined}']
  return [f'all {len(records)} records hit excluded findings: {undefined}']


def compute(
  records: ScoredRecords,
  predicted: np.ndarray,
  patch: patches.PatchSpec | None,
  resampling: Resampling,
) -> SplitMetrics:
  """Computes all metrics of scored records.

  Args:
    records: with their probabilities, excluded findings included.
    predicted: [n] bool, whether a record is predicted to be a nodule.
    patch: how the patches were cut; None if unknown.
    resampling: how the intervals are computed.
  """
  all_candidates = AllCandidates(
    *_metrics_and_intervals(records, predicted, resampling)
  )
  classification, intervals = all_candidates.classification, all_candidates.intervals
  if records.excluded.any():
    predicted, records = predicted[~records.excluded], records.without_excluded
    classification, intervals = _metrics_and_intervals(records, predicted, resampling)
  by_slice_thickness: list[GroupRow] = []
  # Images that were resampled have the spacing of the config, whatever the scan's.
  if patch is None or patch.spacing_mm is None:
    by_slice_thickness = subgroups.by_slice_thickness(records, predicted, resampling)
  return SplitMetrics(
    classification=classification,
    all_candidates=all_candidates,
    scans=records.num_scans,
    targets=_target_rows(records, resampling),
    intervals=intervals,
    resampling=resampling,
    by_diameter=tuple(subgroups.by_diameter(records, predicted, resampling)),
    by_subset=tuple(subgroups.by_subset(records, predicted, resampling)),
    by_slice_thickness=tuple(by_slice_thickness),
  )


def _metrics_and_intervals(
  records: ScoredRecords, predicted: np.ndarray, resampling: Resampling
) -> tuple[ClassificationMetrics, dict[str, Interval]]:
  some = records.label, records.probability, predicted
  intervals = {}
  if resampling.resamples:
    intervals = bootstrap.metric_intervals(*some, records.groups, resampling)
  return classification_metrics(*some), intervals


def _target_rows(
  records: ScoredRecords, resampling: Resampling
) -> tuple[TargetRow, ...]:
  if not records.has_both_classes:
    return ()
  rows = []
  for rule in _TARGETS:
    result = thresholds.rates_at_target(records.label, records.probability, rule)
    intervals = {}
    if resampling.resamples:
      intervals = bootstrap.rate_intervals(
        records.label,
        records.probability >= result.threshold,
        records.groups,
        resampling,
      )
    rows.append(TargetRow(f'{rule.name} >= {rule.value}', result, intervals))
  return tuple(rows)
