"""Metrics of a binary classifier from labels, probabilities and predictions.

A metric that is undefined, such as the recall without a nodule, is NaN. JSON has no NaN:
whoever writes it replaces NaN by null.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from sklearn import metrics as sklearn_metrics

CALIBRATION_BINS = 15

# For axes and narrow columns.
METRIC_LABELS = {
  'accuracy': 'accuracy',
  'precision': 'precision',
  'recall': 'recall',
  'specificity': 'specificity',
  'f1': 'F1',
  'roc_auc': 'ROC AUC',
  'pr_auc': 'PR AUC',
  'brier': 'Brier score',
  'ece': 'ECE',
}

# Where there is room for a second name.
LONG_METRIC_LABELS = {
  **METRIC_LABELS,
  'recall': 'recall (sensitivity)',
  'ece': 'calibration error (ECE)',
}


@dataclasses.dataclass(frozen=True)
class Rates:
  """Metrics of the confusion matrix; NaN where undefined."""

  accuracy: float
  precision: float
  recall: float
  specificity: float
  f1: float

  def value(self, name: str) -> float:
    """Returns a metric by its name.

    Raises:
      KeyError: there is no metric of this name.
    """
    if name not in METRIC_LABELS or not hasattr(self, name):
      raise KeyError(name)
    return float(getattr(self, name))

  def to_json(self) -> dict[str, Any]:
    """Returns the metrics by name."""
    return dataclasses.asdict(self)


@dataclasses.dataclass(frozen=True)
class Metrics(Rates):
  """All metrics; NaN where undefined.

  Attributes:
    roc_auc: area under the ROC curve.
    pr_auc: average precision, the area under the precision-recall curve.
    brier: Brier score, the mean squared error of the probabilities.
    ece: expected calibration error.
  """

  roc_auc: float
  pr_auc: float
  brier: float
  ece: float


RATES = tuple(field.name for field in dataclasses.fields(Rates))
METRICS = tuple(field.name for field in dataclasses.fields(Metrics))


@dataclasses.dataclass(frozen=True)
class ConfusionMatrix:
  """Counts of records by true class and predicted class; nodules are positive."""

  true_positives: int
  false_positives: int
  false_negatives: int
  true_negatives: int

  @classmethod
  def from_predictions(
    cls, labels: np.ndarray, predicted: np.ndarray
  ) -> ConfusionMatrix:
    """Counts the records of each outcome.

    Args:
      labels: [n] true class, 1 for nodules.
      predicted: [n] bool, whether the classifier predicts a nodule.
    """
    in_one_group = np.zeros(len(labels), np.int64)
    return cls(*confusion_counts(labels, predicted, in_one_group, 1)[0].tolist())

  def rates(self) -> Rates:
    """Returns the metrics of these counts."""
    rates = rates_of_counts(np.array(dataclasses.astuple(self)))
    return Rates(**{name: float(rate) for name, rate in rates.items()})


@dataclasses.dataclass(frozen=True)
class ClassificationMetrics(Metrics):
  """All metrics of a set of records, with the counts.

  Attributes:
    records: number of records.
    nodules: number of records with label 1.
    confusion_matrix: confusion matrix of these records.
  """

  records: int
  nodules: int
  confusion_matrix: ConfusionMatrix

  def to_json(self) -> dict[str, Any]:
    """Returns the number of records and nodules, the metrics, the confusion matrix."""
    return {
      'records': self.records,
      'nodules': self.nodules,
      **{name: self.value(name) for name in METRICS},
      'confusion_matrix': dataclasses.asdict(self.confusion_matrix),
    }


@dataclasses.dataclass(frozen=True)
class CalibrationBins:
  """Records grouped by probability; bins without records are left out.

  Attributes:
    mean_probability: [b] float64, mean probability of the records in each bin.
    nodule_fraction: [b] float64, fraction of them that are nodules.
    records: [b] int64, number of records.
  """

  mean_probability: np.ndarray
  nodule_fraction: np.ndarray
  records: np.ndarray


def classification_metrics(
  labels: np.ndarray, probabilities: np.ndarray, predicted: np.ndarray
) -> ClassificationMetrics:
  """Measures all metrics.

  Args:
    labels: [n], 1 for nodules.
    probabilities: [n].
    predicted: [n] bool, whether the classifier predicts a nodule.
  """
  confusion_matrix = ConfusionMatrix.from_predictions(labels, predicted)
  roc_auc = pr_auc = np.nan
  if has_both_classes(labels):
    roc_auc = float(sklearn_metrics.roc_auc_score(labels, probabilities))
    pr_auc = float(sklearn_metrics.average_precision_score(labels, probabilities))
  return ClassificationMetrics(
    **confusion_matrix.rates().to_json(),
    roc_auc=roc_auc,
    pr_auc=pr_auc,
    brier=float(np.mean((np.asarray(probabilities) - labels) ** 2))
    if len(labels)
    else np.nan,
    ece=expected_calibration_error(labels, probabilities),
    records=len(labels),
    nodules=int(np.sum(np.asarray(labels) == 1)),
    confusion_matrix=confusion_matrix,
  )


def has_both_classes(labels: np.ndarray) -> bool:
  """Whether labels [n] are of nodules and of non-nodules; curves and areas need both."""
  return len(np.unique(labels)) == 2


def confusion_counts(
  labels: np.ndarray, predicted: np.ndarray, group: np.ndarray, num_groups: int
) -> np.ndarray:
  """Counts the records of each group by true and predicted class.

  Args:
    labels: [n] true class, 1 for nodules.
    predicted: [n] bool, whether the classifier predicts a nodule.
    group: [n] int, from 0 to `num_groups` - 1.
    num_groups: number of groups.

  Returns:
    [num_groups, 4] int64, in the order of the fields of `ConfusionMatrix`.
  """
  negative = np.asarray(labels) != 1
  # 0, 1, 2, 3: true positive, false positive, false negative, true negative.
  outcome = np.where(np.asarray(predicted, bool), negative, 2 + negative)
  counts = np.bincount(4 * group + outcome, minlength=4 * num_groups)
  return counts.reshape(num_groups, 4)


def rates_of_counts(counts: np.ndarray) -> dict[str, np.ndarray]:
  """Computes the rates of many confusion matrices at once.

  Args:
    counts: [4, ...] in the order of the fields of `ConfusionMatrix`; may be weighted.

  Returns:
    [...] float64 for each of `RATES`; NaN where undefined.
  """
  tp, fp, fn, tn = counts
  with np.errstate(invalid='ignore', divide='ignore'):
    return {
      'accuracy': (tp + tn) / (tp + fp + fn + tn),
      'precision': tp / (tp + fp),
      'recall': tp / (tp + fn),
      'specificity': tn / (tn + fp),
      'f1': 2 * tp / (2 * tp + fp + fn),
    }


def calibration_bin_of(
  probabilities: np.ndarray, bins: int = CALIBRATION_BINS
) -> np.ndarray:
  """Returns [n] int64: in which of `bins` bins of equal width each probability lies."""
  index = (np.asarray(probabilities, float) * bins).astype(int)
  capped: np.ndarray = np.minimum(index, bins - 1)
  return capped


def calibration_bins(
  labels: np.ndarray, probabilities: np.ndarray, bins: int = CALIBRATION_BINS
) -> CalibrationBins:
  """Groups records by probability in bins of equal width.

  Args:
    labels: [n], 1 for nodules.
    probabilities: [n].
    bins: number of bins, empty ones included.
  """
  labels, probabilities = np.asarray(labels, float), np.asarray(probabilities, float)
  bin_of_record = calibration_bin_of(probabilities, bins)
  records = np.bincount(bin_of_record, minlength=bins)
  filled = records > 0
  probability_sums = np.bincount(bin_of_record, probabilities, bins)
  label_sums = np.bincount(bin_of_record, labels, bins)
  return CalibrationBins(
    mean_probability=probability_sums[filled] / records[filled],
    nodule_fraction=label_sums[filled] / records[filled],
    records=records[filled],
  )


def expected_calibration_error(
  labels: np.ndarray, probabilities: np.ndarray, bins: int = CALIBRATION_BINS
) -> float:
  """Mean over records of |mean probability - fraction of nodules| of their bin.

  Guo et al., "On Calibration of Modern Neural Networks", ICML 2017. NaN without a record.
  """
  if not len(labels):
    return np.nan
  found = calibration_bins(labels, probabilities, bins)
  gap = np.abs(found.mean_probability - found.nodule_fraction)
  return float(np.sum(gap * found.records) / found.records.sum())
