"""Opens a split of an extracted dataset: which files, which records, how many of each."""

from __future__ import annotations

import dataclasses
import json
import pathlib
from typing import Any

import numpy as np

from luna_tfds import records
from luna_tfds.errors import UsageError


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
  except (KeyError, ValueError) as error:
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
      counts += _count_labels(piece)
  return int(counts[0]), int(counts[1])


def _count_labels(piece: Piece) -> np.ndarray:
  import tensorflow as tf

  dataset = tf.data.TFRecordDataset(piece.path).skip(piece.skip).take(piece.take)
  counts = np.zeros(2, np.int64)
  for block in dataset.batch(1024):
    labels = records.parse_batch(block, (), ['label'])['label'].numpy()
    counts += np.bincount(labels, minlength=2)
  return counts
