"""Selects the candidates of a dataset: all positives, and negatives by hash."""

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
  """Selects all positives and, in each subset, a fixed number of negatives for each.

  Args:
    seriesuids: [n] str, scan of each candidate.
    candidate_ids: [n] int.
    labels: [n] int, 1 for nodules.
    subsets: [n] int, the subset of each candidate's scan.
    negatives_per_positive: negatives kept for each positive of the subset, those with
      the smallest hashes (all, if there are fewer); None keeps every candidate.
    seed: hash seed.

  Returns:
    [n] bool, whether each candidate is selected.
  """
  if negatives_per_positive is None:
    return np.ones(len(labels), bool)
  selected: np.ndarray = labels == 1
  for subset in np.unique(subsets):
    in_subset = subsets == subset
    negatives = np.flatnonzero(in_subset & (labels == 0))
    num_kept = negatives_per_positive * int(np.count_nonzero(in_subset & selected))
    keys = (record_key(seriesuids[i], candidate_ids[i]) for i in negatives)
    hashes = hash_keys(keys, seed, 'negatives')
    selected[negatives[np.argsort(hashes)[:num_kept]]] = True
  return selected
