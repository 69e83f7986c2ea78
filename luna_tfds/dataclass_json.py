"""Makes dataclasses of values that were read from JSON."""

from __future__ import annotations

from collections.abc import Mapping
import types
import typing
from typing import Any, TypeVar

from luna_tfds.text_format import shown_text

_T = TypeVar('_T')

# Larger integers cannot be converted to a float.
_MAX_INTEGER = 10**300


def make(cls: type[_T], fields: Mapping[str, Any]) -> _T:
  """Makes a dataclass; unlike its constructor, this checks the types of the values.

  Args:
    cls: the dataclass.
    fields: its fields.

  Raises:
    TypeError: a field is missing or unknown, or its value has another type.
    ValueError: the checks of `cls` reject a value.
  """
  hints = typing.get_type_hints(cls)
  for name, value in fields.items():
    if name in hints and not _has_type(value, hints[name]):
      expected = getattr(hints[name], '__name__', str(hints[name]))
      raise TypeError(f'{name} must be {expected}. Received: {shown_text(repr(value))}')
  return cls(**fields)


def _has_type(value: Any, hint: Any) -> bool:
  origin, arguments = typing.get_origin(hint), typing.get_args(hint)
  if hint is Any:
    return True
  if origin in (typing.Union, types.UnionType):
    return any(_has_type(value, argument) for argument in arguments)
  if origin in (tuple, list):  # of any length
    return isinstance(value, origin) and all(_has_type(v, arguments[0]) for v in value)
  if origin is dict:
    return isinstance(value, dict) and all(
      _has_type(key, arguments[0]) and _has_type(item, arguments[1])
      for key, item in value.items()
    )
  if hint in (int, float):
    # JSON does not tell 1.0 from 1; bool is a subclass of int.
    is_integer = isinstance(value, int) and not isinstance(value, bool)
    small = is_integer and abs(value) <= _MAX_INTEGER
    return small or (hint is float and isinstance(value, float))
  return isinstance(value, hint)
