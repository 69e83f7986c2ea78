"""Which candidates a dataset holds: all positives and a hashed choice of negatives."""

from __future__ import annotations

import numpy as np

from luna_tfds.record_keys import hash_keys
from luna_tfds.record_keys import record_key


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
