"""The folds of a cross-validation: plan, train, score, merge; for `luna16-crossval`."""

from __future__ import annotations

from collections.abc import Sequence
import concurrent.futures
import dataclasses
import json
import os
import pathlib
import subprocess
import sys
from typing import Any

import keras
import numpy as np

from luna_tfds import candidates
from luna_tfds import cli
from luna_tfds import splits
from luna_tfds.errors import JobError
from luna_tfds.errors import UsageError
from model import bootstrap
from trainer import breakdown
from trainer import config as config_lib
from trainer import evaluation
from trainer import froc
from trainer import predict
from trainer import report
from trainer import scoring
from trainer import sources
from trainer import train
from trainer import workdir as workdir_lib

# Read by TensorFlow and by the libraries below it.
_THREAD_VARIABLES = (
  'OMP_NUM_THREADS',
  'TF_NUM_INTRAOP_THREADS',
  'TF_NUM_INTEROP_THREADS',
)
_COLUMNS = {
  'pr_auc': 'PR AUC',
  'roc_auc': 'ROC AUC',
  'recall': 'recall',
  'precision': 'precision',
  'f1': 'F1',
}


@dataclasses.dataclass(frozen=True)
class FoldPlan:
  """One fold.

  Attributes:
    number: of the fold, and of the subset it tests.
    config: of its training.
    path: its workdir.
    test_dataset: dataset it is tested on.
    test_split: split string there.
    warnings: what the reader of its figures should know.
  """

  number: int
  config: config_lib.TrainConfig
  path: pathlib.Path
  test_dataset: str
  test_split: str
  warnings: tuple[str, ...] = ()

  @property
  def state(self) -> dict[str, Any]:
    """What has been done, for which settings; empty at first."""
    path = self.path / 'fold.json'
    return workdir_lib.read_json(path) if path.is_file() else {}

  def remember(self, **fields: Any) -> None:
    """Writes down what has been done."""
    workdir_lib.write_json(self.path / 'fold.json', fields)


def plan_folds(
  config: config_lib.TrainConfig,
  workdir: pathlib.Path,
  numbers: Sequence[int],
  test_dataset: str | None = None,
) -> list[FoldPlan]:
  """Plans folds, each with its splits of the one dataset.

  Args:
    config: of all trainings; the splits are replaced.
    workdir: gets a folder a fold.
    numbers: of the folds.
    test_dataset: to test on; None takes that of the training.

  Raises:
    UsageError: a dataset is missing, or lacks a subset that a fold needs.
  """
  test_dataset = test_dataset or config.dataset
  builder = sources.open_builder(config.data_dir, config.dataset)
  test_builder = sources.open_builder(config.data_dir, test_dataset)
  warnings = _warnings(test_builder)
  plans = []
  for number in numbers:
    ours = _fold_splits(builder, number)
    tested = _fold_splits(test_builder, number, ('test',))
    plans.append(
      FoldPlan(
        number=number,
        config=dataclasses.replace(
          config, train_split=ours['train'], validation_split=ours['validation']
        ),
        path=workdir / f'fold{number}',
        test_dataset=test_dataset,
        test_split=tested['test'],
        warnings=warnings,
      )
    )
  return plans


def train_folds(
  plans: Sequence[FoldPlan], parallel: int, arguments: Sequence[str]
) -> None:
  """Trains the folds that are not trained yet.

  Args:
    plans: of the folds.
    parallel: how many at once; more than one run in processes of their own, which
      write to train.log in the folder of the fold.
    arguments: flags of luna16-train for these processes, without workdir and splits.

  Raises:
    UsageError: a training refused its input.
    JobError: a training failed; those at its side are finished first.
  """
  waiting = [plan for plan in plans if plan.state.get('trained') != _identity(plan)]
  if parallel == 1 or len(waiting) < 2:
    for plan in waiting:
      print(f'fold {plan.number}: training in {plan.path}', file=sys.stderr)
      keras.backend.clear_session()
      train.train(plan.config, plan.path)
      plan.remember(trained=_identity(plan))
    return
  threads = max(len(os.sched_getaffinity(0)) // min(parallel, len(waiting)), 1)
  with concurrent.futures.ThreadPoolExecutor(parallel) as pool:
    started = [pool.submit(_train_apart, p, arguments, threads) for p in waiting]
    for done in concurrent.futures.as_completed(started):
      if not done.cancelled() and done.exception():
        for future in started:
          future.cancel()
  for future in started:
    if not future.cancelled():
      future.result()


def score_fold(plan: FoldPlan, resamples: int, seed: int) -> None:
  """Scores a fold's test subset as luna16-evaluate does, unless that is done.

  Args:
    plan: of the fold.
    resamples: for the intervals.
    seed: of the resampling.
  """
  settings = {'dataset': plan.test_dataset, 'resamples': resamples, 'seed': seed}
  settings['fingerprint'] = _fingerprint(plan.config.data_dir, plan.test_dataset)
  state = plan.state
  if state.get('scored') == settings:
    return
  print(f'fold {plan.number}: scoring subset {plan.number}', file=sys.stderr)
  keras.backend.clear_session()
  result = evaluation.evaluate(
    [str(plan.path)],
    split=plan.test_split,
    data_dir=plan.config.data_dir,
    dataset=plan.test_dataset,
    bootstrap=resamples,
    seed=seed,
  )
  evaluation.write(result, plan.path)
  arrays: dict[str, Any] = {
    **result.scores.features,
    'probabilities': result.scores.probabilities,
    'called': result.decision.called,
  }
  np.savez_compressed(plan.path / 'scores.npz', **arrays)
  plan.remember(trained=state['trained'], scored=settings)


def merge(
  plans: Sequence[FoldPlan],
  workdir: pathlib.Path,
  findings: Any,
  resamples: int,
  seed: int,
) -> dict[str, Any]:
  """Joins the folds: submission.csv, the FROC curve, and crossval.json last.

  Args:
    plans: of the folds, scored.
    workdir: to write to.
    findings: a `crossval.Findings`, or None for no FROC curve.
    resamples: for the intervals.
    seed: of the resampling.

  Returns:
    What crossval.json holds.
  """
  scores, called = _pool(plans)
  resampling = breakdown.Resampling(resamples, seed)
  metadata = sources.metadata(
    sources.open_builder(plans[0].config.data_dir, plans[0].test_dataset)
  )
  folds = [_fold_row(plan) for plan in plans]
  result: dict[str, Any] = {
    'dataset': plans[0].config.dataset,
    'test_dataset': plans[0].test_dataset,
    'model': plans[0].config.model,
    'folds': folds,
    **_spread(folds),
    'pooled': {
      **evaluation.figures(scores, called, resampling),
      **evaluation.breakdowns(scores, called, resampling, metadata),
    },
    'warnings': list(plans[0].warnings),
  }
  submission = workdir / 'submission.csv'
  features = scores.features
  marks = candidates.Table(
    features['seriesuid'].astype(object),
    features['center_xyz_mm'],
    scores.probabilities,
    np.arange(len(scores)),
  )
  predict.write_submission(submission, marks, scores.probabilities)
  if findings is not None:
    scored = froc.score_submission(
      # As it was written, so that luna16-froc gives the same figures.
      candidates.read_table(submission, 'probability'),
      findings.nodules,
      findings.excluded,
      findings.seriesuids or sorted(set(features['seriesuid'])),
      bootstrap=resamples,
      seed=seed,
    )
    froc.write_outputs(scored, workdir)
    result['froc'] = scored.to_json()
    result['warnings'] += scored.warnings
  result = evaluation.without_nan(result)
  workdir_lib.write_json(workdir / 'crossval.json', result)
  return result


def table(result: dict[str, Any]) -> str:
  """Returns the figures of the folds as text."""
  head = ''.join(f'{title:>11}' for title in _COLUMNS.values())
  lines = [f'{"fold":<8}{"records":>9}{"nodules":>9}{head}']

  def line(name: str, row: dict[str, Any], *counts: Any) -> str:
    texts = [report.number(row.get(column), 4) for column in _COLUMNS]
    left = ''.join(f'{count:>9}' for count in counts)
    return f'{name:<8}{left:<18}' + ''.join(f'{text:>11}' for text in texts)

  for fold in result['folds']:
    lines.append(line(str(fold['fold']), fold, fold['records'], fold['nodules']))
  lines.append(line('mean', result['mean']))
  lines.append(line('std', result['std']))
  pooled = result['pooled']
  lines.append(line('pooled', pooled, pooled['records'], pooled['nodules']))
  intervals = pooled.get('intervals', {})
  for column, title in _COLUMNS.items():
    if text := report.interval(intervals.get(column)):
      lines.append(f'  {title} of all folds, 95 % interval over scans: {text}')
  if 'froc' in result:
    lines.append(f'  CPM {result["froc"]["cpm"]:.3f}')
  return '\n'.join(lines)


def _fold_splits(
  builder: Any, number: int, names: Sequence[str] = ('train', 'validation', 'test')
) -> dict[str, str]:
  metadata = sources.metadata(builder)
  slices = splits.subset_slices(metadata.get('shard_subsets', {}))
  if names == ('test',) and number in slices:
    return {'test': slices[number]}
  try:
    return splits.fold_splits(metadata, number)
  except (ValueError, KeyError) as error:
    raise UsageError(
      f'{builder.info.full_name}: {error}; extract all subsets, or choose other folds '
      'by --folds'
    ) from error


def _warnings(builder: Any) -> tuple[str, ...]:
  config = getattr(builder, 'builder_config', None)
  if getattr(config, 'negatives_per_positive', None) is None:
    return ()
  return (
    f'{builder.info.full_name} holds only a part of the negatives: false positives per '
    "scan come out too low for LUNA16's protocol; test on all candidates, e.g. by "
    '--test_dataset=luna16_patches/axial_50px_all',
  )


def _fingerprint(data_dir: str, dataset: str) -> str:
  builder = sources.open_builder(data_dir, dataset)
  return sources.metadata(builder).get('fingerprint', '')


def _identity(plan: FoldPlan) -> dict[str, Any]:
  """What a training depends on, as it is read back from JSON."""
  fields = json.loads(json.dumps(plan.config.to_json()))
  data = _fingerprint(plan.config.data_dir, plan.config.dataset)
  return {'config': fields, 'fingerprint': data}


def _train_apart(plan: FoldPlan, arguments: Sequence[str], threads: int) -> None:
  """Trains a fold in a process of its own."""
  plan.path.mkdir(parents=True, exist_ok=True)
  log = plan.path / 'train.log'
  print(f'fold {plan.number}: training; see {log}', file=sys.stderr)
  command = [sys.executable, '-m', 'trainer.train', *arguments]
  command += [
    f'--workdir={plan.path}',
    f'--train_split={plan.config.train_split}',
    f'--validation_split={plan.config.validation_split}',
  ]
  environment = {**os.environ, **{name: str(threads) for name in _THREAD_VARIABLES}}
  with log.open('w') as file:
    code = subprocess.run(
      command, stdout=file, stderr=subprocess.STDOUT, env=environment, check=False
    ).returncode
  if code:
    last = (log.read_text().splitlines() or ['no output'])[-1]
    kind = UsageError if code == cli.EXIT_USAGE else JobError
    raise kind(f'fold {plan.number} failed with exit code {code}, see {log}: {last}')
  plan.remember(trained=_identity(plan))


def _pool(plans: Sequence[FoldPlan]) -> tuple[scoring.Scores, np.ndarray]:
  """Returns the scores of all folds, and [n] bool what each fold calls a nodule."""
  parts: list[dict[str, np.ndarray]] = []
  for plan in plans:
    with np.load(plan.path / 'scores.npz') as arrays:
      parts.append(dict(arrays))
  merged = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
  called = merged.pop('called')
  probabilities = merged.pop('probabilities')
  return scoring.Scores(merged, probabilities), called


def _fold_row(plan: FoldPlan) -> dict[str, Any]:
  """The figures of a fold; what is broken down stays in its metrics.json."""
  metrics = workdir_lib.read_json(plan.path / 'metrics.json')
  left_out = ('article', 'by_diameter', 'by_subset', 'by_slice_thickness')
  return {
    'fold': plan.number,
    **{k: v for k, v in metrics.items() if k not in left_out},
  }


def _spread(folds: Sequence[dict[str, Any]]) -> dict[str, dict[str, float | None]]:
  """Mean and standard deviation over the folds where a figure is defined."""
  mean: dict[str, float | None] = {}
  std: dict[str, float | None] = {}
  for name in bootstrap.INTERVAL_METRICS:
    values = [fold[name] for fold in folds if fold[name] is not None]
    mean[name] = float(np.mean(values)) if values else None
    std[name] = float(np.std(values, ddof=1)) if len(values) > 1 else None
  return {'mean': mean, 'std': std}
