"""Keys of records, and keyed hashes of them: random choices that never change."""

from __future__ import annotations

from collections.abc import Iterable
import hashlib

import numpy as np


def record_key(seriesuid: str, candidate_id: int) -> str:
  """Returns the key of a record, `seriesuid/candidate_id`."""
  return f'{seriesuid}/{candidate_id}'


def hash_keys(keys: Iterable[str], seed: int, purpose: str) -> np.ndarray:
  """Hashes keys to uniform 64-bit numbers, the same on every machine.

  Args:
    keys: [n] strings.
    seed: hash seed.
    purpose: name of the use; hashes for different purposes are independent.

  Returns:
    [n] uint64.
  """
  # A copy of it saves hashing the secret again for each key: half of the time.
  start = hashlib.blake2b(digest_size=8, key=f'{purpose}:{seed}'.encode())
  digests = []
  for key in keys:
    key_hash = start.copy()
    key_hash.update(key.encode())
    digests.append(key_hash.digest())
  return np.frombuffer(b''.join(digests), '<u8').astype(np.uint64)


def keys_sha256(keys: Iterable[str]) -> str:
  """Returns the SHA-256 of a set of keys, in hexadecimal digits; the order is ignored."""
  return hashlib.sha256('\n'.join(sorted(keys)).encode()).hexdigest()
