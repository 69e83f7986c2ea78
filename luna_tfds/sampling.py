"""Which candidates go in: every choice follows from a keyed hash, so it is stable."""

from __future__ import annotations

from collections.abc import Iterable
import hashlib

import numpy as np


def record_key(seriesuid: str, candidate_id: int) -> str:
  """The key of a record, `seriesuid/candidate_id`."""
  return f'{seriesuid}/{candidate_id}'


def hash_keys(keys: Iterable[str], seed: int, purpose: str) -> np.ndarray:
  """Hashes keys to uniform 64-bit numbers, the same on every machine.

  Args:
    keys: [n] strings.
    seed: another seed, other numbers.
    purpose: keeps uses apart, so that one choice tells nothing about another.

  Returns:
    [n] uint64.
  """
  secret = f'{purpose}:{seed}'.encode()
  digests = b''.join(
    hashlib.blake2b(key.encode(), digest_size=8, key=secret).digest() for key in keys
  )
  return np.frombuffer(digests, '<u8').astype(np.uint64)


def select_candidates(
  seriesuids: np.ndarray,
  candidate_ids: np.ndarray,
  labels: np.ndarray,
  subsets: np.ndarray,
  negatives_per_positive: int | None,
  seed: int,
) -> np.ndarray:
  """Chooses all positives and, in each subset, a fixed ratio of negatives.

  Args:
    seriesuids: [n] str, scan of each candidate.
    candidate_ids: [n] int.
    labels: [n], 1 for nodules.
    subsets: [n], the subset of each candidate's scan.
    negatives_per_positive: negatives kept for each positive of the subset, those of
      smallest keyed hash (all, if there are fewer); None keeps every candidate.
    seed: seed of the hash.

  Returns:
    [n] bool.
  """
  labels = np.asarray(labels)
  chosen = labels == 1
  if negatives_per_positive is None:
    return np.ones(len(labels), bool)
  for subset in np.unique(subsets):
    in_subset = np.asarray(subsets) == subset
    negatives = np.flatnonzero(in_subset & (labels == 0))
    wanted = negatives_per_positive * int(np.count_nonzero(in_subset & chosen))
    if wanted >= len(negatives):
      chosen[negatives] = True
      continue
    keys = (record_key(seriesuids[i], candidate_ids[i]) for i in negatives)
    hashes = hash_keys(keys, seed, 'negatives')
    chosen[negatives[np.argsort(hashes, kind='stable')[:wanted]]] = True
  return chosen
