"""A training run from the dataset on disk to the inference model."""

from __future__ import annotations

import dataclasses
import pathlib
import sys

from luna_tfds.command_line import cli
from luna_tfds.errors import UsageError
from luna_tfds.text_format import count_text
from trainer import config as config_lib
from trainer import workdir as workdir_lib
from trainer.data import audit
from trainer.data import balance as balance_lib
from trainer.data import damaged_shards
from trainer.data import dataset as dataset_lib
from trainer.data import shared_scans
from trainer.data import split_index
from trainer.data.split_source import SplitSource
from trainer.training import determinism
from trainer.training import inference_model
from trainer.training import loop
from trainer.training import precision

_DEFAULT_VALIDATION = config_lib.TrainConfig.validation_split


def train(config: config_lib.TrainConfig, path: pathlib.Path) -> str:
  """Trains a network, or continues its training, and writes the inference model.

  Args:
    config: the run.
    path: folder of the run.

  Returns:
    A line for the user.

  Raises:
    UsageError: the dataset is missing, its classes cannot be balanced, the splits for
      training and validation share records or scans, or the folder holds another run.
    JobError: the metadata of the dataset contradict each other, a shard cannot be read,
      another training writes to the folder, or the loss is not a number.
  """
  if config.deterministic:
    determinism.fix_threads()
  dataset = dataset_lib.open_dataset(config.data_dir, config.dataset)
  audit.check_metadata(dataset)
  source = dataset.open_split(config.train_split)
  validation = _open_validation(dataset, config)
  _check_no_overlap(dataset, source, validation)
  # Before config.json is written: the folder of a run that cannot start stays free.
  workdir = workdir_lib.Workdir(path)
  inputs = _with_stored_hard_negatives(config.input, workdir)
  with damaged_shards.reported(source):
    balance = cli.as_usage_error(balance_lib.plan_balance, source, inputs)
  run = loop.TrainingRun(config, source, balance, validation, workdir)
  loop.check(run)
  with damaged_shards.reported(source, validation), workdir.locked():
    changes = workdir.prepare(
      config,
      source.fingerprint,
      dataset.metadata.patch,
      precision.resolve_precision(config.precision),
    )
    if changes:
      print(
        f'luna16-train: warning: {path}: continues with other versions or another '
        f'precision than before: {", ".join(changes)}',
        file=sys.stderr,
      )
    epochs = loop.fit(run)
    point = inference_model.write_inference_model(run)
  return (
    f'{config.model}: {count_text(epochs, "epoch")}, threshold '
    f'{point.threshold:.4g} ({point.chosen_on_text}); model: {workdir.model}'
  )


def _check_no_overlap(
  dataset: dataset_lib.OpenedDataset,
  source: SplitSource,
  validation: SplitSource | None,
) -> None:
  """On scans that were trained on, the best epoch is the one that remembers most."""
  if validation is None:
    return
  splits = f'--train_split={source.split} and --validation_split={validation.split}'
  if shared := source.num_shared_records(validation):
    raise UsageError(
      f'{splits} have {count_text(shared, "record")} in common; give splits without '
      'common records'
    )
  if scans := shared_scans.shared_scans(dataset, source, validation):
    raise UsageError(
      f'{splits} have records of {count_text(len(scans), "scan")} in common, the first '
      f'is {min(scans)}; split between shards, as in train[:4shard] and train[4shard:]'
    )


def _with_stored_hard_negatives(
  config: config_lib.InputConfig, workdir: workdir_lib.Workdir
) -> config_lib.InputConfig:
  """A run that continues draws the records it began with, also if the file changed."""
  if config.hard_negatives and workdir.stored_hard_negatives is not None:
    return dataclasses.replace(config, hard_negatives=str(workdir.hard_negatives))
  return config


def _open_validation(
  dataset: dataset_lib.OpenedDataset, config: config_lib.TrainConfig
) -> SplitSource | None:
  """Opens the validation split; None if there are no records to validate on.

  Only the default split may be missing.
  """
  split = config.validation_split
  if not split:
    return None
  if split == _DEFAULT_VALIDATION and split not in dataset.split_names:
    print(
      f'luna16-train: {dataset.name} has no validation split: the last epoch is used, '
      'and the threshold is 0.5',
      file=sys.stderr,
    )
    return None
  source = dataset.open_split(split)
  with damaged_shards.reported(source):
    source = split_index.with_index(source)
  if split_index.SplitIndex.of_source(source).is_excluded.all():
    print(
      f'luna16-train: warning: the validation split {split} holds excluded findings only: '
      'the last epoch is used, and the threshold is 0.5',
      file=sys.stderr,
    )
    return None
  if split_index.has_one_class(source):
    print(
      f'luna16-train: warning: the validation split {split} holds one class only, '
      'without excluded findings: the best epoch is chosen by the loss, and no threshold '
      'can be chosen there',
      file=sys.stderr,
    )
  return source
