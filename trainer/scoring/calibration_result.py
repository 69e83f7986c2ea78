"""calibration.json: the calibration of a run, and what it was compared with."""

from __future__ import annotations

from collections.abc import Mapping
import dataclasses
import math
import pathlib
from typing import Any

from luna_tfds import dataclass_json
from luna_tfds.errors import UsageError
from luna_tfds.files import atomic_files
from luna_tfds.text_format import error_text
from trainer.scoring.calibration import METHODS
from trainer.scoring.calibration import PRIOR_SHIFT
from trainer.scoring.calibration import LogitCalibration


@dataclasses.dataclass(frozen=True)
class FittedMethod:
  """A calibration fitted on the validation split.

  Attributes:
    method: name of the method, one of `calibration.METHODS`.
    scale: factor of the logit; 1 / scale is the temperature.
    offset: added afterwards.
    ece: expected calibration error on the validation split, by two-fold cross-fitting;
      NaN if it is undefined.
  """

  method: str
  scale: float
  offset: float
  ece: float

  def __post_init__(self) -> None:
    if not (0 < self.scale < math.inf and math.isfinite(self.offset)):
      raise ValueError(
        'scale must be positive and finite, and offset finite. Received: '
        f'{self.scale} and {self.offset}'
      )

  @property
  def map(self) -> LogitCalibration:
    """The map of the logits."""
    return LogitCalibration(self.scale, self.offset)


@dataclasses.dataclass(frozen=True)
class CalibrationResult:
  """The calibration of a run.

  Attributes:
    method: the calibration method of the probabilities of the run.
    fitted_on: split string of the records that the methods were fitted on.
    records: number of records of that split.
    nodules: number of nodules among these records.
    methods: all of them, for comparison; empty if the split has too few records, and then
      `method` is the prior shift.
  """

  method: str
  fitted_on: str
  records: int
  nodules: int
  methods: tuple[FittedMethod, ...]

  def __post_init__(self) -> None:
    for method in (self.method, *(m.method for m in self.methods)):
      if method not in METHODS:
        raise ValueError(f'method must be one of {", ".join(METHODS)}')
    if self.is_fitted and self.chosen is None:
      raise ValueError(f'methods has no fit of {self.method}')

  @property
  def is_fitted(self) -> bool:
    """Whether records were needed for the calibration."""
    return self.method != PRIOR_SHIFT

  @property
  def chosen(self) -> FittedMethod | None:
    """The fit of `method`; None if nothing was fitted."""
    return next((m for m in self.methods if m.method == self.method), None)

  def __str__(self) -> str:
    if not self.methods:
      return f'calibration: {self.method}'
    errors = ', '.join(f'{m.method} {m.ece:.4f}' for m in self.methods)
    return (
      f'calibration: {self.method}; calibration error (ECE) on {self.fitted_on}, by '
      f'two-fold cross-fitting: {errors}'
    )

  def to_json(self) -> dict[str, Any]:
    """Returns the content of calibration.json."""
    return dataclasses.asdict(self)

  @classmethod
  def from_json(cls, fields: Mapping[str, Any]) -> CalibrationResult:
    """Inverse of `to_json`.

    Raises:
      AttributeError, KeyError, TypeError, ValueError: the fields are not those.
    """
    methods = tuple(
      dataclass_json.make(
        FittedMethod, {**m, 'ece': math.nan if m['ece'] is None else m['ece']}
      )
      for m in fields['methods']
    )
    return dataclass_json.make(cls, {**fields, 'methods': methods})

  @classmethod
  def read(cls, path: pathlib.Path) -> CalibrationResult | None:
    """Reads calibration.json; None if a version without it trained the run.

    Raises:
      UsageError: the file is damaged.
    """
    if not path.is_file():
      return None
    try:
      return cls.from_json(atomic_files.read_json(path))
    except (AttributeError, KeyError, TypeError, ValueError) as error:
      raise UsageError(
        f'{path}: cannot be read: {error_text(error)}; run the same luna16-train command '
        'again to write it'
      ) from error
