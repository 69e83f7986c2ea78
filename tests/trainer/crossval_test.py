"""The command; see crossvalidation/ for tests of folds and merging.

Trainings and the merging of their results are slow.
"""

import csv
import json
import re

import keras
import numpy as np
import pytest

from luna_tfds.files import atomic_files
from trainer import config as config_lib
from trainer import crossval
from trainer import froc
from trainer.crossvalidation import fold_text_table
from trainer.crossvalidation import folds as folds_lib
from trainer.crossvalidation import merged_files
from trainer.crossvalidation import merging

DATASET = 'luna16_patches/axial_50px_all'
SMALL = (
  '--model=article_cnn',
  '--epochs=1',
  '--steps_per_epoch=2',
  '--batch_size=8',
  '--bootstrap=20',
)

pytestmark = pytest.mark.usefixtures('no_network_pictures')


def run(data_dir, workdir, *more):
  arguments = [f'--data_dir={data_dir}', f'--dataset={DATASET}', f'--workdir={workdir}']
  return crossval.run(['luna16-crossval', *arguments, *SMALL, *map(str, more)])


@pytest.fixture(scope='module')
def finished(data_dir, download, tmp_path_factory):
  """Folds 0 and 3; the second is started when the first is done, as after a kill."""
  folder = tmp_path_factory.mktemp('crossval')
  luna_dir = f'--luna_dir={download.folder}'
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
  split_of = [f'train[{k}shard:{k + 1}shard]' for k in range(8)]
  split_of += ['validation[0shard:1shard]', 'test[0shard:1shard]']
  for fold, validation in ((0, 9), (3, 2)):
    config = atomic_files.read_json(finished / f'fold{fold}' / 'config.json')['config']
    metrics = atomic_files.read_json(finished / f'fold{fold}' / 'fold_metrics.json')
    assert config['validation_split'] == split_of[validation]
    assert metrics['split'] == split_of[fold]
    rest = [s for k, s in enumerate(split_of) if k not in (validation, fold)]
    assert config['train_split'].split('+') == rest
    assert metrics['records_trained_on'] == 0
    assert metrics['threshold_chosen_on'] == split_of[validation]


@pytest.mark.slow
def test_result_has_mean_deviation_and_pooled_metrics(finished):
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
  assert {*pooled['intervals'], 'cpm'} == set(result['mean'])
  assert [row['subset'] for row in pooled['by_subset']] == [0, 3]


@pytest.mark.slow
def test_froc_is_that_of_luna16_froc_on_the_submission(finished, download, tmp_path):
  # The resamples depend on the order of the scans, which is sorted.
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
  assert (finished / 'froc.png').read_bytes() == (tmp_path / 'froc.png').read_bytes()


@pytest.mark.slow
def test_report_links_the_reports_of_the_folds(finished):
  page = (finished / 'report.html').read_text()
  for fold in (0, 3):
    assert f'<a href="fold{fold}/fold_report.html">fold {fold}</a>' in page
    report = (finished / f'fold{fold}' / 'fold_report.html').read_text()
    assert f'train[{fold}shard:{fold + 1}shard]' in report


@pytest.mark.slow
def test_run_again_nothing_is_trained_or_scored(
  finished, data_dir, download, monkeypatch, capsys
):
  def refuse(*unused):
    raise AssertionError('done already')

  before = read_result(finished)
  monkeypatch.setattr(folds_lib.run_lib, 'train', refuse)
  monkeypatch.setattr(folds_lib.steps, 'score', refuse)
  code = run(data_dir, finished, f'--luna_dir={download.folder}', '--folds=0,3')
  assert code == 0
  assert read_result(finished) == before
  out = capsys.readouterr().out.splitlines()
  assert out[0].split()[:3] == ['fold', 'records', 'positive']
  assert [line.split()[0] for line in out[1:6]] == ['0', '3', 'mean', 'std', 'pooled']


@pytest.mark.slow
def test_other_settings_are_refused_before_any_training(finished, data_dir, capfd):
  before = model_files(finished)
  assert run(data_dir, finished, '--folds=0', '--learning_rate=0.5') == 2
  assert 'learning_rate' in capfd.readouterr().err.splitlines()[-1]
  assert model_files(finished) == before


@pytest.mark.slow
def test_all_folds_cover_every_candidate(data_dir, download, tmp_path):
  luna_dir = f'--luna_dir={download.folder}'
  assert run(data_dir, tmp_path, luna_dir, '--parallel_folds=2') == 0
  found = read_csv(tmp_path / 'submission.csv')
  marks = {
    (row['seriesuid'], *(float(row[f'coord{axis}']) for axis in 'XYZ')) for row in found
  }
  assert len(found) == len(download.candidates)
  assert marks == {tuple(row[:4]) for row in download.candidates}
  result = read_result(tmp_path)
  assert len(result['folds']) == 10
  assert result['froc']['scans'] == len(download.scans)
  assert result['froc']['nodules'] == len(download.nodules)


@pytest.fixture
def passed(monkeypatch):
  """What the command passes to the folds and to their merging; neither does work."""
  found = {}

  def train_folds(plans, parallel, arguments):
    found.update(plans=plans, parallel=parallel, arguments=arguments)

  def score_fold(plan, resampling):
    found.setdefault('scored', []).append(plan.number)

  class Merged:
    warnings = ('a warning',)

  def merge(plans, workdir, reference, resampling):
    found.update(workdir=workdir, reference=reference, resampling=resampling)
    return Merged()

  monkeypatch.setattr(folds_lib, 'train_folds', train_folds)
  monkeypatch.setattr(folds_lib, 'score_fold', score_fold)
  monkeypatch.setattr(merging, 'merge', merge)
  monkeypatch.setattr(fold_text_table, 'folds_table', lambda merged: 'the table')
  monkeypatch.setattr(
    merged_files, 'write', lambda merged, workdir: workdir / 'report.html'
  )
  return found


def test_flags_reach_the_folds(data_dir, tmp_path, passed, download, capsys):
  flags = ['--folds=4,2,1', '--parallel_folds=3', '--tta', '--seed=7']
  code = run(data_dir, tmp_path, f'--luna_dir={download.folder}', *flags)
  assert code == 0
  assert [plan.number for plan in passed['plans']] == passed['scored'] == [1, 2, 4]
  config = passed['plans'][0].config
  assert (config.tta, config.input.seed, config.recipe.epochs) == (True, 7, 1)
  assert passed['parallel'] == 3
  assert passed['workdir'] == tmp_path
  assert (passed['resampling'].resamples, passed['resampling'].seed) == (20, 7)
  listed = {u for u, s in download.scans.items() if s.subset in (1, 2, 4)}
  assert set(passed['reference'].seriesuids) == listed
  captured = capsys.readouterr()
  assert captured.out.splitlines() == [
    'the table',
    f'merged: {tmp_path / "crossval.json"}',
    f'report: {tmp_path / "report.html"}',
  ]
  assert 'luna16-crossval: warning: a warning\n' in captured.err


def test_processes_of_folds_get_the_given_flags_of_training(data_dir, tmp_path, passed):
  assert run(data_dir, tmp_path, '--folds=1', '--tta', '--parallel_folds=2') == 0
  names = {
    argument.removeprefix('--').split('=')[0] for argument in passed['arguments']
  }
  given = {'data_dir', 'dataset', 'model', 'epochs', 'steps_per_epoch', 'batch_size'}
  assert names == {*given, 'tta'}


def test_without_annotations_there_is_no_reference(data_dir, tmp_path, passed):
  assert run(data_dir, tmp_path, '--folds=1') == 0
  assert passed['reference'] is None


@pytest.fixture(scope='module')
def three_subsets(download, extract, tmp_path_factory):
  """The folder of a dataset with the subsets 0, 1 and 9 alone."""
  folder = tmp_path_factory.mktemp('three')
  code = extract(download.folder, folder, '--config=axial_50px_all', '--subsets=0,1,9')
  assert code == 0
  (info,) = folder.rglob('dataset_info.json')
  return info.parent


@pytest.mark.parametrize(
  ('flags', 'message'),
  [
    ([], 'fold 2 needs subset 2'),
    (['--folds=9'], 'fold 9 needs subset 8 for its validation split'),
  ],
)
def test_a_missing_subset_is_named(
  three_subsets, data_dir, tmp_path, flags, message, error_line
):
  assert run(data_dir, tmp_path, f'--dataset={three_subsets}', *flags) == 2
  line = error_line()
  assert message in line
  assert '--folds' in line
  assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
  ('flag', 'message'),
  [
    ('--workdir=', '--workdir is required'),
    ('--folds=10', '--folds lists folds 0..9'),
    ('--folds=1,1', '--folds lists folds 0..9, each once'),
    ('--folds=one', '--folds must list integers'),
    ('--parallel_folds=0', '--parallel_folds=0'),
    ('--bootstrap=-1', '--bootstrap'),
    ('--train_split=train', 'each fold has its own'),
    ('--validation_split=test', 'each fold has its own'),
    ('--fold=1', 'Did you mean: folds'),
    ('--annotations_excluded=x.csv', 'needs --annotations'),
    ('--annotations=/nowhere.csv', '/nowhere.csv'),
    ('--luna_dir=/nowhere', '/nowhere'),
    ('--model=resnet', '--model=resnet'),
    ('--epochs=0', 'epochs must be 1 or more'),
    ('--dataset=luna16_patches/cube_48mm', 'luna16-extract'),
    ('--test_dataset=luna16_patches/cube_48mm', 'luna16-extract'),
  ],
)
def test_a_mistake_is_one_line_and_exit_code_2(
  data_dir, tmp_path, flag, message, error_line
):
  assert run(data_dir, tmp_path, flag) == 2
  line = error_line()
  assert line.startswith('luna16-crossval: error: ')
  assert message in line


def test_help_has_the_flags_of_training_with_their_defaults(capsys):
  assert crossval.run(['luna16-crossval', '--help']) == 0
  printed = capsys.readouterr().out
  assert '--parallel_folds' in printed
  rates = ', '.join(
    f'{name} {recipe.learning_rate:g}'
    for name, recipe in config_lib.TRAINING_RECIPES.items()
  )
  assert rates in printed
