"""Numbers and intervals as text."""

from __future__ import annotations

from collections.abc import Iterable
import math

from model.metrics.resampling import Interval
from trainer.report.content import Cell

DASH = '–'


def number(value: float | None, digits: int = 4, *, signed: bool = False) -> str:
  """Formats a metric; a dash if it is undefined.

  Args:
    value: the metric.
    digits: number of digits after the point.
    signed: whether a plus sign is written too, as for a difference.
  """
  if value is None or not math.isfinite(value):
    return DASH
  return f'{value:{"+" if signed else ""}.{digits}f}'


def interval(bounds: Interval | None) -> str:
  """Formats an interval; the empty string if there is none or it is undefined."""
  if bounds is None or not math.isfinite(bounds.lower + bounds.upper):
    return ''
  return f'{bounds.lower:.3f} … {bounds.upper:.3f}'


def interval_in_words(bounds: Interval | None) -> str:
  """As `interval`, with what it is."""
  text = interval(bounds)
  if not text:
    return ''
  # A line may break before the interval, not inside it.
  return ' '.join(
    part.replace(' ', '\N{NO-BREAK SPACE}') for part in ('95 % CI:', text)
  )


def sentences(warnings: Iterable[str]) -> list[str]:
  """Returns warnings as sentences: with a capital letter and a full stop.

  A name at the beginning, such as that of a dataset, stays as it is.
  """
  return [
    (warning[0].upper() if warning.split()[0].isalpha() else warning[0])
    + f'{warning[1:]}.'
    for warning in warnings
  ]


def metric_cell(value: float | None, bounds: Interval | None, digits: int = 3) -> Cell:
  """Returns a cell of a table: a metric with its interval below."""
  return Cell(number(value, digits), interval(bounds))
