"""Which records training draws, and in which order: numbers of records, no files.

The records of a class are put into a random order once. Each pass over the split draws the
next records of this order, as many as the keep probability of the class says, and
continues at its start when it has reached its end. The records that a pass draws are then
shuffled. Epochs follow one another: an epoch starts where the one before ended, whatever
its length. So

- no record of a class is drawn again before all others of its class were drawn, up to
  the order within the pass that reaches the end of the order of the class;
- in every epoch, each record of a class is drawn with the same probability, whatever the
  lengths of the shards;
- the fraction of nodules differs from the configured one by less than one record of
  each class over any number of passes;
- what an epoch draws follows from (split, config, epoch): a run can start anywhere.

Measured for 526,000 records: 23 bytes for each record stay in memory, and 40 are needed
while an epoch is planned.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
import dataclasses
import fractions
import math
from typing import NamedTuple

import numpy as np

from luna_tfds import record_index
from trainer.data import stream_seeds
from trainer.data.balance import Balance
from trainer.data.sampling_classes import KeepProbabilities
from trainer.data.split_index import SplitIndex

# Records that are read one after the other. More of them make reading faster, fewer of
# them spread a short epoch over more shards.
_MAX_CHUNK_RECORDS, _CHUNK_BYTES = 256, 3 * 2**19


class PassRange(NamedTuple):
  """Some of the records that one pass draws: `start`, ..., `stop - 1` in its order."""

  pass_number: int
  start: int
  stop: int


class RecordSampler:
  """Draws the records of some classes, pass after pass.

  Attributes:
    drawn_per_pass: records that a pass draws, on average.
  """

  def __init__(
    self, record_classes: np.ndarray, keep: KeepProbabilities, seed: int, name: str
  ):
    """Puts the records of each class into a random order.

    Args:
      record_classes: [n] int8, sampling class of each record.
      keep: the probability with which a pass draws a record of each class.
      seed: seed of the training run.
      name: name of the sampler; samplers of other names draw in other orders.
    """
    self._seed, self._name = seed, name
    self._class_orders: list[np.ndarray] = []
    # Exact, so that rounding errors do not add up over passes.
    self._drawn: list[fractions.Fraction] = []
    for number, probability in enumerate(keep.by_class):
      members = np.flatnonzero(record_classes == number).astype(np.int32)
      order = stream_seeds.random_order(seed, f'{name} class', number, len(members))
      self._class_orders.append(members[order])
      drawn = fractions.Fraction(len(members) * probability)
      self._drawn.append(drawn.limit_denominator(10**6))

  @property
  def drawn_per_pass(self) -> float:
    """Records that a pass draws, on average."""
    return float(sum(self._drawn))

  def drawn_before(self, pass_number: int) -> int:
    """Returns how many records the passes before this one draw."""
    return sum(math.floor(pass_number * drawn) for drawn in self._drawn)

  def pass_ranges(self, start: int, stop: int) -> Iterator[PassRange]:
    """Divides draws of the endless sequence of passes among these passes.

    Args:
      start: the first draw, from 0.
      stop: the end.
    """
    pass_number = int(start // sum(self._drawn))
    # The average is at most one record of each class off.
    while self.drawn_before(pass_number) > start:
      pass_number -= 1
    while start < stop:
      begin = self.drawn_before(pass_number)
      end = self.drawn_before(pass_number + 1)
      if start < end:
        yield PassRange(pass_number, start - begin, min(stop, end) - begin)
      start = max(start, end)
      pass_number += 1

  def records_of_pass(self, pass_number: int) -> np.ndarray:
    """Returns the records that a pass draws, [k] int32, ascending."""
    of_classes = []
    for order, drawn in zip(self._class_orders, self._drawn):
      if len(order):
        first = math.floor(pass_number * drawn)
        stop = math.floor((pass_number + 1) * drawn)
        of_classes.append(order[np.arange(first, stop) % len(order)])
    return np.sort(np.concatenate(of_classes))

  def shuffled_records_of_pass(self, pass_number: int) -> np.ndarray:
    """Returns the records that a pass draws in random order, [k] int32."""
    records = self.records_of_pass(pass_number)
    purpose = f'{self._name} order'
    order = stream_seeds.random_order(self._seed, purpose, pass_number, len(records))
    return np.take(records, order)

  def records_of_pass_by_chunk(
    self, pass_number: int, chunk_of: np.ndarray
  ) -> np.ndarray:
    """Returns the records that a pass draws, chunk by chunk in random order.

    The pass starts at a random one of these records and ends before it. Otherwise the
    records of small chunks would have other positions than those of large ones.

    Args:
      pass_number: number of the pass, from 0.
      chunk_of: [n] int32, the chunk of each record; ascending.

    Returns:
      [k] int32.
    """
    records = self.records_of_pass(pass_number)
    num_chunks = int(chunk_of[-1]) + 1
    purpose = f'{self._name} chunks'
    order = stream_seeds.random_order(self._seed, purpose, pass_number, num_chunks)
    position = np.empty(num_chunks, np.int32)
    position[order] = np.arange(num_chunks, dtype=np.int32)
    records = records[np.argsort(position[chunk_of[records]], kind='stable')]
    purpose = f'{self._name} start'
    start = stream_seeds.random_integers(self._seed, purpose, pass_number, 1)[0]
    return np.roll(records, -int(start % np.uint64(max(len(records), 1))))


@dataclasses.dataclass(frozen=True)
class SampledStream:
  """The records of a sampler, divided among epochs.

  Attributes:
    sampler: draws the records.
    first_draw: function from the number of an epoch to its first draw.
  """

  sampler: RecordSampler
  first_draw: Callable[[int], int]

  def pass_ranges(self, epoch: int) -> Iterator[PassRange]:
    """The draws of an epoch, divided among passes."""
    start, stop = self.first_draw(epoch), self.first_draw(epoch + 1)
    return self.sampler.pass_ranges(start, stop)

  def records_of_epoch(self, epoch: int) -> np.ndarray:
    """The records of an epoch, those of each pass in random order, [k] int32."""
    drawn = [
      self.sampler.shuffled_records_of_pass(pass_number)[start:stop]
      for pass_number, start, stop in self.pass_ranges(epoch)
    ]
    return np.concatenate(drawn)


def single_stream(
  balance: Balance, seed: int, batch_size: int, steps: int
) -> SampledStream:
  """The records of all classes, by rejection.

  Args:
    balance: how the classes of the split are balanced.
    seed: seed of the training run.
    batch_size: records of a batch.
    steps: batches of an epoch.
  """
  sampler = RecordSampler(balance.record_classes, balance.keep, seed, 'records')
  return SampledStream(sampler, lambda epoch: epoch * steps * batch_size)


def class_streams(
  balance: Balance, seed: int, batch_size: int, steps: int
) -> tuple[SampledStream, SampledStream]:
  """The nodules, and all non-nodules, as streams of their own; see `single_stream`."""
  keep = balance.keep
  # Hard non-nodules are kept whole, others less often.
  weight = keep.non_nodule / keep.hard_negative
  nodules = RecordSampler(
    balance.record_classes, KeepProbabilities(0.0, 1.0, 0.0), seed, 'nodules'
  )
  non_nodules = RecordSampler(
    balance.record_classes, KeepProbabilities(weight, 0.0, 1.0), seed, 'non-nodules'
  )
  epoch_nodules = balance.nodule_fraction * steps * batch_size

  def first_nodule(epoch: int) -> int:
    return math.floor(epoch * epoch_nodules)

  return (
    SampledStream(nodules, first_nodule),
    SampledStream(
      non_nodules, lambda epoch: epoch * steps * batch_size - first_nodule(epoch)
    ),
  )


def nodules_in_batches(
  balance: Balance, seed: int, batch_size: int, steps: int, epoch: int
) -> np.ndarray:
  """Which records of the batches are nodules, where the classes are separate streams.

  The numbers of nodules in two batches differ by one at most, and their share is exact
  over any number of batches. Classes are mixed within a batch, so that a batch divided
  among several devices has both classes on each.

  Args:
    balance: how the classes of the split are balanced.
    seed: seed of the training run.
    batch_size: records of a batch.
    steps: batches of an epoch.
    epoch: number of the epoch, from 0.

  Returns:
    [steps, batch_size] bool.
  """
  batch_nodules = balance.nodule_fraction * batch_size
  first = epoch * steps
  ends = [math.floor(batch_nodules * (first + k)) for k in range(steps + 1)]
  numbers = stream_seeds.random_integers(seed, 'mix', epoch, steps * batch_size)
  ranks = np.argsort(np.argsort(numbers.reshape(steps, batch_size), 1), 1)
  return ranks < np.diff(ends)[:, None]


def chunk_numbers(index: SplitIndex, record_bytes: int) -> np.ndarray:
  """Divides the records of a split into chunks: consecutive records of one file.

  Args:
    index: index of the split.
    record_bytes: size of a record.

  Returns:
    [n] int32, the chunk of each record; ascending from 0.
  """
  # Chunks start at records whose byte offset is known.
  step = record_index.RECORDS_PER_OFFSET
  wanted = min(_CHUNK_BYTES // record_bytes, _MAX_CHUNK_RECORDS)
  chunk_records = max(wanted // step, 1) * step
  in_file = index.number_in_file // chunk_records
  starts = (np.diff(in_file) != 0) | (np.diff(index.slice_of) != 0)
  return np.concatenate([[0], np.cumsum(starts)]).astype(np.int32)
