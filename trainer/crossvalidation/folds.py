"""The folds of a cross-validation: planned, trained and scored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import concurrent.futures
import dataclasses
import json
import pathlib
import sys
from typing import Any

import keras
import numpy as np

from luna_tfds import splits
from luna_tfds.command_line import cli
from luna_tfds.errors import JobError
from luna_tfds.errors import UsageError
from luna_tfds.files import atomic_files
from luna_tfds.processes import cores
from luna_tfds.text_format import error_text
from model.metrics.classification import METRICS
from model.metrics.resampling import Resampling
from trainer import config as config_lib
from trainer import workdir as workdir_lib
from trainer.crossvalidation.parallel_training import TrainingProcesses
from trainer.data import dataset as dataset_lib
from trainer.data.dataset import OpenedDataset
from trainer.evaluation import steps
from trainer.evaluation import trained_run
from trainer.report import evaluation_files
from trainer.scoring.scored_records import ScoredRecords
from trainer.training import run as run_lib

# Limit the threads of TensorFlow and of the libraries that it uses.
_THREAD_VARIABLES = (
  'OMP_NUM_THREADS',
  'TF_NUM_INTRAOP_THREADS',
  'TF_NUM_INTEROP_THREADS',
)
# Changes when the results of a fold do, so that folds are scored again.
_SCORES_FORMAT = 4

# NumPy's kinds of the arrays in scores.npz: bool, float, integer, text.
_SCORE_KINDS = {
  **dict.fromkeys(('predicted', 'excluded'), 'b'),
  **dict.fromkeys(('center_xyz_mm', 'spacing_xyz_mm'), 'f'),
  **dict.fromkeys(('diameter_mm', 'probability'), 'f'),
  **dict.fromkeys(('label', 'candidate_id', 'subset', 'nodule_id'), 'i'),
  'seriesuid': 'U',
}


@dataclasses.dataclass(frozen=True)
class FoldPlan:
  """One fold.

  Attributes:
    number: number of the fold, and of the subset it tests.
    config: settings of its training.
    path: its workdir.
    train_fingerprint: fingerprint of the dataset it is trained on.
    test_dataset: the dataset it is tested on.
    test_dataset_argument: what the user called that dataset.
    test_split: split string there.
  """

  number: int
  config: config_lib.TrainConfig
  path: pathlib.Path
  train_fingerprint: str
  test_dataset: OpenedDataset
  test_dataset_argument: str
  test_split: str

  @property
  def metrics_file(self) -> pathlib.Path:
    """The metrics of the fold's test subset.

    Not metrics.json: luna16-evaluate replaces that with the metrics of any split.
    """
    return self.path / 'fold_metrics.json'

  @property
  def report_file(self) -> pathlib.Path:
    """The report of the fold's test subset; report.html is replaced in the same way."""
    return self.path / 'fold_report.html'

  @property
  def scores_file(self) -> pathlib.Path:
    """The scored records and the predictions of the fold."""
    return self.path / 'scores.npz'

  @property
  def training_settings(self) -> dict[str, Any]:
    """What a training depends on, as it is read back from JSON."""
    fields = json.loads(json.dumps(self.config.to_json()))
    return {'config': fields, 'fingerprint': self.train_fingerprint}

  @property
  def is_trained(self) -> bool:
    """Whether the model in the workdir is that of the settings.

    luna16-train, or a command with other settings that was killed, may have replaced the
    model after the state was recorded.
    """
    if self.read_state().get('trained') != self.training_settings:
      return False
    path = workdir_lib.Workdir(self.path).config
    return path.is_file() and config_lib.load(path) == self.config

  def scoring_settings(self, resampling: Resampling) -> dict[str, Any]:
    """What the scores depend on, besides the training."""
    return {
      'dataset': self.test_dataset.name,
      **dataclasses.asdict(resampling),
      'fingerprint': self.test_dataset.metadata.fingerprint,
      'format': _SCORES_FORMAT,
    }

  def read_state(self) -> dict[str, Any]:
    """Returns the settings of what has been done; empty at first.

    Raises:
      UsageError: fold.json is damaged.
    """
    path = self.path / 'fold.json'
    if not path.is_file():
      return {}
    try:
      state: dict[str, Any] = dict(atomic_files.read_json(path))
    except (TypeError, ValueError) as error:
      raise UsageError(
        f'{path}: cannot be read: {error_text(error)}; delete it: a finished training is '
        'kept, and the fold is scored again'
      ) from error
    return state

  def read_metrics(self) -> dict[str, Any]:
    """Returns the metrics of the fold's test subset.

    Raises:
      UsageError: fold_metrics.json is damaged.
    """
    try:
      fields: dict[str, Any] = dict(atomic_files.read_json(self.metrics_file))
      for name in ('records', 'nodules', *METRICS):
        if not isinstance(fields[name], int | float | None):
          raise TypeError(f'{name} must be a number')
      if not all(isinstance(text, str) for text in fields.get('warnings', ())):
        raise TypeError('warnings must be texts')
    except (KeyError, OSError, TypeError, ValueError) as error:
      raise UsageError(
        f'{self.metrics_file}: cannot be read: {error_text(error)}; delete it to score '
        'the fold again'
      ) from error
    return fields

  def write_state(self, **fields: Any) -> None:
    """Records the settings of what has been done."""
    atomic_files.write_json(self.path / 'fold.json', fields)


def plan_folds(
  config: config_lib.TrainConfig,
  workdir: pathlib.Path,
  numbers: Sequence[int],
  test_dataset: str | None = None,
) -> list[FoldPlan]:
  """Plans folds, each with its splits of the one dataset.

  Args:
    config: settings of all trainings; the splits are replaced.
    workdir: gets a folder for each fold.
    numbers: numbers of the folds to plan.
    test_dataset: the dataset of the test split; None for the dataset of the training.

  Raises:
    UsageError: a dataset is missing, or lacks a subset that a fold needs, or the patches
      of the two datasets are of different kinds.
  """
  trained = dataset_lib.open_dataset(config.data_dir, config.dataset)
  tested = trained
  if test_dataset:
    tested = dataset_lib.open_dataset(config.data_dir, test_dataset)
    _check_same_patches(trained, tested)
  plans = []
  for number in numbers:
    of_fold = _fold_splits(trained, number)
    plans.append(
      FoldPlan(
        number=number,
        config=dataclasses.replace(
          config, train_split=of_fold['train'], validation_split=of_fold['validation']
        ),
        path=workdir / f'fold{number}',
        train_fingerprint=trained.metadata.fingerprint,
        test_dataset=tested,
        test_dataset_argument=test_dataset or config.dataset,
        test_split=_test_split(tested, number),
      )
    )
  return plans


def _check_same_patches(trained: OpenedDataset, tested: OpenedDataset) -> None:
  """Before the trainings, which take hours."""
  kinds = [
    (dataset.image_shape, dataset.metadata.patch) for dataset in (trained, tested)
  ]
  if kinds[0] != kinds[1]:
    names = [
      f'{dataset.name} ({dataset.metadata.patch or dataset.image_shape})'
      for dataset in (trained, tested)
    ]
    raise UsageError(
      f'--test_dataset: the patches of {names[1]} are not of the same kind as those of '
      f'{names[0]}; give a dataset of the same shape, spacing and layout'
    )


def train_folds(
  plans: Sequence[FoldPlan], parallel: int, arguments: Sequence[str]
) -> None:
  """Trains the folds that are not trained yet.

  Args:
    plans: plans of the folds.
    parallel: how many at once. More than one run in processes of their own, which write
      to train.log in the folder of the fold.
    arguments: flags of luna16-train for these processes, without workdir and splits.

  Raises:
    UsageError: a training rejected its input.
    JobError: a training failed; those that run at that time are finished first.
    KeyboardInterrupt: Ctrl-C or SIGTERM; all trainings have saved their state and ended.
  """
  waiting = [plan for plan in plans if not plan.is_trained]
  if parallel == 1 or len(waiting) < 2:
    for plan in waiting:
      print(f'fold {plan.number}: training in {plan.path}', file=sys.stderr)
      keras.backend.clear_session()
      run_lib.train(plan.config, plan.path)
      plan.write_state(trained=plan.training_settings)
    return
  threads = max(cores.num_usable_cores() // min(parallel, len(waiting)), 1)
  processes = TrainingProcesses()
  with concurrent.futures.ThreadPoolExecutor(parallel) as pool:
    try:
      started = [
        pool.submit(_train_in_process, processes, p, arguments, threads)
        for p in waiting
      ]
      for done in concurrent.futures.as_completed(started):
        if not done.cancelled() and done.exception():
          for future in started:
            future.cancel()
    except KeyboardInterrupt:
      pool.shutdown(wait=False, cancel_futures=True)
      processes.stop()
      raise
  for future in started:
    if not future.cancelled():
      future.result()


def score_fold(plan: FoldPlan, resampling: Resampling) -> None:
  """Scores the test subset of a fold as luna16-evaluate does, unless that is done.

  Args:
    plan: plan of the fold, which is trained.
    resampling: how the intervals are computed.
  """
  settings, state = plan.scoring_settings(resampling), plan.read_state()
  files = plan.metrics_file, plan.scores_file, plan.report_file
  if state.get('scored') == settings and all(path.is_file() for path in files):
    return
  print(f'fold {plan.number}: scoring subset {plan.number}', file=sys.stderr)
  keras.backend.clear_session()
  runs = trained_run.open_runs([str(plan.path)])
  evaluation = steps.evaluate(runs, plan.test_dataset, plan.test_split, resampling)
  report = evaluation_files.write(evaluation, plan.path)
  atomic_files.link_or_copy(report, plan.report_file)
  atomic_files.write_json(plan.metrics_file, evaluation.result.to_json())
  write_scores(
    plan.scores_file, evaluation.scored.records, evaluation.decision.predicted
  )
  plan.write_state(trained=state['trained'], scored=settings)


def read_scores(path: pathlib.Path) -> tuple[ScoredRecords, np.ndarray]:
  """Reads the scored records of a fold, and [n] bool which are predicted nodules.

  Raises:
    UsageError: the file is damaged.
  """
  try:
    # Opened here: of a damaged file np.load leaves it open.
    with path.open('rb') as file, np.load(file) as arrays:
      columns = dict(arrays)
    _check_columns(columns)
    predicted = columns.pop('predicted')
    return ScoredRecords(**columns), predicted
  except Exception as error:  # of a damaged zip file, errors of many types
    raise UsageError(
      f'{path}: cannot be read: {error_text(error)}; delete it to score the fold again'
    ) from error


def _check_columns(columns: Mapping[str, np.ndarray]) -> None:
  """Raises ValueError if the arrays of a file are not those of `write_scores`."""
  num_records = len(columns['probability'])
  for name, column in columns.items():
    shape = (num_records, 3) if name.endswith('_xyz_mm') else (num_records,)
    if column.shape != shape or column.dtype.kind != _SCORE_KINDS[name]:
      raise ValueError(f'{name} is {column.dtype} {column.shape}, expected {shape}')
  probability = columns['probability']
  if not ((probability >= 0) & (probability <= 1)).all():  # also of NaN
    raise ValueError('probability must be 0 to 1')


def write_scores(
  path: pathlib.Path, records: ScoredRecords, predicted: np.ndarray
) -> None:
  """Writes the scored records of a fold; see `read_scores`.

  Args:
    path: the .npz file.
    records: scored records of the test subset.
    predicted: [n] bool, whether a record is predicted to be a nodule.
  """
  with atomic_files.atomic_write(path) as temporary:
    np.savez_compressed(temporary, **vars(records), predicted=predicted)


def _fold_splits(dataset: OpenedDataset, number: int) -> dict[str, str]:
  try:
    metadata = dataset.metadata
    return splits.fold_splits(
      {
        'shard_subsets': metadata.shard_subsets,
        'shard_label_counts': metadata.shard_label_counts,
      },
      number,
    )
  except ValueError as error:
    raise UsageError(
      f'{dataset.name}: {error}; extract all subsets, or choose other folds with --folds'
    ) from error


def _test_split(dataset: OpenedDataset, number: int) -> str:
  """Returns the split string of a subset; the others may be missing."""
  slices = splits.subset_slices(
    dataset.metadata.shard_subsets, dataset.metadata.shard_label_counts
  )
  return slices[number] if number in slices else _fold_splits(dataset, number)['test']


def _train_in_process(
  processes: TrainingProcesses,
  plan: FoldPlan,
  arguments: Sequence[str],
  threads: int,
) -> None:
  """Trains a fold in a process of its own."""
  atomic_files.make_folders(plan.path)
  log = plan.path / 'train.log'
  print(f'fold {plan.number}: training; see {log}', file=sys.stderr)
  code = processes.run(
    [
      *arguments,
      f'--workdir={plan.path}',
      f'--train_split={plan.config.train_split}',
      f'--validation_split={plan.config.validation_split}',
    ],
    log,
    {name: str(threads) for name in _THREAD_VARIABLES},
  )
  if code:
    last = (log.read_text().splitlines() or ['no output'])[-1]
    error = UsageError if code == cli.EXIT_USAGE else JobError
    raise error(f'fold {plan.number} failed with exit code {code}, see {log}: {last}')
  plan.write_state(trained=plan.training_settings)
