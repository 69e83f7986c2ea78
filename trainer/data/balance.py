"""How the classes of a split are balanced: arithmetic on their counts."""

from __future__ import annotations

import dataclasses
import fractions

import numpy as np

from trainer import config as config_lib
from trainer.data import sampling_classes
from trainer.data import split_index
from trainer.data.sampling_classes import ClassCounts
from trainer.data.sampling_classes import KeepProbabilities
from trainer.data.sampling_classes import SamplingClasses
from trainer.data.split_source import SplitSource

# Where rejection would read more records than this for each one it keeps, separate
# streams are faster.
_MAX_READS_PER_KEPT_RECORD = 20.0


@dataclasses.dataclass(frozen=True)
class Balance:
  """How the classes of a split are balanced.

  Attributes:
    mode: 'rejection', 'streams' or 'none'.
    source: the split, with its index.
    record_classes: [n] int8, sampling class of each record in stored order.
    counts: records of each class.
    keep: probability with which rejection keeps a record of each class.
    reads_per_kept_record: records that rejection reads for each one it keeps.
    nodule_fraction: fraction of nodules in the resulting stream.
    kept_per_pass: records that rejection keeps of one pass, on average.
  """

  mode: str
  source: SplitSource
  record_classes: np.ndarray = dataclasses.field(compare=False, repr=False)
  counts: ClassCounts
  keep: KeepProbabilities
  reads_per_kept_record: float
  nodule_fraction: fractions.Fraction
  kept_per_pass: float

  def __str__(self) -> str:
    nodules = f'{float(self.nodule_fraction):.1%} of class nodule'
    if self.mode == 'none':
      return f'balance: none (classes as they are), {nodules}'
    reads = f'{self.reads_per_kept_record:.1f} records for each one it keeps'
    verb = 'reads' if self.mode == 'rejection' else 'would read'
    return f'balance: {self.mode}, {nodules}; rejection {verb} {reads}'


def plan_balance(source: SplitSource, config: config_lib.InputConfig) -> Balance:
  """Works out how to balance a split.

  The class that is too small is kept whole. Hard non-nodules are kept
  `hard_negative_factor` times as often as others, while the fraction of nodules stays as
  configured. The class counts are known, so no warm-up is needed to estimate them.

  Args:
    source: the split.
    config: the fraction of nodules, and the mode.

  Raises:
    ValueError: a class that is needed has no record.
    UsageError: `config.hard_negatives` cannot be used.
  """
  source = split_index.with_index(source)
  record_classes = SamplingClasses.from_config(config).of_records(source)
  counts = sampling_classes.count_classes(record_classes)
  _check_counts(counts, source, config)
  keep, kept = _keep_probabilities(counts, config)
  reads_per_kept_record = source.num_records / kept
  mode = config.balance
  if mode == 'auto':
    too_many = reads_per_kept_record > _MAX_READS_PER_KEPT_RECORD
    mode = 'streams' if too_many else 'rejection'
  if mode == 'none':
    fraction = fractions.Fraction(counts.nodule, counts.negatives + counts.nodule)
  else:
    fraction = fractions.Fraction(config.positive_fraction).limit_denominator(10**6)
  return Balance(
    mode=mode,
    source=source,
    record_classes=record_classes,
    counts=counts,
    keep=keep,
    reads_per_kept_record=reads_per_kept_record,
    nodule_fraction=fraction,
    kept_per_pass=kept,
  )


def _check_counts(
  counts: ClassCounts, source: SplitSource, config: config_lib.InputConfig
) -> None:
  if config.balance != 'none' and not (counts.negatives and counts.nodule):
    raise ValueError(
      f'the split {source.split!r} holds {counts.negatives} non-nodules and '
      f'{counts.nodule} nodule candidates; both are needed to balance them '
      '(--balance=none takes the classes as they are)'
    )
  if not counts.negatives + counts.nodule:
    raise ValueError(f'all records of the split {source.split!r} are excluded')


def _keep_probabilities(
  counts: ClassCounts, config: config_lib.InputConfig
) -> tuple[KeepProbabilities, float]:
  """Returns the keep-probabilities, and how many records they keep of a pass."""
  factor = config.hard_negative_factor if counts.hard_negative else 1.0
  # Non-nodules there would be if each hard one were `factor` others.
  weight = counts.non_nodule + factor * counts.hard_negative
  keep_negative, keep_nodule = 1 / factor, 1.0
  if weight and counts.nodule:
    wanted = config.positive_fraction
    if config.balance == 'none':
      wanted = counts.nodule / (counts.negatives + counts.nodule)
    # Of keep_nodule to keep_negative.
    ratio = wanted / (1 - wanted) * weight / counts.nodule
    keep_negative = min(1 / factor, 1 / ratio)
    keep_nodule = min(1.0, keep_negative * ratio)
  keep = KeepProbabilities(
    non_nodule=keep_negative,
    nodule=keep_nodule,
    hard_negative=min(keep_negative * factor, 1.0),
  )
  return keep, keep_negative * weight + keep_nodule * counts.nodule
