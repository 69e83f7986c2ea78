import json

import pytest

from luna_tfds import patches
from luna_tfds import stored_metadata

_FIELDS = {
  'fingerprint': 'abc',
  'patch': {'shape_zyx': [1, 4, 4], 'spacing_mm': None, 'layout': 'axial'},
  'shard_subsets': {'train': [0, 1], 'test': [9]},
  'shard_label_counts': {'train': [[1, 2], [3, 0]], 'test': [[0, 0]]},
  'shard_sha256': {'train': ['a', 'b'], 'test': ['c']},
  'counts': {'bytes_read': 5},
}


def _write(folder, fields):
  (folder / 'metadata.json').write_text(json.dumps(fields))
  return folder


def test_fields_are_read(tmp_path):
  metadata = stored_metadata.read(_write(tmp_path, _FIELDS))
  assert metadata.patch == patches.PatchSpec((1, 4, 4))
  assert metadata.shard_subsets == _FIELDS['shard_subsets']
  assert metadata.shard_sha256 == _FIELDS['shard_sha256']
  assert metadata.shard_keys_sha256 == {}


def test_patches_of_others_have_no_spec(tmp_path):
  assert stored_metadata.read(_write(tmp_path, {'patch': {}})).patch is None


@pytest.mark.parametrize(
  'fields',
  [
    [],
    {'fingerprint': 3},
    {'patch': [1]},
    {'patch': {'shape_zyx': [1]}},
    {'shard_subsets': [0]},
    {'shard_subsets': {'train': 'x'}},
    {'shard_subsets': {'train': [10]}},
    {'shard_subsets': {'train': [-2]}},
    {'shard_label_counts': {'train': [1]}},
    {'shard_label_counts': {'train': [[1]]}},
    {'shard_label_counts': {'train': [[1, -1]]}},
    {'shard_sha256': {'train': [None]}},
  ],
)
def test_damaged_fields_are_refused(tmp_path, fields):
  with pytest.raises((AttributeError, KeyError, TypeError, ValueError)):
    stored_metadata.read(_write(tmp_path, fields))
