"""Rules by which a decision threshold is chosen, as users write them.

Imports the standard library only, so that commands can check a flag quickly.
"""

from __future__ import annotations

import dataclasses
import re

THRESHOLD_RULES = 'max_f1, precision:P, recall:R, specificity:S, or a number in 0..1'

TARGETS = ('precision', 'recall', 'specificity')

_MAX_F1 = 'max_f1'
_FIXED = 'fixed'


@dataclasses.dataclass(frozen=True)
class ThresholdRule:
  """A parsed rule.

  Attributes:
    name: 'max_f1' for the threshold with the highest F1, one of `TARGETS` for a
      threshold that reaches a value of this metric, or 'fixed' for a given threshold.
    value: the value to reach, or the given threshold, in 0..1; None for 'max_f1'.
  """

  name: str
  value: float | None = None

  def __post_init__(self) -> None:
    if self.name == _MAX_F1:
      valid = self.value is None
    else:
      valid = self.name in (*TARGETS, _FIXED) and self.value is not None
      valid = valid and 0 <= (self.value or 0) <= 1
    if not valid:
      raise ValueError(
        f'threshold must be {THRESHOLD_RULES}. '
        f'Received: name={self.name!r}, value={self.value!r}'
      )

  @classmethod
  def parse(cls, text: str) -> ThresholdRule:
    """Parses 'max_f1', 'precision:0.893' or '0.5'.

    Raises:
      ValueError: `text` is not a rule.
    """
    if text == _MAX_F1:
      return cls(_MAX_F1)
    match = re.fullmatch(rf'(?:({"|".join(TARGETS)}):)?([0-9.]+)', text)
    try:
      if match:
        return cls(match[1] or _FIXED, float(match[2]))
    except ValueError:  # two points, or above 1
      pass
    raise ValueError(f'threshold must be {THRESHOLD_RULES}. Received: {text!r}')

  @property
  def fixed_threshold(self) -> float | None:
    """The given threshold; None if the threshold depends on records."""
    return self.value if self.name == _FIXED else None

  def __str__(self) -> str:
    if self.name == _MAX_F1:
      return _MAX_F1
    return str(self.value) if self.name == _FIXED else f'{self.name}:{self.value}'
