"""How training batches are made, and how the classes are balanced.

Pure arithmetic on the class counts of a source: no TensorFlow runs here.
"""

from __future__ import annotations

import dataclasses
import fractions
import itertools
import math

from trainer import augment as augment_lib
from trainer import sources

BALANCES = ('auto', 'rejection', 'streams', 'none')

# Where rejection would read more than so many records for one it keeps, separate
# streams are better.
_MAX_AMPLIFICATION = 20.0
# Batches after which the counts of nodules in a batch of the streams repeat, where the
# share is no simple fraction.
_CYCLE = 16


@dataclasses.dataclass(frozen=True)
class InputConfig:
  """How training batches are made.

  Attributes:
    batch_size: records of a batch.
    balance: 'rejection' keeps each record with its class's probability; 'streams'
      draws the classes from streams of their own; 'none' leaves the classes as they
      are; 'auto' takes rejection unless it would read too much for what it keeps.
    positive_fraction: share of nodules in the balanced stream.
    augment: what is varied.
    seed: of the order, of the rejection, of the augmentation.
    memory_budget_mb: for records held in memory. A split that fits is held whole; else
      shuffle buffer, blocks, readers and prefetched batches follow from it.
    drop_excluded: whether candidates that hit an excluded finding are left out.
    hard_negatives: predictions.csv of an earlier evaluation; the non-nodules it was
      worst at, as `sources.read_hard_negatives` defines them, come more often. '' for
      none.
    hard_negative_factor: how many times as often as another non-nodule.
  """

  batch_size: int = 96
  balance: str = 'auto'
  positive_fraction: float = 0.5
  augment: augment_lib.AugmentConfig = augment_lib.RECIPES['none']
  seed: int = 0
  memory_budget_mb: int = 256
  drop_excluded: bool = False
  hard_negatives: str = ''
  hard_negative_factor: float = 4.0

  def __post_init__(self):
    if self.batch_size < 1:
      raise ValueError(f'batch_size must be at least 1. Received: {self.batch_size}')
    if self.balance not in BALANCES:
      raise ValueError(
        f'balance must be one of {", ".join(BALANCES)}. Received: {self.balance!r}'
      )
    if not 0 < self.positive_fraction < 1:
      raise ValueError(
        'positive_fraction must lie between 0 and 1. Received: '
        f'{self.positive_fraction}'
      )
    if self.memory_budget_mb < 1:
      raise ValueError(
        f'memory_budget_mb must be at least 1. Received: {self.memory_budget_mb}'
      )
    if not 1 <= self.hard_negative_factor < math.inf:
      raise ValueError(
        f'hard_negative_factor must be 1 or more. Received: {self.hard_negative_factor}'
      )


@dataclasses.dataclass(frozen=True)
class Balance:
  """How the classes of a source are balanced.

  Attributes:
    mode: 'rejection', 'streams' or 'none'.
    keep: probability with which rejection keeps a record of each kind: non-nodule,
      nodule, hard non-nodule, dropped.
    amplification: records that rejection reads for one it keeps.
    prior: share of nodules in the stream that results.
    kept_per_pass: records that rejection keeps, on average, of one pass.
  """

  mode: str
  keep: tuple[float, float, float, float]
  amplification: float
  prior: float
  kept_per_pass: float

  def __str__(self) -> str:
    kind = {'rejection': 'reads', 'streams': 'would read', 'none': 'reads'}[self.mode]
    return (
      f'balance: {self.mode}, {self.prior:.1%} nodules; rejection {kind} '
      f'{self.amplification:.1f} records for one it keeps'
    ).replace('none', 'none (classes as they are)')


def plan_balance(source: sources.Source, config: InputConfig) -> Balance:
  """Works out how to balance a source; the class counts say it all, so no warm-up.

  The class that is short is kept whole; hard non-nodules `hard_negative_factor` times
  as often as others, while the share of nodules stays as asked.

  Args:
    source: where the records are.
    config: the wanted share of nodules, and the mode.

  Raises:
    ValueError: a class that is wanted is not there.
    UsageError: `config.hard_negatives` cannot be used.
  """
  easy, positives, hard, _ = sources.count_kinds(
    source, config.drop_excluded, config.hard_negatives
  )
  negatives = easy + hard
  if config.balance != 'none' and not (negatives and positives):
    raise ValueError(
      f'the split {source.split!r} holds {negatives} non-nodules and {positives} '
      'nodules; both are needed to balance them (--balance=none takes them as they are)'
    )
  if not negatives + positives:
    raise ValueError(f'all records of the split {source.split!r} are excluded')
  factor = config.hard_negative_factor if hard else 1.0
  wanted = config.positive_fraction
  if config.balance == 'none':
    wanted = positives / (negatives + positives)
  # Non-nodules there would be if each hard one were `factor` easy ones.
  weight = easy + factor * hard
  keep_easy, keep_nodule = 1 / factor, 1.0
  if weight and positives:
    ratio = wanted / (1 - wanted) * weight / positives  # keep_nodule / keep_easy
    keep_easy = min(1 / factor, 1 / ratio)
    keep_nodule = min(1.0, keep_easy * ratio)
  kept = keep_easy * weight + keep_nodule * positives
  mode = 'rejection' if config.balance == 'auto' else config.balance
  if config.balance == 'auto' and source.num_records / kept > _MAX_AMPLIFICATION:
    mode = 'streams'
  return Balance(
    mode=mode,
    keep=(keep_easy, keep_nodule, min(keep_easy * factor, 1.0), 0.0),
    amplification=source.num_records / kept,
    prior=nodules_of_batches(config)[1] if mode == 'streams' else wanted,
    kept_per_pass=kept,
  )


def nodules_of_batches(config: InputConfig) -> tuple[list[int], float]:
  """Tells how many nodules the batches of the streams hold, and their exact share.

  A batch of 3 with half nodules holds 1, then 2: the share is met over the cycle, also
  where the batch size does not divide.

  Returns:
    Nodules in each batch of a cycle, and the share of nodules in the cycle.
  """
  wanted = fractions.Fraction(config.positive_fraction).limit_denominator(100)
  if abs(wanted - config.positive_fraction) > 1e-9 or not 0 < wanted < 1:
    # Not a simple fraction: to the nearest record of a cycle, at least one of each.
    total = config.batch_size * max(_CYCLE, math.ceil(2 / config.batch_size))
    nodules = min(max(round(config.positive_fraction * total), 1), total - 1)
    wanted = fractions.Fraction(nodules, total)
  share = wanted * config.batch_size
  ends = [math.floor(share * k) for k in range(share.denominator + 1)]
  return [b - a for a, b in itertools.pairwise(ends)], float(wanted)
