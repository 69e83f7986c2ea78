"""The TFDS builder of `luna16_patches`."""

from __future__ import annotations

import importlib.metadata
import pathlib
from typing import Any

from absl import logging
import tensorflow_datasets as tfds
from tensorflow_datasets.core import dataset_builder

from luna_tfds import records
from luna_tfds.errors import UsageError
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
    return self.dataset_info_from_configs(
      features=records.features(self.builder_config.spec.image_shape),
      supervised_keys=('image', 'label'),
      homepage='https://luna16.grand-challenge.org/',
      metadata=tfds.core.MetadataDict(),
    )

  def download_and_prepare(
    self,
    *,
    download_dir: str | None = None,
    download_config: tfds.download.DownloadConfig | None = None,
    file_format: str | None = None,
    **others: Any,
  ) -> None:
    """Extracts the dataset, or reuses it if it exists.

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
    if config.download_mode == tfds.download.GenerateMode.UPDATE_DATASET_INFO:
      super().download_and_prepare(download_config=config)
      return
    if self.data_path.exists() and not config.download_mode.overwrite_dataset:
      logging.info('Reusing dataset %s (%s)', self.name, self.data_path)
      return
    root = pathlib.Path(download_dir or self.data_dir_root / 'downloads')
    luna_dir = pathlib.Path(config.manual_dir or root / 'manual').expanduser()
    if not luna_dir.is_dir():
      raise UsageError(
        f'{self.info.full_name} is not in {self.data_dir_root}; extract it with '
        f'luna16-extract --luna_dir=LUNA16_DOWNLOAD --data_dir={self.data_dir_root} '
        f'--config={self.builder_config.name}'
      )
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
