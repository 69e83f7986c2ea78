import csv
import json
import re
import types

import keras
import numpy as np
import pytest

from luna_tfds.errors import JobError
from luna_tfds.errors import UsageError
from trainer import crossval
from trainer import froc
from trainer import train
from trainer import visualize
from trainer import workdir as workdir_lib
from trainer.crossvalidation import folds as folds_lib

DATASET = 'luna16_patches/axial_50px_all'
SMALL = (
  '--model=article_cnn',
  '--epochs=1',
  '--steps_per_epoch=2',
  '--batch_size=8',
  '--bootstrap=20',
)


def run(data_dir, workdir, *more):
  arguments = [f'--data_dir={data_dir}', f'--dataset={DATASET}', f'--workdir={workdir}']
  return crossval.run(['luna16-crossval', *arguments, *SMALL, *map(str, more)])


@pytest.fixture(scope='module')
def finished(data_dir, download, tmp_path_factory):
  """Folds 0 and 3, the second started when the first was done, as after a kill."""
  folder = tmp_path_factory.mktemp('crossval')
  luna_dir = f'--luna_dir={download.folder}'
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(visualize, 'figures', lambda model, image: {})
    assert run(data_dir, folder, luna_dir, '--folds=0') == 0
    before = model_files(folder)
    assert run(data_dir, folder, luna_dir, '--folds=3,0') == 0
  after = model_files(folder)
  assert before.items() < after.items(), 'a finished fold was trained again'
  return folder


def model_files(folder):
  """When each model was written."""
  return {
    path.relative_to(folder): path.stat().st_mtime_ns
    for path in folder.rglob('*.keras')
  }


def read_csv(path):
  with path.open(newline='') as file:
    return list(csv.DictReader(file))


def read_result(folder):
  return json.loads((folder / 'crossval.json').read_text())


@pytest.mark.slow
def test_submission_is_the_predictions_of_the_folds(finished):
  columns = ('seriesuid', 'coordX', 'coordY', 'coordZ', 'probability')
  expected = [
    {name: row[name] for name in columns}
    for fold in (0, 3)
    for row in read_csv(finished / f'fold{fold}' / 'predictions.csv')
  ]
  found = read_csv(finished / 'submission.csv')
  assert found == expected
  assert len(found) > 30
  for row in found:
    digits = re.sub(r'e.*|\.', '', row['probability']).lstrip('0')
    assert len(digits) >= 9


@pytest.mark.slow
def test_each_fold_is_scored_on_its_subset_alone(finished, download):
  for fold in (0, 3):
    rows = read_csv(finished / f'fold{fold}' / 'predictions.csv')
    assert {int(row['subset']) for row in rows} == {fold}
    of_subset = {uid for uid, scan in download.scans.items() if scan.subset == fold}
    assert {row['seriesuid'] for row in rows} == of_subset
    expected = [row for row in download.candidates if row[0] in of_subset]
    assert len(rows) == len(expected)


@pytest.mark.slow
def test_each_fold_has_its_own_weights_and_splits(finished):
  models = [
    keras.models.load_model(finished / f'fold{k}' / 'model.keras', compile=False)
    for k in (0, 3)
  ]
  kernels = [model.get_layer('logit').kernel.numpy() for model in models]
  assert not np.array_equal(*kernels)
  for fold, validation, test in ((0, 9, 0), (3, 2, 3)):
    config = workdir_lib.read_json(finished / f'fold{fold}' / 'config.json')['config']
    metrics = workdir_lib.read_json(finished / f'fold{fold}' / 'metrics.json')
    split_of = [f'train[{k}shard:{k + 1}shard]' for k in range(8)]
    split_of += ['validation[0shard:1shard]', 'test[0shard:1shard]']
    assert config['validation_split'] == split_of[validation]
    assert metrics['split'] == split_of[test]
    left = [s for k, s in enumerate(split_of) if k not in (validation, test)]
    assert config['train_split'].split('+') == left
    assert metrics['records_trained_on'] == 0
    assert metrics['threshold_chosen_on'] == split_of[validation]


@pytest.mark.slow
def test_result_gives_mean_spread_and_pooled_figures(finished):
  result = read_result(finished)
  assert [fold['fold'] for fold in result['folds']] == [0, 3]
  for name in ('pr_auc', 'recall', 'brier', 'ece'):
    values = [fold[name] for fold in result['folds']]
    assert result['mean'][name] == pytest.approx(np.mean(values))
    assert result['std'][name] == pytest.approx(abs(values[0] - values[1]) / 2**0.5)
  pooled = result['pooled']
  assert pooled['records'] == sum(fold['records'] for fold in result['folds'])
  assert pooled['scans'] == 3
  counts = [fold['confusion_matrix'] for fold in result['folds']]
  for name, count in pooled['confusion_matrix'].items():
    assert count == sum(of_fold[name] for of_fold in counts)
  assert set(pooled['intervals']) == set(result['mean'])
  assert [row['subset'] for row in pooled['by_subset']] == [0, 3]


@pytest.mark.slow
def test_froc_is_that_of_the_submission(finished, download, tmp_path):
  # The resamples depend on the order of the scans; ours is sorted.
  listed = sorted(u for u, s in download.scans.items() if s.subset in (0, 3))
  (tmp_path / 'seriesuids.csv').write_text('\n'.join(listed) + '\n')
  code = froc.run(
    [
      'luna16-froc',
      f'--submission={finished / "submission.csv"}',
      f'--annotations={download.folder / "annotations.csv"}',
      f'--annotations_excluded={download.folder / "annotations_excluded.csv"}',
      f'--seriesuids={tmp_path / "seriesuids.csv"}',
      f'--output_dir={tmp_path}',
      '--bootstrap=20',
    ]
  )
  assert code == 0
  expected = json.loads((tmp_path / 'froc.json').read_text())
  assert expected['nodules'] == 3
  assert json.loads((finished / 'froc.json').read_text()) == expected
  assert read_result(finished)['froc'] == expected
  assert (finished / 'froc.png').is_file()


@pytest.mark.slow
def test_run_again_nothing_is_trained_or_scored(
  finished, data_dir, download, monkeypatch, capsys
):
  def refuse(*unused):
    raise AssertionError('done already')

  before = read_result(finished)
  monkeypatch.setattr(train, 'train', refuse)
  monkeypatch.setattr(folds_lib.evaluation, 'evaluate', refuse)
  code = run(data_dir, finished, f'--luna_dir={download.folder}', '--folds=0,3')
  assert code == 0
  assert read_result(finished) == before
  out = capsys.readouterr().out.splitlines()
  assert out[0].split()[:3] == ['fold', 'records', 'nodules']
  assert [line.split()[0] for line in out[1:6]] == ['0', '3', 'mean', 'std', 'pooled']


@pytest.mark.slow
def test_other_settings_are_refused_before_any_training(finished, data_dir, capfd):
  before = model_files(finished)
  assert run(data_dir, finished, '--folds=0', '--learning_rate=0.5') == 2
  assert 'learning_rate' in capfd.readouterr().err.splitlines()[-1]
  assert model_files(finished) == before


def plans_of(data_dir, workdir, *more):
  """The plans that flags lead to."""
  arguments = [f'--data_dir={data_dir}', f'--dataset={DATASET}', f'--workdir={workdir}']
  crossval.FLAGS(['luna16-crossval', *arguments, *SMALL, *more])
  train.FLAGS.mark_as_parsed()
  return folds_lib.plan_folds(train.config_from_flags(), workdir, [1, 2, 4])


def test_folds_side_by_side_share_the_cores(data_dir, tmp_path, monkeypatch):
  started = []

  def pretend(command, env, **unused):
    started.append((command, env))
    return types.SimpleNamespace(returncode=0)

  monkeypatch.setattr(folds_lib.subprocess, 'run', pretend)
  monkeypatch.setattr(folds_lib.os, 'sched_getaffinity', lambda pid: set(range(7)))
  plans = plans_of(data_dir, tmp_path, '--tta', '--folds=1,2,4')
  arguments = crossval._train_arguments()
  assert '--tta' in arguments
  assert not any(
    a.startswith(('--workdir', '--folds', '--bootstrap')) for a in arguments
  )
  folds_lib.train_folds(plans, 3, arguments)
  assert len(started) == 3
  for command, environment in started:
    assert command[1:3] == ['-m', 'trainer.train']
    # The flags of the process make the very config of the plan.
    train.FLAGS(['luna16-train', *command[3:]])
    (plan,) = (p for p in plans if f'--workdir={p.path}' in command)
    assert train.config_from_flags() == plan.config
    assert environment['OMP_NUM_THREADS'] == '2'
  # They count as trained.
  monkeypatch.setattr(folds_lib.subprocess, 'run', None)
  folds_lib.train_folds(plans, 3, arguments)


@pytest.mark.slow
def test_folds_are_trained_once_but_go_on_when_made_longer(
  data_dir, tmp_path, monkeypatch
):
  trained = []

  def pretend(config, path):
    path.mkdir(parents=True, exist_ok=True)
    trained.append((path.name, config.recipe.epochs))

  monkeypatch.setattr(train, 'train', pretend)
  for _ in range(2):
    plans = plans_of(data_dir, tmp_path)
    folds_lib.train_folds(plans, 1, [])
    assert trained == [('fold1', 1), ('fold2', 1), ('fold4', 1)]
  plans[0].remember(**plans[0].state, scored={'seed': 0})
  longer = plans_of(data_dir, tmp_path, '--epochs=2')
  folds_lib.train_folds(longer, 1, [])
  assert trained[3:] == [('fold1', 2), ('fold2', 2), ('fold4', 2)]
  assert 'scored' not in longer[0].state, 'figures of another training'


@pytest.mark.parametrize(('code', 'kind'), [(2, UsageError), (1, JobError)])
def test_a_fold_that_fails_is_told_with_its_log(
  data_dir, tmp_path, monkeypatch, code, kind
):
  def fail(command, stdout, **unused):
    stdout.write('much\nluna16-train: error: no space\n')
    stdout.flush()
    return types.SimpleNamespace(returncode=code)

  monkeypatch.setattr(folds_lib.subprocess, 'run', fail)
  plans = plans_of(data_dir, tmp_path)
  with pytest.raises(kind, match=r'fold 1 failed.*train\.log.*no space'):
    folds_lib.train_folds(plans, 2, [])
  assert all(plan.state == {} for plan in plans)


@pytest.fixture(scope='module')
def three_subsets(download, extract, tmp_path_factory):
  """A data folder with the subsets 0, 1 and 9 alone."""
  folder = tmp_path_factory.mktemp('three')
  code = extract(download.folder, folder, '--config=axial_50px_all', '--subsets=0,1,9')
  assert code == 0
  (version,) = (path.parent for path in folder.rglob('dataset_info.json'))
  return version


@pytest.mark.parametrize(
  ('folds', 'message'),
  [
    ([], 'fold 2 needs subset 2'),
    (['--folds=0,5'], 'fold 5 needs subset'),
    (['--folds=9'], 'fold 9 needs subset 8 for its validation split'),
  ],
)
def test_a_missing_subset_is_named(three_subsets, tmp_path, folds, message, capfd):
  code = run(three_subsets, tmp_path, f'--dataset={three_subsets}', *folds)
  assert code == 2
  (line,) = capfd.readouterr().err.splitlines()
  assert message in line
  assert '--folds' in line
  assert not list(tmp_path.iterdir())


def test_folds_whose_subsets_are_there_are_planned(three_subsets, tmp_path):
  crossval.FLAGS(['', f'--dataset={three_subsets}', f'--workdir={tmp_path}', *SMALL])
  train.FLAGS.mark_as_parsed()
  plans = folds_lib.plan_folds(train.config_from_flags(), tmp_path, [0, 1])
  assert [plan.number for plan in plans] == [0, 1]


@pytest.mark.parametrize(
  ('flag', 'message'),
  [
    ('--folds=10', '--folds lists folds 0..9'),
    ('--folds=1,1', '--folds lists folds 0..9, each once'),
    ('--folds=one', '--folds lists whole numbers'),
    ('--parallel_folds=0', '--parallel_folds must be 1 or more'),
    ('--bootstrap=-1', '--bootstrap must be 0 or more'),
    ('--train_split=train', 'each fold has its own'),
    ('--fold=1', 'Did you mean: folds'),
    ('--annotations_excluded=x.csv', 'needs --annotations'),
    ('--annotations=/nowhere.csv', '/nowhere.csv'),
    ('--luna_dir=/nowhere', '/nowhere'),
    ('--model=resnet', 'no such model'),
    ('--epochs=0', 'epochs must be at least 1'),
    ('--dataset=luna16_patches/cube_48mm', 'luna16-extract'),
    ('--test_dataset=luna16_patches/cube_48mm', 'luna16-extract'),
  ],
)
def test_bad_input_is_one_line_and_exit_code_2(
  data_dir, tmp_path, flag, message, capfd
):
  assert run(data_dir, tmp_path, flag) == 2
  (line,) = capfd.readouterr().err.splitlines()
  assert line.startswith('luna16-crossval: error: ')
  assert message in line


def test_a_sampled_test_dataset_is_warned_of(data_dir, tmp_path):
  plans = plans_of(data_dir, tmp_path, '--dataset=luna16_patches/axial_50px')
  assert 'only a part of the negatives' in plans[0].warnings[0]
  assert plans_of(data_dir, tmp_path)[0].warnings == ()


def test_test_dataset_has_its_own_shards(data_dir, tmp_path):
  plans = plans_of(data_dir, tmp_path, '--dataset=luna16_patches/axial_50px')
  other = folds_lib.plan_folds(plans[0].config, tmp_path, [1], DATASET)
  assert other[0].test_dataset == DATASET
  assert other[0].config.dataset == 'luna16_patches/axial_50px'
  assert other[0].warnings == ()


def test_help_has_the_flags_of_training(capsys):
  assert crossval.run(['luna16-crossval', '--help']) == 0
  printed = capsys.readouterr().out
  assert '--parallel_folds' in printed
  assert '--learning_rate' in printed


@pytest.mark.slow
def test_all_folds_cover_every_candidate(data_dir, download, tmp_path, monkeypatch):
  monkeypatch.setattr(visualize, 'figures', lambda model, image: {})
  luna_dir = f'--luna_dir={download.folder}'
  assert run(data_dir, tmp_path, luna_dir, '--parallel_folds=2') == 0
  found = read_csv(tmp_path / 'submission.csv')
  point = ('seriesuid', 'coordX', 'coordY', 'coordZ')
  marks = {
    tuple([row['seriesuid'], *(float(row[c]) for c in point[1:])]) for row in found
  }
  assert len(found) == len(download.candidates)
  assert marks == {tuple(row[:4]) for row in download.candidates}
  result = read_result(tmp_path)
  assert len(result['folds']) == 10
  assert result['froc']['scans'] == len(download.scans)
  assert result['froc']['nodules'] == len(download.nodules)
