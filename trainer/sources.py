"""Opens a split of an extracted dataset: which files, which records, how many of each."""

from __future__ import annotations

from collections.abc import Callable
import csv
import dataclasses
import functools
import json
import pathlib
from typing import Any

import numpy as np

from luna_tfds import records
from luna_tfds import sampling
from luna_tfds.errors import UsageError

# Kinds of records, as the balance counts and keeps them.
NON_NODULE, NODULE, HARD_NEGATIVE, DROPPED = range(4)

# Non-nodules at or above this quantile of their probabilities are hard, and those that
# were called nodules.
_HARD_QUANTILE = 0.9
_HARD_PROBABILITY = 0.5


@dataclasses.dataclass(frozen=True)
class Piece:
  """A stretch of one shard.

  Attributes:
    path: the file.
    skip: records left out at its start.
    take: records taken after them.
  """

  path: str
  skip: int
  take: int


@dataclasses.dataclass(frozen=True)
class Source:
  """The records of a split.

  Attributes:
    split: the TFDS split string.
    pieces: the files that hold them.
    image_shape: of an image.
    label_counts: records of non-nodules and of nodules.
    num_bytes: about what the records take on disk.
    fingerprint: of the dataset.
  """

  split: str
  pieces: tuple[Piece, ...]
  image_shape: tuple[int, ...]
  label_counts: tuple[int, int]
  num_bytes: int
  fingerprint: str

  @property
  def num_records(self) -> int:
    """Records of the split."""
    return sum(self.label_counts)

  @property
  def prior(self) -> float:
    """Share of nodules."""
    return self.label_counts[1] / max(self.num_records, 1)


def open_builder(data_dir: str, dataset: str) -> Any:
  """Returns a builder that reads an extracted dataset.

  Args:
    data_dir: TFDS data folder.
    dataset: `luna16_patches/<config>`, a config alone, or the folder of a version.

  Raises:
    UsageError: the dataset was never extracted.
  """
  import tensorflow_datasets as tfds

  import luna_tfds

  if (pathlib.Path(dataset) / 'dataset_info.json').is_file():
    return tfds.builder_from_directory(dataset)
  name = (
    dataset if dataset.startswith('luna16_patches') else f'luna16_patches/{dataset}'
  )
  root = pathlib.Path(data_dir).expanduser()
  config = name.partition('/')[2].partition(':')[0] or next(iter(luna_tfds.CONFIGS))
  folder = root / 'luna16_patches' / config
  if not any(folder.glob('*/dataset_info.json')):
    raise UsageError(
      f'{name} is not in {root}; make it with luna16-extract --luna_dir=LUNA16_DOWNLOAD '
      f'--data_dir={root} --config={config}'
    )
  return tfds.builder(name, data_dir=str(root))


def open_source(builder: Any, split: str) -> Source:
  """Opens a split.

  Args:
    builder: from `open_builder`.
    split: any TFDS split string, also of shards: `train[0shard:4shard]+validation`.

  Raises:
    UsageError: there is no such split, or it is empty.
  """
  try:
    info = builder.info.splits[split]
  except (AssertionError, KeyError, ValueError) as error:
    raise UsageError(
      f'the dataset {builder.info.full_name} has no split {split!r}; it has '
      f'{", ".join(builder.info.splits)}'
    ) from error
  pieces = tuple(
    Piece(
      path=str(instruction.filename),
      skip=int(instruction.skip),
      take=int(instruction.examples_in_shard - instruction.skip)
      if instruction.take == -1
      else int(instruction.take),
    )
    for instruction in info.file_instructions
  )
  counts = _label_counts(builder, pieces)
  if not sum(counts):
    raise UsageError(f'the split {split!r} of {builder.info.full_name} is empty')
  image_shape = tuple(builder.info.features['image'].shape)
  return Source(
    split=split,
    pieces=pieces,
    image_shape=image_shape,
    label_counts=counts,
    num_bytes=sum(counts) * records.record_bytes(image_shape),
    fingerprint=metadata(builder).get('fingerprint', ''),
  )


def metadata(builder: Any) -> dict[str, Any]:
  """Returns the metadata that the extraction wrote beside the shards."""
  path = pathlib.Path(builder.data_path) / 'metadata.json'
  return json.loads(path.read_text()) if path.is_file() else {}


def read_hard_negatives(path: str) -> list[str]:
  """Reads which non-nodules an earlier evaluation was worst at.

  Hard are those whose probability there is at least the 90th percentile of all
  non-nodules' in the file, or above 0.5.

  Args:
    path: a predictions.csv as luna16-evaluate writes it; needed are the columns
      seriesuid, candidate_id, label and probability.

  Returns:
    Their record keys, in the file's order.

  Raises:
    UsageError: the file cannot be read, a column is missing, or a row is wrong.
  """
  keys, probabilities = [], []
  try:
    with open(pathlib.Path(path).expanduser(), newline='') as file:
      rows = csv.DictReader(file)
      wanted = ('seriesuid', 'candidate_id', 'label', 'probability')
      missing = [name for name in wanted if name not in (rows.fieldnames or ())]
      if missing:
        raise UsageError(
          f'{path}: no column {missing[0]}; it must be a predictions.csv of '
          'luna16-evaluate'
        )
      for row in rows:
        try:
          key = sampling.record_key(row['seriesuid'], int(row['candidate_id']))
          label, probability = int(row['label']), float(row['probability'])
          if label not in (0, 1) or not 0 <= probability <= 1:
            raise ValueError('label is 0 or 1, probability lies in 0..1')
        except (TypeError, ValueError) as error:
          raise UsageError(f'{path}, line {rows.line_num}: {error}') from error
        if label == 0:
          keys.append(key)
          probabilities.append(probability)
  except (OSError, UnicodeDecodeError, csv.Error) as error:
    raise UsageError(f'{path}: cannot be read: {error}') from error
  if not keys:
    raise UsageError(f'{path}: holds no non-nodule')
  values = np.array(probabilities)
  hard = (values >= np.quantile(values, _HARD_QUANTILE)) | (values > _HARD_PROBABILITY)
  return [key for key, is_hard in zip(keys, hard) if is_hard]


def kind_function(drop_excluded: bool, hard_negatives: str) -> Callable[[Any], Any]:
  """Returns the function that sorts a block of serialised records by kind.

  Args:
    drop_excluded: whether excluded records are of kind DROPPED.
    hard_negatives: predictions.csv whose hard non-nodules are HARD_NEGATIVE; '' for
      none.

  Returns:
    A function from [n] string to [n] int64, for tf.data and eagerly.

  Raises:
    UsageError: the file is wrong.
  """
  import tensorflow as tf

  names = ['label', *(['excluded'] if drop_excluded else [])]
  table = None
  if hard_negatives:
    names += ['seriesuid', 'candidate_id']
    keys = tf.constant(read_hard_negatives(hard_negatives))
    values = tf.fill(tf.shape(keys), tf.constant(HARD_NEGATIVE, tf.int64))
    table = tf.lookup.StaticHashTable(
      tf.lookup.KeyValueTensorInitializer(keys, values), NON_NODULE
    )

  def kinds_of(block: Any) -> Any:
    parsed = records.parse_batch(block, (), names)
    kinds = parsed['label']
    if table is not None:
      candidates = tf.strings.as_string(parsed['candidate_id'])
      hard = table.lookup(
        tf.strings.join([parsed['seriesuid'], candidates], separator='/')
      )
      kinds = tf.where(kinds == NODULE, kinds, hard)
    if drop_excluded:
      dropped = tf.constant(DROPPED, tf.int64)
      kinds = tf.where(parsed['excluded'], dropped, kinds)
    return kinds

  return kinds_of


def count_kinds(
  source: Source, drop_excluded: bool = False, hard_negatives: str = ''
) -> tuple[int, int, int, int]:
  """Counts the records of each kind.

  The metadata tells the classes; what is excluded or hard is found by reading the
  split's records once.

  Args:
    source: the records.
    drop_excluded: as for `kind_function`.
    hard_negatives: as for `kind_function`.

  Returns:
    Records of kind NON_NODULE, NODULE, HARD_NEGATIVE and DROPPED.

  Raises:
    UsageError: the file is wrong, or none of its hard non-nodules is in the split.
  """
  if not drop_excluded and not hard_negatives:
    return (*source.label_counts, 0, 0)
  changed = 0
  if hard_negatives:
    path = pathlib.Path(hard_negatives).expanduser()
    changed = path.stat().st_mtime_ns if path.is_file() else 0
  counts = _read_kinds(source, drop_excluded, hard_negatives, changed)
  if hard_negatives and not counts[HARD_NEGATIVE]:
    raise UsageError(
      f'{hard_negatives}: none of its hard non-nodules is in the split '
      f'{source.split!r}; score that split with luna16-evaluate first'
    )
  return counts


@functools.lru_cache(maxsize=16)
def _read_kinds(
  source: Source, drop_excluded: bool, hard_negatives: str, changed: int
) -> tuple[int, int, int, int]:
  del changed  # so that another version of the file is another key
  kinds_of = kind_function(drop_excluded, hard_negatives)
  counts = np.zeros(4, np.int64)
  for piece in source.pieces:
    counts += _count(piece, kinds_of, 4)
  easy, nodules, hard, dropped = counts.tolist()
  return easy, nodules, hard, dropped


def _label_counts(builder: Any, pieces: tuple[Piece, ...]) -> tuple[int, int]:
  """From the metadata where a shard is whole; else by reading its labels."""
  stored = metadata(builder).get('shard_label_counts', {})
  counts = np.zeros(2, np.int64)
  for piece in pieces:
    name = pathlib.Path(piece.path).name
    split = name.split('-')[1].split('.')[0]
    of_shard = stored.get(split, [])
    index = int(name.split('-')[-3])
    known = of_shard[index] if index < len(of_shard) else None
    if known and piece.skip == 0 and sum(known) == piece.take:
      counts += known
    else:
      counts += _count(piece, kind_function(False, ''), 2)
  return int(counts[0]), int(counts[1])


def _count(piece: Piece, kinds_of: Callable[[Any], Any], kinds: int) -> np.ndarray:
  import tensorflow as tf

  dataset = tf.data.TFRecordDataset(piece.path).skip(piece.skip).take(piece.take)
  dataset = dataset.batch(256).map(kinds_of, num_parallel_calls=2)
  counts = np.zeros(kinds, np.int64)
  for block in dataset:
    counts += np.bincount(block.numpy(), minlength=kinds)
  return counts
