import hashlib

import numpy as np
import oracles

from luna_tfds import record_keys

CODE = """
import json
from luna_tfds import record_keys
keys = [f'1.2.3/{i}' for i in range(50)]
print(json.dumps([int(h) for h in record_keys.hash_keys(keys, 7, 'negatives')]))
"""


def test_record_key():
  assert record_keys.record_key('1.2.3', 45) == '1.2.3/45'


def test_hash_is_keyed_blake2b():
  found = record_keys.hash_keys(['1.2.3/45', 'é'], 3, 'shuffle')
  assert found.dtype == np.uint64
  for key, value in zip(['1.2.3/45', 'é'], found):
    digest = hashlib.blake2b(key.encode(), digest_size=8, key=b'shuffle:3').digest()
    assert int(value) == int.from_bytes(digest, 'little')


def test_hash_is_the_published_one():
  # Other hashes would silently change the dataset of this version.
  (found,) = record_keys.hash_keys(['1.2.3/45'], 0, 'negatives')
  assert found == 9077924873898429652


def test_hashes_of_no_keys():
  assert record_keys.hash_keys([], 0, 'shuffle').shape == (0,)


def test_seed_and_purpose_change_the_hash():
  keys = ['1.2.3/45']
  hashes = [
    record_keys.hash_keys(keys, *arguments).item()
    for arguments in [(0, 'negatives'), (1, 'negatives'), (0, 'shuffle')]
  ]
  assert len(set(hashes)) == 3


def test_sha256_of_a_set_of_keys():
  expected = hashlib.sha256('1.2/10\n1.2/9\né/0'.encode()).hexdigest()
  assert record_keys.keys_sha256(['1.2/9', 'é/0', '1.2/10']) == expected


def test_hash_is_the_same_in_a_fresh_interpreter(fresh_python):
  keys = [f'1.2.3/{i}' for i in range(50)]
  expected = [oracles.keyed_hash(key, 'negatives', 7) for key in keys]
  assert fresh_python(CODE, PYTHONHASHSEED='1') == expected
  assert fresh_python(CODE, PYTHONHASHSEED='2') == expected
