"""How the classes of a split are balanced: arithmetic on their counts."""

from __future__ import annotations

import dataclasses
import fractions
import itertools
import math

from trainer import config as config_lib
from trainer.data.sampling_classes import ClassCounts
from trainer.data.sampling_classes import KeepProbabilities
from trainer.data.sampling_classes import SamplingClasses
from trainer.data.split_source import SplitSource

# Where rejection would read more records than this for each one it keeps, separate
# streams are faster.
_MAX_READS_PER_KEPT_RECORD = 20.0
# Batches after which the numbers of nodules in the batches of the streams repeat, where
# the share of nodules is no simple fraction.
_CYCLE_BATCHES = 16


@dataclasses.dataclass(frozen=True)
class Balance:
  """How the classes of a split are balanced.

  Attributes:
    mode: 'rejection', 'streams' or 'none'.
    classes: the sampling classes.
    counts: records of each.
    keep: with which probability rejection keeps a record of each class.
    reads_per_kept_record: records that rejection reads for each one it keeps.
    prior: share of nodules in the resulting stream.
    kept_per_pass: records that rejection keeps of one pass, on average.
    nodules_per_batch: of the mode 'streams': nodules in each batch of a cycle of
      batches.
  """

  mode: str
  classes: SamplingClasses
  counts: ClassCounts
  keep: KeepProbabilities
  reads_per_kept_record: float
  prior: float
  kept_per_pass: float
  nodules_per_batch: tuple[int, ...]

  def __str__(self) -> str:
    if self.mode == 'none':
      return f'balance: none (classes as they are), {self.prior:.1%} nodules'
    reads = f'{self.reads_per_kept_record:.1f} records for each one it keeps'
    verb = 'reads' if self.mode == 'rejection' else 'would read'
    return f'balance: {self.mode}, {self.prior:.1%} nodules; rejection {verb} {reads}'


def plan_balance(source: SplitSource, config: config_lib.InputConfig) -> Balance:
  """Works out how to balance a split.

  The class that is too small is kept whole. Hard non-nodules are kept
  `hard_negative_factor` times as often as others, while the share of nodules stays as
  configured. The class counts are known, so no warm-up is needed to estimate them.

  Args:
    source: the split.
    config: the share of nodules, and the mode.

  Raises:
    ValueError: a class that is needed has no record.
    UsageError: `config.hard_negatives` cannot be used.
  """
  classes = SamplingClasses.from_config(config)
  counts = classes.count(source)
  _check_counts(counts, source, config)
  keep, kept = _keep_probabilities(counts, config)
  reads_per_kept_record = source.num_records / kept
  mode = config.balance
  if mode == 'auto':
    too_many = reads_per_kept_record > _MAX_READS_PER_KEPT_RECORD
    mode = 'streams' if too_many else 'rejection'
  nodules_per_batch, streams_prior = _nodules_per_batch(config)
  prior = {
    'rejection': config.positive_fraction,
    'streams': streams_prior,
    'none': counts.nodule / (counts.negatives + counts.nodule),
  }[mode]
  return Balance(
    mode=mode,
    classes=classes,
    counts=counts,
    keep=keep,
    reads_per_kept_record=reads_per_kept_record,
    prior=prior,
    kept_per_pass=kept,
    nodules_per_batch=nodules_per_batch,
  )


def _check_counts(
  counts: ClassCounts, source: SplitSource, config: config_lib.InputConfig
) -> None:
  if config.balance != 'none' and not (counts.negatives and counts.nodule):
    raise ValueError(
      f'the split {source.split!r} holds {counts.negatives} non-nodules and '
      f'{counts.nodule} nodules; both are needed to balance them (--balance=none takes '
      'the classes as they are)'
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


def _nodules_per_batch(
  config: config_lib.InputConfig,
) -> tuple[tuple[int, ...], float]:
  """Divides the nodules of the streams among batches.

  A batch of 3 with half nodules holds 1, then 2: over a cycle of batches the share is
  exact, also where the batch size does not divide.

  Returns:
    Nodules in each batch of a cycle, and the share of nodules in the cycle.
  """
  wanted = fractions.Fraction(config.positive_fraction).limit_denominator(100)
  if abs(wanted - config.positive_fraction) > 1e-9 or not 0 < wanted < 1:
    # Not a simple fraction: to the nearest record of a cycle, at least one of each.
    total = config.batch_size * max(_CYCLE_BATCHES, math.ceil(2 / config.batch_size))
    nodules = min(max(round(config.positive_fraction * total), 1), total - 1)
    wanted = fractions.Fraction(nodules, total)
  share = wanted * config.batch_size
  ends = [math.floor(share * k) for k in range(share.denominator + 1)]
  return tuple(b - a for a, b in itertools.pairwise(ends)), float(wanted)
