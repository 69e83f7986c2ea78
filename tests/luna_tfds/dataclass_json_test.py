import dataclasses

import pytest

from luna_tfds import dataclass_json


@dataclasses.dataclass(frozen=True)
class _Fields:
  count: int = 1
  share: float = 0.5
  name: str = ''
  spacing: float | None = None
  shape: tuple[int, ...] = (1, 2)
  counts: dict[str, list[int]] = dataclasses.field(default_factory=dict)


def test_values_of_the_right_types():
  fields = {'count': 3, 'share': 1, 'name': 'x', 'spacing': None, 'shape': (4,)}
  fields['counts'] = {'train': [1, 2], 'test': []}
  assert dataclass_json.make(_Fields, fields) == _Fields(**fields)


@pytest.mark.parametrize(
  'fields',
  [
    {'count': '3'},
    {'count': 3.5},
    {'count': True},
    {'share': 'nan'},
    {'share': 10**400},
    {'count': 10**300 + 1},
    {'share': -(10**300) - 1},
    {'name': None},
    {'spacing': []},
    {'shape': (1, '2')},
    {'counts': [1]},
    {'counts': {'train': 1}},
    {'counts': {'train': ['1']}},
    {'other': 1},
  ],
)
def test_values_of_other_types_are_rejected(fields):
  with pytest.raises(TypeError, match=next(iter(fields))):
    dataclass_json.make(_Fields, fields)


def test_the_largest_integers():
  fields = {'count': -(10**300), 'share': 10**300}
  assert dataclass_json.make(_Fields, fields) == _Fields(**fields)
