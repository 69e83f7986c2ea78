"""Merges folds that no network has scored: their records are made at random."""

import csv
import dataclasses
import json
import math

import numpy as np
import pytest
from sklearn import metrics as sklearn_metrics

from luna_tfds.errors import UsageError
from luna_tfds.files import atomic_files
from model.metrics.resampling import Resampling
from trainer.crossvalidation import folds as folds_lib
from trainer.crossvalidation import merged_files
from trainer.crossvalidation import merging

FEW = Resampling(resamples=10)


def joined(fold_results, name):
  return np.concatenate([getattr(records, name) for records, _ in fold_results])


def merge(plans, tmp_path, reference=None):
  merged = merging.merge(plans, tmp_path, reference, FEW)
  atomic_files.write_json(tmp_path / 'crossval.json', merged.to_json())
  return merged, json.loads((tmp_path / 'crossval.json').read_text())


def test_submission_holds_the_records_of_all_folds(plans, fold_results, tmp_path):
  merge(plans, tmp_path)
  with (tmp_path / 'submission.csv').open(newline='') as file:
    rows = list(csv.DictReader(file))
  assert [row['seriesuid'] for row in rows] == joined(
    fold_results, 'seriesuid'
  ).tolist()
  found = [[float(row[f'coord{axis}']) for axis in 'XYZ'] for row in rows]
  assert found == joined(fold_results, 'center_xyz_mm').tolist()
  np.testing.assert_allclose(
    [float(row['probability']) for row in rows],
    joined(fold_results, 'probability'),
    rtol=1e-9,
  )


def test_pooled_metrics_are_those_of_all_records(plans, fold_results, tmp_path):
  _, result = merge(plans, tmp_path)
  pooled = result['pooled']
  labels = joined(fold_results, 'label')
  probabilities = joined(fold_results, 'probability')
  # Each fold has a threshold of its own.
  predicted = np.concatenate([predicted for _, predicted in fold_results])
  assert (pooled['records'], pooled['nodules'], pooled['scans']) == (90, 18, 9)
  assert pooled['roc_auc'] == pytest.approx(
    sklearn_metrics.roc_auc_score(labels, probabilities)
  )
  assert pooled['f1'] == pytest.approx(sklearn_metrics.f1_score(labels, predicted))
  assert pooled['confusion_matrix'] == {
    'true_positives': np.sum(predicted & (labels == 1)),
    'false_positives': np.sum(predicted & (labels == 0)),
    'false_negatives': np.sum(~predicted & (labels == 1)),
    'true_negatives': np.sum(~predicted & (labels == 0)),
  }
  assert [row['subset'] for row in pooled['by_subset']] == [2, 5, 7]
  assert set(pooled['intervals']) == set(result['mean'])
  assert pooled['bootstrap'] == FEW.to_json('scans')


def test_mean_and_standard_deviation_over_the_folds(plans, fold_results, tmp_path):
  _, result = merge(plans, tmp_path)
  recalls = [
    sklearn_metrics.recall_score(records.label, predicted)
    for records, predicted in fold_results
  ]
  briers = [
    sklearn_metrics.brier_score_loss(records.label, records.probability)
    for records, _ in fold_results
  ]
  for name, values in (('recall', recalls), ('brier', briers)):
    mean = sum(values) / 3
    variance = sum((value - mean) ** 2 for value in values) / 2
    assert result['mean'][name] == pytest.approx(mean)
    assert result['std'][name] == pytest.approx(math.sqrt(variance))


def test_folds_are_listed_without_their_tables(plans, tmp_path):
  _, result = merge(plans, tmp_path)
  assert [fold['fold'] for fold in result['folds']] == [2, 5, 7]
  for fold in result['folds']:
    assert fold['records'] == 30
    assert not {'by_subset', 'article'} & set(fold)
  assert result['dataset'] == result['test_dataset'] == 'luna16_patches/axial_50px_all'
  assert result['model'] == 'nodule_net'
  assert result['warnings'] == []
  assert 'froc' not in result
  assert not (tmp_path / 'froc.json').exists()


def test_warnings_of_the_folds_are_kept(plans, tmp_path):
  fields = atomic_files.read_json(plans[1].metrics_file)
  atomic_files.write_json(plans[1].metrics_file, {**fields, 'warnings': ['a leak']})
  _, result = merge(plans, tmp_path)
  assert result['warnings'] == ['fold 5: a leak']


def test_undefined_metrics_are_left_out_of_the_mean(plans, tmp_path):
  fields = atomic_files.read_json(plans[0].metrics_file)
  atomic_files.write_json(plans[0].metrics_file, {**fields, 'recall': math.nan})
  _, result = merge(plans, tmp_path)
  others = [atomic_files.read_json(plan.metrics_file)['recall'] for plan in plans[1:]]
  assert result['mean']['recall'] == pytest.approx(sum(others) / 2)
  _, result = merge(plans[:1], tmp_path)
  assert result['mean']['recall'] is None
  assert result['std']['pr_auc'] is None  # of a single fold


def test_froc_is_that_of_the_submission(plans, reference, fold_results, tmp_path):
  merged, result = merge(plans, tmp_path, reference)
  counts = merged.froc.counts
  assert (counts.scans, counts.nodules) == (9, 19)
  assert (counts.true_positives, counts.false_positives) == (18, 72)
  assert result['froc'] == json.loads((tmp_path / 'froc.json').read_text())
  # Between nine and ten false positives in nine scans the threshold is that of the tenth.
  labels = joined(fold_results, 'label')
  probabilities = joined(fold_results, 'probability')
  tenth = np.sort(probabilities[labels == 0])[-10]
  sensitivity = np.sum(probabilities[labels == 1] > tenth) / 19
  assert 0.5 < sensitivity < 18 / 19
  assert merged.froc.curve.sensitivity_at([9.5 / 9]) == pytest.approx(sensitivity)
  (warning,) = result['warnings']
  assert 'annotations_excluded is not given' in warning
  # Of the 19 nodules, 18 are found without a limit of false positives.
  assert [fold['cpm'] for fold in result['folds']] == [
    of_fold.curve.cpm for of_fold in merged.fold_froc
  ]
  assert [of_fold.counts.scans for of_fold in merged.fold_froc] == [3, 3, 3]
  assert sum(of_fold.counts.nodules for of_fold in merged.fold_froc) == 19
  cpms = [fold['cpm'] for fold in result['folds']]
  assert result['mean']['cpm'] == pytest.approx(np.mean(cpms))
  assert result['std']['cpm'] == pytest.approx(np.std(cpms, ddof=1))


def test_without_annotations_nodules_that_candidates_reach_are_counted(
  plans, fold_results, tmp_path
):
  for plan, (records, predicted) in zip(plans, fold_results):
    nodule_id = np.where(records.label, 1000 * plan.number + np.arange(30), -1)
    folds_lib.write_scores(
      plan.scores_file, dataclasses.replace(records, nodule_id=nodule_id), predicted
    )
  merged, result = merge(plans, tmp_path)
  assert (merged.froc.counts.scans, merged.froc.counts.nodules) == (9, 18)
  assert result['froc']['nodules_counted'] == 'reached by candidates'
  assert result['froc'] == json.loads((tmp_path / 'froc.json').read_text())


def test_a_dataset_with_a_part_of_the_negatives_is_warned_of(plans, data_dir, tmp_path):
  from trainer.data import dataset as dataset_lib

  part = dataset_lib.open_dataset(str(data_dir), 'luna16_patches/axial_50px')
  plans = [dataclasses.replace(plan, test_dataset=part) for plan in plans]
  _, result = merge(plans, tmp_path)
  (warning,) = result['warnings']
  assert 'luna16_patches/axial_50px/1.0.0 holds only a part of the negatives' in warning
  assert '--test_dataset' in warning


@pytest.mark.parametrize(
  ('content', 'problem'),
  [('{"records": 3', ''), ('[]', ''), ('{"records": 3}', "'nodules' is missing")],
)
def test_a_damaged_file_of_metrics_is_named(plans, tmp_path, content, problem):
  plans[1].metrics_file.write_text(content)
  with pytest.raises(
    UsageError, match=f'{plans[1].metrics_file}: cannot be read: .*{problem}; delete it'
  ):
    merge(plans, tmp_path)


def test_excluded_findings_are_left_out(plans, fold_results, tmp_path):
  records, predicted = fold_results[0]
  excluded = np.arange(len(records)) % 3 == 0
  changed = dataclasses.replace(records, excluded=excluded)
  folds_lib.write_scores(plans[0].scores_file, changed, predicted)
  _, result = merge(plans, tmp_path)
  assert result['pooled']['records'] == 80
  assert result['pooled']['excluded_records'] == 10
  assert result['pooled']['all_candidates']['records'] == 90


def test_folds_without_an_annotated_nodule_are_merged(plans, reference, tmp_path):
  none = dataclasses.replace(reference, nodules=reference.nodules[:0])
  merged, result = merge(plans, tmp_path, none)
  assert merged.froc is None
  assert 'froc' not in result and result['pooled']['nodules'] == 18
  assert 'no nodule of the annotations is in the tested scans' in ' '.join(
    result['warnings']
  )


def test_a_fold_of_excluded_findings_only_is_merged(
  plans, first_fold_excluded, tmp_path
):
  merged, result = merge(plans, tmp_path)
  assert (result['folds'][0]['records'], result['folds'][0]['pr_auc']) == (0, None)
  others = [fold['pr_auc'] for fold in result['folds'][1:]]
  assert result['mean']['pr_auc'] == pytest.approx(sum(others) / 2)
  assert (result['pooled']['records'], result['pooled']['excluded_records']) == (60, 30)
  assert merged_files.write(merged, tmp_path).is_file()
