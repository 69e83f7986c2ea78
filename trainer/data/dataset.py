"""Opens an extracted dataset, once: its metadata and its splits."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
import dataclasses
import difflib
import pathlib

import numpy as np
import tensorflow_datasets as tfds

import luna_tfds
from luna_tfds import record_index
from luna_tfds import records
from luna_tfds import stored_dataset
from luna_tfds import stored_metadata
from luna_tfds.errors import JobError
from luna_tfds.errors import UsageError
from luna_tfds.files import atomic_files
from luna_tfds.files import store_path
from luna_tfds.files.store_requests import StoreError
from luna_tfds.record_index import ShardIndex
from luna_tfds.stored_dataset import FEATURES_FILE
from luna_tfds.stored_dataset import INFO_FILE
from luna_tfds.stored_metadata import StoredMetadata
from luna_tfds.text_format import count_text
from luna_tfds.text_format import error_text
from trainer.data import damaged_shards
from trainer.data import store_records
from trainer.data.split_source import ShardSlice
from trainer.data.split_source import SplitSource

_EXTRACT_AGAIN = 'extract the dataset again with luna16-extract'
_LABELS_PER_READ = 1024


@dataclasses.dataclass(frozen=True)
class OpenedDataset:
  """An extracted dataset on disk.

  Attributes:
    builder: the TFDS builder; it can read only a dataset that is not in a store.
    folder: folder of the shards and the metadata.
    metadata: metadata that the extraction wrote.
    indexes: the index of each shard, by split; empty if the dataset has none.
  """

  builder: tfds.core.DatasetBuilder
  folder: pathlib.Path
  metadata: StoredMetadata
  indexes: Mapping[str, Sequence[ShardIndex]] = dataclasses.field(default_factory=dict)

  @property
  def name(self) -> str:
    """E.g. `luna16_patches/axial_50px/1.0.0`."""
    return str(self.builder.info.full_name)

  @property
  def split_names(self) -> tuple[str, ...]:
    """The stored splits."""
    return tuple(self.builder.info.splits)

  @property
  def image_shape(self) -> tuple[int, ...]:
    """Shape of an image."""
    return tuple(self.builder.info.features['image'].shape)

  @property
  def holds_all_candidates(self) -> bool:
    """Whether the extraction left out no candidate of the scans."""
    selection = self.metadata.selection
    if selection:
      return selection.negatives_per_positive is None
    # Metadata of release 1.0.0 of this package do not say it, but names of configs do.
    config = pathlib.PurePath(self.name).parts[1]
    return config == 'article' or 'all' in config.split('_')

  def shard_lengths(self, split: str) -> list[int]:
    """Returns the records of each shard of a stored split."""
    return [int(n) for n in self.builder.info.splits[split].shard_lengths]

  def has_split(self, split: str) -> bool:
    """Whether a TFDS split string names records of this dataset."""
    try:
      return bool(self.builder.info.splits[split].num_examples)
    except (AssertionError, KeyError, ValueError):
      return False

  def open_split(self, split: str) -> SplitSource:
    """Opens a split.

    Args:
      split: any TFDS split string, also of shards: `train[0shard:4shard]+validation`.

    Raises:
      UsageError: there is no such split, or it is empty, or the metadata are damaged.
      JobError: a shard has to be read, and cannot be.
    """
    try:
      info = self.builder.info.splits[split]
    except (AssertionError, KeyError, ValueError) as error:
      raise UsageError(
        f'the dataset {self.name} has no split {split!r}; it has '
        f'{", ".join(self.split_names)}'
      ) from error
    try:
      slices = tuple(self._shard_slice(item) for item in info.file_instructions)
    except ValueError as error:  # names of splits or files that no dataset has
      raise UsageError(
        f'{self.folder}: dataset_info.json is damaged: {error_text(error)}; run '
        'luna16-extract again'
      ) from error
    source = self._source(split, slices)
    if not source.num_records:
      raise UsageError(f'the split {split!r} of {self.name} is empty')
    return source

  def in_subsets(self, source: SplitSource, subsets: Collection[int]) -> SplitSource:
    """Returns the shards of a split that belong to some subsets of LUNA16.

    Args:
      source: a split of this dataset.
      subsets: numbers of the subsets of LUNA16, 0 to 9; shards of an unknown subset
        belong to all.

    Returns:
      The shards; a split without records if there are none.
    """
    slices = []
    for item in source.slices:
      split, number = records.parse_shard_name(pathlib.PurePath(item.path).name)
      of_shards = self.metadata.shard_subsets.get(split, ())
      subset = of_shards[number] if number < len(of_shards) else -1
      if subset < 0 or subset in subsets:
        slices.append(item)
    return self._source(source.split, tuple(slices))

  def in_files(self, source: SplitSource, paths: Collection[str]) -> SplitSource:
    """Returns the part of a split of this dataset that is in some files."""
    slices = tuple(item for item in source.slices if item.path in paths)
    return self._source(source.split, slices)

  def _source(self, split: str, slices: tuple[ShardSlice, ...]) -> SplitSource:
    uncounted = SplitSource(
      split=split,
      slices=slices,
      image_shape=self.image_shape,
      label_counts=(0, 0),
      num_bytes=0,
      fingerprint=self.metadata.fingerprint,
    )
    with damaged_shards.reported(uncounted):
      label_counts = self._label_counts(slices)
    return dataclasses.replace(
      uncounted,
      label_counts=label_counts,
      num_bytes=sum(label_counts) * records.record_bytes(self.image_shape),
    )

  def _shard_slice(
    self, instruction: tfds.core.utils.shard_utils.FileInstruction
  ) -> ShardSlice:
    """Converts TFDS's instruction on what to read of a file."""
    path = self.folder / pathlib.PurePath(instruction.filename).name
    skip, take = int(instruction.skip), int(instruction.take)
    if take == -1:
      take = int(instruction.examples_in_shard) - skip
    split, number = records.parse_shard_name(path.name)
    of_split = self.indexes.get(split, ())
    index = of_split[number] if number < len(of_split) else None
    return ShardSlice(str(path), skip, take, index)

  def _label_counts(self, slices: Sequence[ShardSlice]) -> tuple[int, int]:
    """From the metadata or the index; else by reading the labels."""
    counts = np.zeros(2, np.int64)
    for item in slices:
      split, number = records.parse_shard_name(pathlib.PurePath(item.path).name)
      of_shards = self.metadata.shard_label_counts.get(split, ())
      known = of_shards[number] if number < len(of_shards) else None
      if known and item.skip == 0 and sum(known) == item.take:
        counts += np.asarray(known)
      elif item.index:
        nodules = np.asarray(item.index.nodules, np.int64) - item.skip
        num_nodules = int(((nodules >= 0) & (nodules < item.take)).sum())
        counts += (item.take - num_nodules, num_nodules)
      else:
        counts += _read_label_counts(item)
    return int(counts[0]), int(counts[1])


def open_dataset(data_dir: str, dataset: str) -> OpenedDataset:
  """Opens an extracted dataset.

  Args:
    data_dir: TFDS data folder.
    dataset: `luna16_patches/<config>`, a config alone, or the folder of a version.

  Raises:
    UsageError: the dataset was never extracted, or its metadata are damaged.
  """
  folder = find_folder(data_dir, dataset)
  builder = _open_builder(folder, data_dir, dataset)
  path = folder / stored_metadata.METADATA_FILE
  try:
    if not path.is_file():
      return OpenedDataset(builder, folder, StoredMetadata())
    metadata = stored_metadata.read(folder)
    path = folder / record_index.RECORD_INDEX
    indexes = record_index.read_record_index(folder)
    _check_lengths(builder, indexes)
  except StoreError:
    raise
  except (AttributeError, KeyError, OSError, TypeError, ValueError) as error:
    raise UsageError(
      f'{path}: cannot be read: {error_text(error)}; {_EXTRACT_AGAIN}'
    ) from error
  return OpenedDataset(builder, folder, metadata, indexes)


def _check_lengths(
  builder: tfds.core.DatasetBuilder, indexes: Mapping[str, Sequence[ShardIndex]]
) -> None:
  """Raises ValueError if an index is of other shards than those of the dataset."""
  for split, of_split in indexes.items():
    lengths = [index.num_records for index in of_split]
    info = builder.info.splits.get(split)
    if info is None or lengths != [int(n) for n in info.shard_lengths]:
      raise ValueError(
        f'{split} has shards of other lengths than in {INFO_FILE}; they are of '
        'different datasets'
      )


def find_folder(data_dir: str, dataset: str) -> pathlib.Path:
  """Returns the folder of an extracted dataset, without opening it.

  Args:
    data_dir: TFDS data folder.
    dataset: as for `open_dataset`; of several versions, the last is returned.

  Raises:
    UsageError: the dataset was never extracted.
  """
  version_folder = store_path.as_path(dataset).expanduser()
  if (version_folder / INFO_FILE).is_file():
    return version_folder
  if version_folder.is_absolute() or version_folder.is_dir():
    raise UsageError(
      f'{version_folder}: no dataset in it ({INFO_FILE} is missing); give the folder of '
      'a version, e.g. DATA_DIR/luna16_patches/axial_50px/1.0.0, or '
      'luna16_patches/<config>'
    )
  name = _full_name(dataset)
  root = store_path.as_path(data_dir).expanduser()
  config, _, version = name.partition('/')[2].partition(':')
  config = config or next(iter(luna_tfds.CONFIGS))
  folder = root / records.DATASET_NAME / config
  found = [path.parent for path in folder.glob(f'{version or "*"}/{INFO_FILE}')]
  # Also folders like `1.0.0.incomplete`, which are not versions.
  found = [path for path in found if tfds.core.Version.is_valid(path.name)]
  if not found:
    extracted = [p.parents[1].name for p in folder.parent.glob(f'*/*/{INFO_FILE}')]
    known = [*extracted, *luna_tfds.CONFIGS]
    similar = difflib.get_close_matches(config, known, n=1)
    if similar and config not in known:
      raise UsageError(f'{name} is not in {root}; did you mean {similar[0]}?')
    raise UsageError(
      f'{name} is not in {root}; make it with luna16-extract --luna_dir=LUNA16_DOWNLOAD '
      f'--data_dir={root} --config={config}'
    )
  return max(found, key=lambda path: tfds.core.Version(path.name))


def _open_builder(
  folder: pathlib.Path, data_dir: str, dataset: str
) -> tfds.core.DatasetBuilder:
  for name in (INFO_FILE, FEATURES_FILE):
    _check_is_json(folder / name)
  try:
    with stored_dataset.metadata_folder(folder) as local:
      if folder == store_path.as_path(dataset).expanduser():
        builder = tfds.builder_from_directory(str(local))
      else:
        is_copy = local != folder
        root = local.parents[2] if is_copy else pathlib.Path(data_dir).expanduser()
        builder = tfds.builder(_full_name(dataset), data_dir=str(root))
      _check_contents(builder)
      return builder
  except Exception as error:  # of a damaged file TFDS raises errors of many types
    raise UsageError(
      f'{folder}: {INFO_FILE} or {FEATURES_FILE} cannot be read: {error_text(error)}; '
      f'{_EXTRACT_AGAIN}'
    ) from error


def _check_contents(builder: tfds.core.DatasetBuilder) -> None:
  """Raises an error now where TFDS would raise it when a split is opened."""
  features = builder.info.features
  if not isinstance(features, tfds.features.FeaturesDict) or 'image' not in features:
    raise ValueError('the feature image is missing')
  for split in builder.info.splits.values():
    _ = split.filepaths  # formats the names of the files


def _check_is_json(path: pathlib.Path) -> None:
  """TFDS's errors do not name the file."""
  try:
    if not isinstance(atomic_files.read_json(path), dict):
      raise ValueError('it must hold a JSON object')
  except (OSError, ValueError) as error:
    reason = getattr(error, 'strerror', None) or error_text(error)
    raise UsageError(f'{path}: cannot be read: {reason}; {_EXTRACT_AGAIN}') from error


def _full_name(dataset: str) -> str:
  """Returns `luna16_patches/<config>` for a config or a full name."""
  is_full = dataset.startswith(records.DATASET_NAME)
  return dataset if is_full else f'{records.DATASET_NAME}/{dataset}'


def _read_label_counts(item: ShardSlice) -> np.ndarray:
  counts = np.zeros(2, np.int64)
  dataset = store_records.file_records(item.path).skip(item.skip).take(item.take)
  for block in dataset.batch(_LABELS_PER_READ):
    labels = records.parse_batch(block, (), ['label'])['label']
    counts += np.bincount(labels.numpy(), minlength=2)
  if counts.sum() != item.take:
    raise JobError(
      f'{item.path}: holds {count_text(int(counts.sum()), "record")} where '
      f'{INFO_FILE} says {item.take}; restore the shard, or extract the dataset again'
    )
  return counts
