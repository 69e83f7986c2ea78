import dataclasses
import shutil

import keras
import numpy as np
import pytest
from sklearn import metrics as sklearn_metrics

from luna_tfds.errors import JobError
from luna_tfds.errors import UsageError
from luna_tfds.files import atomic_files
from model.metrics.resampling import Resampling
from trainer.data import dataset as dataset_lib
from trainer.data import split_index
from trainer.evaluation import steps
from trainer.evaluation import trained_run
from trainer.scoring import scored_records


@pytest.fixture(scope='module')
def on_test(evaluate_folders, trained):
  return evaluate_folders(trained)


@pytest.fixture(scope='module')
def extract_subsets(download, extract, tmp_path_factory):
  """Returns a function: LUNA16 subsets -> a dataset of their candidates."""

  def run(subsets):
    folder = tmp_path_factory.mktemp('subsets')
    flags = '--config=axial_50px_all', f'--subsets={subsets}'
    assert extract(download.folder, folder, *flags) == 0
    (info,) = folder.rglob('dataset_info.json')
    return dataset_lib.open_dataset('', str(info.parent))

  return run


@pytest.fixture(scope='module')
def no_validation(extract_subsets):
  """A dataset without a validation split."""
  return extract_subsets('0,9')


def test_default_split_is_test_or_else_validation(
  opened_dataset, no_validation, extract_subsets
):
  assert steps.default_split(opened_dataset) == 'test'
  assert steps.default_split(no_validation) == 'test'
  assert steps.default_split(extract_subsets('0,8')) == 'validation'


def test_stored_threshold_is_used_on_other_splits_than_validation(on_test, trained):
  stored = trained_run.open_runs([str(trained)])[0].point
  assert on_test.decision.point.threshold == stored.threshold
  assert on_test.decision.chosen_on_text == 'validation'
  np.testing.assert_array_equal(
    on_test.decision.predicted, on_test.scored.records.probability >= stored.threshold
  )


@pytest.mark.parametrize(
  ('split', 'is_cross_fitted'),
  [
    ('validation', True),
    ('validation[0shard:1shard]', True),
    ('train+validation', True),
    ('train', False),
    ('test+train[:7]', False),
  ],
)
def test_splits_that_overlap_validation_are_cross_fitted(
  evaluate_folders, trained, split, is_cross_fitted
):
  found = evaluate_folders(trained, split=split)
  assert found.scored.shares_selection_records is is_cross_fitted
  where = found.decision.chosen_on_text
  assert where.startswith('the other half of' if is_cross_fitted else 'validation')


def test_records_that_were_trained_on_are_counted(
  evaluate_folders, trained, opened_dataset
):
  in_train = opened_dataset.open_split('train').num_records
  for split, expected in (
    ('test', 0),
    ('test+train[:7]', 7),
    ('train+validation+test', in_train),
  ):
    found = evaluate_folders(trained, split=split)
    assert found.result.records_trained_on == expected


def test_scans_trained_on_are_found_in_another_dataset(
  evaluate_folders, trained_on_part
):
  found = evaluate_folders(trained_on_part)
  assert found.result.records_trained_on == 0
  assert not found.scored.shares_selection_records
  assert found.result.to_json()['warnings'] == []
  found = evaluate_folders(trained_on_part, split='validation')
  assert found.scored.shares_selection_records
  assert found.result.records_trained_on == 0
  found = evaluate_folders(trained_on_part, split='test+train')
  in_train = int(np.sum(~np.isin(found.scored.records.subset, [8, 9])))
  assert found.result.records_trained_on == in_train > 0
  (warning,) = found.result.to_json()['warnings']
  assert f'{in_train} of the {len(found.scored.records)} records' in warning


def test_another_rule_is_chosen_on_validation(evaluate_folders, trained):
  found = evaluate_folders(trained, rule='recall:0.8')
  validation = evaluate_folders(trained, split='validation', rule='0.5').scored.records
  p = validation.probability[validation.label == 1]
  assert np.mean(p >= found.decision.point.threshold) >= 0.8
  assert found.decision.chosen_on_text == 'validation'
  assert found.decision.point.rule == 'recall:0.8'


def test_a_number_is_the_threshold_on_any_split(evaluate_folders, trained):
  found = evaluate_folders(trained, split='validation', rule='0.3')
  assert (found.decision.point.threshold, found.decision.chosen_on_text) == (
    0.3,
    'given',
  )


def test_a_rule_needs_a_validation_split(trained, no_validation):
  runs = trained_run.open_runs([str(trained)])
  with pytest.raises(UsageError, match=r'--threshold=recall:0\.9 needs a validation'):
    steps.score(runs, no_validation, 'test', rule='recall:0.9')
  # Not if the threshold is given, or the stored one is kept.
  steps.score(runs, no_validation, 'test', rule='0.4')
  scored = steps.score(runs, no_validation, 'test')
  assert scored.point == runs[0].point


def test_a_dataset_may_lack_the_shards_of_the_validation_split(trained, no_validation):
  (run,) = trained_run.open_runs([str(trained)])
  for split in ('validation[:1shard]', 'train[90shard:]'):
    config = dataclasses.replace(run.config, validation_split=split)
    scored = steps.score(
      (dataclasses.replace(run, config=config),), no_validation, 'test'
    )
    assert scored.point == run.point


def test_a_threshold_without_records_to_choose_it_on_is_warned_of(
  trained, no_validation
):
  runs = trained_run.open_runs([str(trained)])
  found = steps.evaluate(runs, no_validation, 'test', Resampling(0), tta=True)
  assert found.decision.point.threshold == 0.5
  (warning,) = found.result.warnings
  assert 'no records of both classes to choose the threshold on: it is 0.5' in warning
  for kept in ({}, {'tta': True, 'rule': '0.3'}):
    found = steps.evaluate(runs, no_validation, 'test', Resampling(0), **kept)
    assert found.result.warnings == ()


def test_test_time_augmentation_chooses_the_threshold_anew(
  evaluate_folders, trained, on_test
):
  found = evaluate_folders(trained, tta=True)
  assert found.result.tta
  assert not on_test.result.tta
  differs = found.scored.records.probability != on_test.scored.records.probability
  assert differs.mean() > 0.9
  validation = evaluate_folders(trained, split='validation', rule='0.5', tta=True)
  records = validation.scored.records
  assert_threshold_has_the_best_f1(records, found.decision.point.threshold)


def assert_threshold_has_the_best_f1(records, threshold):
  records = records.without_excluded
  f1_scores = [
    sklearn_metrics.f1_score(records.label, records.probability >= p)
    for p in records.probability
  ]
  found = sklearn_metrics.f1_score(records.label, records.probability >= threshold)
  assert found == pytest.approx(max(f1_scores))


def test_ensemble_is_the_mean_with_a_threshold_of_its_own(
  evaluate_folders, trained, other_trained, on_test
):
  other = evaluate_folders(other_trained)
  both = evaluate_folders(trained, other_trained)
  a, b = (e.scored.records.probability for e in (on_test, other))
  np.testing.assert_allclose(both.scored.records.probability, (a + b) / 2, rtol=1e-12)
  assert both.result.models == 2
  assert both.decision.chosen_on_text == 'validation'
  validation = evaluate_folders(trained, other_trained, split='validation', rule='0.5')
  assert_threshold_has_the_best_f1(
    validation.scored.records, both.decision.point.threshold
  )


def test_metrics_say_what_was_evaluated(on_test, opened_dataset):
  fields = on_test.result.to_json()
  assert fields['dataset'] == opened_dataset.name
  assert fields['split'] == 'test'
  assert (fields['model'], fields['models'], fields['tta']) == ('nodule_net', 1, False)
  assert fields['threshold'] == on_test.decision.point.threshold
  assert fields['threshold_rule'] == 'max_f1'
  assert fields['threshold_chosen_on'] == 'validation'
  train = split_index.with_index(opened_dataset.open_split('train'))
  prevalence = split_index.SplitIndex.of_source(train).prevalence
  assert fields['deployed_prior'] == prevalence > train.nodule_fraction
  records = on_test.scored.records
  assert fields['records'] == len(records.without_excluded)
  assert fields['all_candidates']['records'] == len(records)
  assert 'article' not in fields
  of_article = dataclasses.replace(
    on_test.result, dataset='luna16_patches/article/1.0.0'
  )
  assert of_article.to_json()['article']['precision'] == 0.893


def test_the_three_steps_equal_evaluate(on_test, trained, opened_dataset):
  runs = trained_run.open_runs([str(trained)])
  scored = steps.score(runs, opened_dataset, 'test')
  decision = steps.decide(scored)
  result = steps.compute_metrics(scored, decision, Resampling(resamples=0))
  # A metric that is not defined is NaN, which is unequal to itself.
  assert atomic_files.replace_nan(result.to_json()) == atomic_files.replace_nan(
    on_test.result.to_json()
  )


def test_images_of_another_shape_are_refused(trained, download, extract, tmp_path):
  code = extract(
    download.folder, tmp_path, '--config=axial_50px', '--patch_shape=20,20'
  )
  assert code == 0
  (info,) = tmp_path.rglob('dataset_info.json')
  dataset = dataset_lib.open_dataset('', str(info.parent))
  runs = trained_run.open_runs([str(trained)])
  with pytest.raises(UsageError, match=r'\(50, 50, 1\).*\(20, 20, 1\).*--dataset'):
    steps.score(runs, dataset, 'test')


@pytest.mark.parametrize(
  ('field', 'value', 'message'),
  [('spacing_mm', 0.5, 'spacing 0.5 mm'), ('layout', 'stack', 'stack 1x50x50')],
)
def test_patches_of_another_kind_are_refused(
  trained, opened_dataset, field, value, message
):
  """They have the shape of those trained on."""
  patch = dataclasses.replace(opened_dataset.metadata.patch, **{field: value})
  metadata = dataclasses.replace(opened_dataset.metadata, patch=patch)
  dataset = dataclasses.replace(opened_dataset, metadata=metadata)
  runs = trained_run.open_runs([str(trained)])
  with pytest.raises(UsageError, match=f'axial 1x50x50.*spacing of the.*{message}'):
    steps.score(runs, dataset, 'test')


def test_published_patches_are_scored_with_a_warning(trained, opened_dataset):
  metadata = dataclasses.replace(opened_dataset.metadata, patch=None)
  dataset = dataclasses.replace(opened_dataset, metadata=metadata)
  runs = trained_run.open_runs([str(trained)])
  found = steps.evaluate(runs, dataset, 'test', Resampling(resamples=0))
  (warning,) = found.result.warnings
  assert 'whether spacing and layout are the same is not known' in warning


def test_an_unknown_split_is_refused(trained, opened_dataset):
  runs = trained_run.open_runs([str(trained)])
  with pytest.raises(UsageError, match="no split 'nowhere'"):
    steps.score(runs, opened_dataset, 'nowhere')


def test_nan_is_reported_before_it_chooses_a_threshold(
  trained, opened_dataset, monkeypatch
):
  score_split = scored_records.score_split

  def with_nan(models, source, **options):
    records = score_split(models, source, **options)
    if source.split != 'validation':
      return records
    return dataclasses.replace(records, probability=np.full(len(records), np.nan))

  monkeypatch.setattr(scored_records, 'score_split', with_nan)
  runs = trained_run.open_runs([str(trained)])
  steps.score(runs, opened_dataset, 'test')
  with pytest.raises(JobError, match='not finite; training diverged'):
    steps.score(runs, opened_dataset, 'test', rule='recall:0.5')


def test_a_model_that_gives_nan_is_reported(trained, opened_dataset, tmp_path):
  folder = shutil.copytree(trained, tmp_path / 'run')
  model = keras.models.load_model(folder / 'model.keras', compile=False)
  model.get_layer('logit').bias.assign([np.nan])
  model.save(folder / 'model.keras')
  runs = trained_run.open_runs([str(folder)])
  with pytest.raises(JobError, match=r'not finite; training diverged'):
    steps.score(runs, opened_dataset, 'test')
