import dataclasses
import shutil

import fake_scores
import numpy as np
import pytest

from luna_tfds.errors import JobError
from luna_tfds.errors import UsageError
from luna_tfds.files import atomic_files
from luna_tfds.processes import cores
from model.metrics.resampling import Resampling
from trainer import config as config_lib
from trainer import evaluate
from trainer import train
from trainer import train_flags
from trainer.crossvalidation import folds as folds_lib
from trainer.crossvalidation import merging
from trainer.crossvalidation.parallel_training import TrainingProcesses
from trainer.report import page

ALL = 'luna16_patches/axial_50px_all'
PART = 'luna16_patches/axial_50px'
NO_RESAMPLES = Resampling(resamples=0)


@pytest.fixture
def make_plans(data_dir, tmp_path):
  """Returns a function: epochs, dataset and so on -> plans of the folds 1, 2 and 4."""

  def make(epochs=1, dataset=ALL, numbers=(1, 2, 4), test_dataset=None):
    config = config_lib.TrainConfig(
      dataset=dataset,
      data_dir=str(data_dir),
      model='article_cnn',
      recipe=config_lib.Recipe(epochs=epochs, steps_per_epoch=2),
      input=config_lib.InputConfig(
        batch_size=8, augment=config_lib.AUGMENTATIONS['article_rot90']
      ),
      tta=True,
    )
    return folds_lib.plan_folds(config, tmp_path, numbers, test_dataset)

  return make


def test_each_fold_has_its_splits(make_plans, tmp_path):
  split_of = [f'train[{k}shard:{k + 1}shard]' for k in range(8)]
  split_of += ['validation[0shard:1shard]', 'test[0shard:1shard]']
  plans = make_plans(numbers=(0, 3))
  for plan, number, validation in zip(plans, (0, 3), (9, 2)):
    assert plan.number == number
    assert plan.path == tmp_path / f'fold{number}'
    assert plan.test_split == split_of[number]
    assert plan.config.validation_split == split_of[validation]
    rest = [s for k, s in enumerate(split_of) if k not in (number, validation)]
    assert plan.config.train_split.split('+') == rest


def test_another_dataset_is_tested_on_its_own_shards(make_plans):
  (plan,) = make_plans(dataset=PART, numbers=[1], test_dataset=ALL)
  assert plan.config.dataset == PART
  assert plan.test_dataset.name == f'{ALL}/1.0.0'
  assert plan.test_dataset_argument == ALL
  assert plan.train_fingerprint != plan.test_dataset.metadata.fingerprint
  (plan,) = make_plans(dataset=PART, numbers=[1])
  assert plan.test_dataset.name == f'{PART}/1.0.0'
  assert plan.test_dataset_argument == PART


def test_a_test_dataset_of_other_patches_is_refused_before_training(
  make_plans, data_dir, tmp_path
):
  from_folder = data_dir / 'luna16_patches' / 'axial_50px_all' / '1.0.0'
  folder = shutil.copytree(from_folder, tmp_path / 'axial_50px_all' / '1.0.0')
  fields = atomic_files.read_json(folder / 'metadata.json')
  fields['patch']['spacing_mm'] = 0.5
  atomic_files.write_json(folder / 'metadata.json', fields)
  with pytest.raises(
    UsageError, match=r'--test_dataset: .* spacing 0\.5 mm.*same kind'
  ):
    make_plans(test_dataset=str(folder))


@pytest.fixture(scope='module')
def three_subsets(download, extract, tmp_path_factory):
  """The folder of a dataset with the subsets 0, 1 and 9 alone."""
  folder = tmp_path_factory.mktemp('three')
  code = extract(download.folder, folder, '--config=axial_50px_all', '--subsets=0,1,9')
  assert code == 0
  (info,) = folder.rglob('dataset_info.json')
  return str(info.parent)


@pytest.mark.parametrize(
  ('number', 'message'),
  [
    (2, 'fold 2 needs subset 2'),
    (5, 'fold 5 needs subset'),
    (9, 'fold 9 needs subset 8 for its validation split'),
  ],
)
def test_a_missing_subset_is_named(three_subsets, make_plans, number, message):
  with pytest.raises(UsageError, match=f'{message}.*--folds'):
    make_plans(dataset=three_subsets, numbers=[0, number])


def test_folds_whose_subsets_are_there_are_planned(three_subsets, make_plans):
  plans = make_plans(dataset=three_subsets, numbers=[0, 1])
  assert [plan.number for plan in plans] == [0, 1]


def test_parallel_folds_share_the_cores(make_plans, monkeypatch):
  started = []

  def pretend(self, arguments, log, environment):
    started.append((arguments, environment))
    (plan,) = (p for p in plans if p.path == log.parent)
    atomic_files.write_json(
      plan.path / 'config.json', {'config': plan.config.to_json()}
    )
    return 0

  monkeypatch.setattr(TrainingProcesses, 'run', pretend)
  monkeypatch.setattr(cores, 'num_usable_cores', lambda: 7)
  plans = make_plans()
  arguments = [
    f'--data_dir={plans[0].config.data_dir}',
    f'--dataset={ALL}',
    '--model=article_cnn',
    '--epochs=1',
    '--steps_per_epoch=2',
    '--batch_size=8',
    '--tta',
  ]
  folds_lib.train_folds(plans, 3, arguments)
  assert len(started) == 3
  for given, environment in started:
    # The flags of the process give the config of the plan.
    for name in train.FLAGS:  # other tests may have given some
      train.FLAGS[name].unparse()
    train.FLAGS(['luna16-train', *given])
    (plan,) = (p for p in plans if f'--workdir={p.path}' in given)
    assert train_flags.config_from_flags(train.FLAGS) == plan.config
    for name in ('OMP_NUM_THREADS', 'TF_NUM_INTRAOP_THREADS', 'TF_NUM_INTEROP_THREADS'):
      assert environment[name] == '2'
  # They count as trained.
  folds_lib.train_folds(plans, 3, arguments)
  assert len(started) == 3


@pytest.mark.parametrize(('code', 'error'), [(2, UsageError), (1, JobError)])
def test_a_fold_that_fails_is_reported_with_its_log(
  make_plans, monkeypatch, code, error
):
  def fail(self, arguments, log, environment):
    log.write_text('much\nluna16-train: error: no space\n')
    return code

  monkeypatch.setattr(TrainingProcesses, 'run', fail)
  plans = make_plans()
  with pytest.raises(error, match=r'fold 1 failed.*train\.log.*no space'):
    folds_lib.train_folds(plans, 2, [])
  assert all(plan.read_state() == {} for plan in plans)


@pytest.fixture
def trained_folds(monkeypatch):
  """The folds that were trained, with their epochs; nothing is really trained."""
  calls = []

  def pretend(config, path):
    path.mkdir(parents=True, exist_ok=True)
    calls.append((path.name, config.recipe.epochs))
    atomic_files.write_json(path / 'config.json', {'config': config.to_json()})
    return ''

  monkeypatch.setattr(folds_lib.run_lib, 'train', pretend)
  return calls


def test_a_fold_is_trained_once_and_again_when_made_longer(make_plans, trained_folds):
  for _ in range(2):
    plans = make_plans()
    folds_lib.train_folds(plans, 1, [])
    assert trained_folds == [('fold1', 1), ('fold2', 1), ('fold4', 1)]
  state = plans[0].read_state()
  plans[0].write_state(**state, scored=plans[0].scoring_settings(Resampling()))
  longer = make_plans(epochs=2)
  folds_lib.train_folds(longer, 1, [])
  assert trained_folds[3:] == [('fold1', 2), ('fold2', 2), ('fold4', 2)]
  # The scores are those of the shorter training.
  assert 'scored' not in longer[0].read_state()


def test_a_fold_that_luna16_train_has_changed_is_trained_and_scored_again(
  make_plans, trained_folds
):
  (plan,) = make_plans(numbers=[1])
  folds_lib.train_folds([plan], 1, [])
  plan.write_state(**plan.read_state(), scored=plan.scoring_settings(Resampling()))
  changed = dataclasses.replace(plan.config, calibration='platt')
  folds_lib.run_lib.train(changed, plan.path)
  folds_lib.train_folds([plan], 1, [])
  assert len(trained_folds) == 3
  assert 'scored' not in plan.read_state()


def test_a_scored_fold_is_not_scored_again(make_plans, trained_folds, monkeypatch):
  scored = []
  monkeypatch.setattr(
    folds_lib.trained_run, 'open_runs', lambda paths: scored.append(paths) or 1 / 0
  )
  plan = make_plans()[0]
  folds_lib.train_folds([plan], 1, [])
  resampling = Resampling(resamples=10)
  settings = plan.scoring_settings(resampling)
  plan.write_state(**plan.read_state(), scored=settings)
  for path in (plan.metrics_file, plan.scores_file, plan.report_file):
    path.touch()
  folds_lib.score_fold(plan, resampling)
  assert scored == []
  # With other intervals it is.
  with pytest.raises(ZeroDivisionError):
    folds_lib.score_fold(plan, dataclasses.replace(resampling, seed=1))
  assert scored == [[str(plan.path)]]


@pytest.fixture
def scored_plan(make_plans, trained, tmp_path, monkeypatch):
  """A fold that was scored; its model is that of another training."""
  monkeypatch.setattr(page, 'build_page', lambda evaluation, folder: '')
  (plan,) = make_plans(numbers=[1])
  path = shutil.copytree(trained, tmp_path / 'fold1')
  plan = dataclasses.replace(plan, path=path, test_split='test')
  plan.write_state(trained=plan.training_settings)
  folds_lib.score_fold(plan, NO_RESAMPLES)
  return plan


def test_another_evaluation_of_a_fold_does_not_change_its_metrics(scored_plan):
  before = atomic_files.read_json(scored_plan.metrics_file)
  assert before['split'] == 'test'
  arguments = [f'--workdir={scored_plan.path}', '--split=validation', '--bootstrap=0']
  assert evaluate.run(['luna16-evaluate', *arguments]) == 0
  folds_lib.score_fold(scored_plan, NO_RESAMPLES)
  merged = merging.merge([scored_plan], scored_plan.path, None, NO_RESAMPLES)
  cpm = merged.fold_froc[0].curve.cpm
  assert merged.to_json()['folds'] == [{'fold': 1, **without_rows(before), 'cpm': cpm}]


def without_rows(fields):
  left_out = {'article', 'by_diameter', 'by_subset', 'by_slice_thickness'}
  left_out |= {'calibration', 'froc'}
  return {name: value for name, value in fields.items() if name not in left_out}


@pytest.mark.parametrize('text', ['', '{', '3', '[1]'])
def test_a_damaged_state_of_a_fold_is_refused(make_plans, text):
  plan = make_plans()[0]
  plan.path.mkdir()
  (plan.path / 'fold.json').write_text(text)
  with pytest.raises(UsageError, match=r'fold\.json: cannot be read: .*delete it'):
    plan.read_state()


@pytest.mark.parametrize(
  'text', ['', '[1]', '{"records": 1}', '{"records": "1", "nodules": 1}']
)
def test_damaged_metrics_of_a_fold_are_refused(make_plans, text):
  plan = make_plans()[0]
  plan.path.mkdir()
  plan.metrics_file.write_text(text)
  with pytest.raises(UsageError, match=r'fold_metrics\.json: cannot be read: .*delete'):
    plan.read_metrics()


@pytest.mark.parametrize(
  'name,values',
  [
    ('probability', np.full(20, np.nan)),
    ('probability', np.full(20, 2.0)),
    ('label', np.zeros((20, 1), np.int64)),
    ('label', np.zeros(19, np.int64)),
    ('seriesuid', np.zeros(20)),
  ],
)
def test_scores_of_other_types_are_refused(tmp_path, name, values):
  path = tmp_path / 'scores.npz'
  columns = {**vars(fake_scores.random_records(0, count=20)), name: values}
  np.savez(path, **columns, predicted=np.zeros(20, bool))
  with pytest.raises(UsageError, match=rf'scores\.npz: cannot be read: {name} '):
    folds_lib.read_scores(path)


@pytest.mark.parametrize('kept', [0, 10, 500])
def test_damaged_scores_are_refused(tmp_path, kept):
  path = tmp_path / 'scores.npz'
  records = fake_scores.random_records(0, count=20)
  folds_lib.write_scores(path, records, records.probability > 0.5)
  path.write_bytes(path.read_bytes()[:kept])
  with pytest.raises(UsageError, match=r'scores\.npz: cannot be read: .*delete it'):
    folds_lib.read_scores(path)


@pytest.mark.parametrize('name', ['metrics_file', 'scores_file', 'report_file'])
def test_a_fold_whose_results_were_deleted_is_scored_again(scored_plan, name):
  path = getattr(scored_plan, name)
  path.unlink()
  folds_lib.score_fold(scored_plan, NO_RESAMPLES)
  assert path.is_file()


def test_scores_are_read_as_they_were_written(tmp_path):
  records = fake_scores.random_records(0, count=20, subset=3)
  predicted = records.probability > 0.5
  folds_lib.write_scores(tmp_path / 'scores.npz', records, predicted)
  found, found_predicted = folds_lib.read_scores(tmp_path / 'scores.npz')
  for name, values in vars(records).items():
    np.testing.assert_array_equal(getattr(found, name), values)
    assert getattr(found, name).dtype == values.dtype
  np.testing.assert_array_equal(found_predicted, predicted)
