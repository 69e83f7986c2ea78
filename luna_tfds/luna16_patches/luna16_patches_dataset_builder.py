"""The TFDS builder of `luna16_patches`."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import pathlib
from typing import Any

from absl import logging
import tensorflow_datasets as tfds
from tensorflow_datasets.core import dataset_builder

from luna_tfds import records
from luna_tfds import verification
from luna_tfds.errors import UsageError
from luna_tfds.files import store_path
from luna_tfds.luna16_patches import configs

_PREPARER_GROUP = 'luna16_patches.preparer'

# Attribute access would make a new wrapper each time.
_OF_TFDS = vars(dataset_builder.DatasetBuilder)['download_and_prepare']

# Options of `DownloadConfig` that would change which records are written, and where.
_UNSUPPORTED = {
  'max_examples_per_split': 'extract a part of the subsets or other negatives instead',
  'num_shards': 'the shards follow from the subsets and sizes of the scans',
  'min_shard_size': 'the shards follow from the subsets and sizes of the scans',
  'max_shard_size': 'the shards follow from the subsets and sizes of the scans',
}


class Builder(dataset_builder.FileReaderBuilder):
  """Patches around LUNA16's candidates.

  Reading needs neither Beam nor SimpleITK. `download_and_prepare` runs the code of
  `luna16-extract`.
  """

  VERSION = tfds.core.Version('1.0.0')
  RELEASE_NOTES = {'1.0.0': 'Initial release.'}
  BUILDER_CONFIGS = list(configs.CONFIGS.values())
  MANUAL_DOWNLOAD_INSTRUCTIONS = (
    "Put LUNA16's download, unpacked, into `manual_dir`: subset0..subset9, "
    'candidates.csv, annotations.csv, annotations_excluded.csv.'
  )

  def _info(self) -> tfds.core.DatasetInfo:
    info = self.dataset_info_from_configs(
      features=records.features(self.builder_config.spec.image_shape),
      supervised_keys=('image', 'label'),
      homepage='https://luna16.grand-challenge.org/',
      metadata=tfds.core.MetadataDict(),
    )
    # TFDS has no copy of this dataset's metadata. Its method, called where the dataset
    # does not exist yet, would leave an empty folder in TMPDIR each time.
    info.initialize_from_bucket = _do_nothing
    return info

  def download_and_prepare(
    self,
    *,
    download_dir: str | None = None,
    download_config: tfds.download.DownloadConfig | None = None,
    file_format: str | None = None,
    **others: Any,
  ) -> None:
    """Extracts the dataset, or reuses it if it exists; a damaged one is repaired.

    Replaces TFDS's implementation, which writes to a folder with a random name and so
    cannot resume after a crash.

    Args:
      download_dir: its subfolder `manual` is the LUNA16 download, if
        `download_config.manual_dir` does not name it.
      download_config: `manual_dir`, `beam_runner`, `beam_options` and `download_mode`
        are used. Options of other downloads and of statistics have no effect.
      file_format: only 'tfrecord'.
      **others: arguments that later versions of TFDS may pass; they have no effect.

    Raises:
      UsageError: an input is missing or invalid, or an option is not supported.
      JobError: the job failed.
    """
    config = download_config or tfds.download.DownloadConfig()
    if vars(dataset_builder.DatasetBuilder)['download_and_prepare'] is not _OF_TFDS:
      # `tfds.testing.mock_data` replaces the method of the base class.
      super().download_and_prepare(download_config=config)
      return
    _check_supported(config, file_format or self.info.file_format)
    mode = _generate_mode(config.download_mode)
    if mode == tfds.download.GenerateMode.UPDATE_DATASET_INFO:
      super().download_and_prepare(download_config=config)
      return
    problem = f'is not in {self.data_dir_root}'
    if self.data_path.exists() and not mode.overwrite_dataset:
      problems = _file_problems(store_path.as_path(str(self.data_path)))
      if not problems:
        logging.info('Reusing dataset %s (%s)', self.name, self.data_path)
        return
      problem = f'in {self.data_path} is damaged: {problems[0]}'
    root = store_path.as_path(str(download_dir or self.data_dir_root / 'downloads'))
    luna_dir = store_path.as_path(
      str(config.manual_dir or root / 'manual')
    ).expanduser()
    if not luna_dir.is_dir():
      raise UsageError(
        f'{self.info.full_name} {problem}; extract it with luna16-extract '
        f'--luna_dir=LUNA16_DOWNLOAD --data_dir={self.data_dir_root} '
        f'--config={self.builder_config.name}'
      )
    config = dataclasses.replace(config, download_mode=mode)
    self._download_and_prepare(luna_dir, config)
    self.info.read_from_directory(self.data_path)

  def _download_and_prepare(
    self, luna_dir: pathlib.Path, download_config: tfds.download.DownloadConfig
  ) -> None:
    """Runs `beam_jobs.job.prepare`, which this package must not import."""
    preparers = importlib.metadata.entry_points(group=_PREPARER_GROUP)
    if not preparers:
      raise UsageError(
        'the job that extracts the dataset is not installed; install this project '
        "with 'pip install -e .' and try again"
      )
    prepare = next(iter(preparers)).load()
    prepare(
      self,
      luna_dir,
      beam_runner=download_config.beam_runner,
      beam_options=download_config.beam_options,
      overwrite=download_config.download_mode.overwrite_dataset,
    )


def _do_nothing() -> None:
  """Takes the place of `DatasetInfo.initialize_from_bucket`."""


def _generate_mode(
  mode: tfds.download.GenerateMode | str,
) -> tfds.download.GenerateMode:
  """Returns a mode, which may be given as text, as in TFDS's documentation.

  Raises:
    UsageError: there is no such mode.
  """
  try:
    return tfds.download.GenerateMode(mode)
  except ValueError as error:
    raise UsageError(
      f'download_mode must be one of {", ".join(tfds.download.GenerateMode)}. '
      f'Received: {mode!r}'
    ) from error


def _file_problems(folder: pathlib.Path) -> list[str]:
  """Returns what is missing from a dataset, or damaged, without reading the shards."""
  try:
    return verification.check_files(folder)
  except UsageError as error:
    return [str(error)]


def _check_supported(
  config: tfds.download.DownloadConfig,
  file_format: str | tfds.core.FileFormat,
) -> None:
  """Raises UsageError for options that the job does not support."""
  file_format = tfds.core.FileFormat.from_value(file_format)
  if file_format != tfds.core.FileFormat.TFRECORD:
    raise UsageError(
      f'file_format must be tfrecord. Received: {file_format.value}; convert the '
      "extracted dataset with TFDS's command `tfds convert_format`"
    )
  default = tfds.download.DownloadConfig()
  for name, advice in _UNSUPPORTED.items():
    value = getattr(config, name)
    if value != getattr(default, name):
      raise UsageError(f'{name}={value} is not supported; {advice}')
