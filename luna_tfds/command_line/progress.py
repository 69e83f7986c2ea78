"""Progress on stderr: a bar in a terminal, else a line of text every few seconds."""

from __future__ import annotations

from collections.abc import Callable, Iterator
import contextlib
import sys
import time

_LINE_SECS = 10.0
# Work that is done earlier displays nothing.
_DELAY_SECS = 1.0

# Takes how much is done, and the total.
Report = Callable[[int, int], None]


@contextlib.contextmanager
def displayed(
  unit: str, description: str = '', *, delay_secs: float = _DELAY_SECS
) -> Iterator[Report]:
  """Displays the progress of work that is done in a `with` block.

  Yields a function `report(done, total)`. The first call says how much was done before, so
  that the rate and the remaining time are those of this run. If less is done than in the
  call before, or the total is another one, new work has begun.

  Args:
    unit: what is counted, in the plural, e.g. 'records'.
    description: what is done, e.g. 'scoring test'; '' for nothing.
    delay_secs: nothing is displayed of work that takes less than this. 0: it is, and the
      text ends with a line for the finished work even if no other was printed.
  """
  current: _Bar | _Lines | None = None
  before = (0, 0)

  def report(done: int, total: int) -> None:
    """Displays how much of the total is done."""
    nonlocal current, before
    if current is not None and (done < before[0] or total != before[1]):
      current.close()
      current = None
    if current is None:
      make = _Bar if sys.stderr.isatty() else _Lines
      current = make(unit, description, done, total, delay_secs)
    else:
      current.show(done)
    if done == total:
      current.close()  # another bar may follow before the block ends
    before = (done, total)

  try:
    yield report
  finally:
    if current is not None:
      current.close()


class _Bar:
  """A progress bar, for a terminal."""

  def __init__(
    self, unit: str, description: str, done: int, total: int, delay_secs: float
  ):
    import tqdm

    self._bar = tqdm.tqdm(
      total=total,
      initial=done,
      unit=f' {unit}',
      desc=description or None,
      delay=delay_secs,
      dynamic_ncols=True,
      file=sys.stderr,
    )

  def show(self, done: int) -> None:
    self._bar.update(max(done - self._bar.n, 0))

  def close(self) -> None:
    self._bar.close()


class _Lines:
  """A line of text every few seconds, for a file or a pipe."""

  def __init__(
    self, unit: str, description: str, done: int, total: int, delay_secs: float
  ):
    self._unit, self._total, self._initial = unit, total, done
    self._prefix = f'{description}: ' if description else ''
    self._is_always_finished = not delay_secs
    self._start = self._shown = time.monotonic()
    self._last = done

  def show(self, done: int) -> None:
    """Prints a line if the last one is old enough, or if all is done."""
    now = time.monotonic()
    has_lines = self._is_always_finished or self._shown > self._start
    finished = done == self._total and self._last < done and has_lines
    if now - self._shown < _LINE_SECS and not finished:
      return
    self._shown, self._last = now, done
    rate = (done - self._initial) / max(now - self._start, 1e-9)
    remaining = (self._total - done) / rate if rate else None
    left = 'no estimate yet' if remaining is None else f'{remaining:.0f} s left'
    print(
      f'{self._prefix}{done}/{self._total} {self._unit}, {rate:.3g} {self._unit}/s, '
      f'{left}',
      file=sys.stderr,
      flush=True,
    )

  def close(self) -> None:
    pass
