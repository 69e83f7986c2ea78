"""The split of each subset, and cross-validation folds as TFDS split strings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

NUM_SUBSETS = 10
VALIDATION_SUBSET = 8
TEST_SUBSET = 9
SPLITS = ('train', 'validation', 'test')


def split_of_subset(subset: int) -> str:
  """Returns the default split of a subset: 0-7 train, 8 validation, 9 test."""
  return {VALIDATION_SUBSET: 'validation', TEST_SUBSET: 'test'}.get(subset, 'train')


def subset_slices(
  shard_subsets: Mapping[str, Sequence[int]],
  shard_label_counts: Mapping[str, Sequence[Sequence[int]]] | None = None,
) -> dict[int, str]:
  """Returns the split string of shards for each subset that has records.

  Args:
    shard_subsets: for each stored split, the subset of each of its shards, as in
      `builder.info.metadata['shard_subsets']`. A shard never mixes subsets.
    shard_label_counts: for each stored split, the number of records of each class of
      each of its shards, as in `builder.info.metadata['shard_label_counts']`. Shards
      without records are left out, because TFDS cannot read a split without records;
      None if every shard has records.

  Returns:
    E.g. {0: 'train[0shard:4shard]', 8: 'validation[0shard:2shard]'}.
  """
  slices: dict[int, list[str]] = {}
  for split, subsets in shard_subsets.items():
    counts = (shard_label_counts or {}).get(split, ())
    empty = {i for i, of_classes in enumerate(counts) if not sum(of_classes)}
    filled = [(i, subset) for i, subset in enumerate(subsets) if i not in empty]
    for subset in sorted({subset for _, subset in filled}):
      positions = [i for i, s in filled if s == subset]
      for first, last in _runs(positions):
        slices.setdefault(subset, []).append(f'{split}[{first}shard:{last + 1}shard]')
  return {subset: '+'.join(parts) for subset, parts in sorted(slices.items())}


def fold_splits(metadata: Mapping[str, Any], fold: int) -> dict[str, str]:
  """Returns the splits of one fold of LUNA16's ten-fold cross-validation.

  Args:
    metadata: `builder.info.metadata` of an extracted dataset.
    fold: 0..9. Fold k tests subset k and validates on subset (k - 1) % 10, so that
      fold 9 is the default split.

  Returns:
    TFDS split strings in shards for 'train', 'validation' and 'test', e.g.
    `train[4shard:32shard]+validation[0shard:4shard]`.

  Raises:
    ValueError: `fold` is out of range, or the dataset has no record of a subset of the
      fold.
  """
  if not 0 <= fold < NUM_SUBSETS:
    raise ValueError(f'the fold must be 0..{NUM_SUBSETS - 1}. Received: {fold}')
  slices = subset_slices(metadata['shard_subsets'], metadata.get('shard_label_counts'))
  held_out = {'validation': (fold - 1) % NUM_SUBSETS, 'test': fold}
  for name, subset in held_out.items():
    if subset not in slices:
      raise ValueError(
        f'fold {fold} needs subset {subset} for its {name} split, but the dataset '
        f'contains only records of subsets {sorted(slices)}'
      )
  train = [s for k, s in slices.items() if k >= 0 and k not in held_out.values()]
  if not train:
    raise ValueError(f'fold {fold}: the dataset contains no other subset to train on')
  return {
    'train': '+'.join(train),
    **{name: slices[subset] for name, subset in held_out.items()},
  }


def _runs(positions: Sequence[int]) -> list[tuple[int, int]]:
  """Groups sorted positions into consecutive runs (first, last)."""
  runs: list[tuple[int, int]] = []
  for position in positions:
    if runs and position == runs[-1][1] + 1:
      runs[-1] = (runs[-1][0], position)
    else:
      runs.append((position, position))
  return runs
