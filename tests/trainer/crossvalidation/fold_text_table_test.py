import dataclasses

import numpy as np

from luna_tfds.files import atomic_files
from model.metrics.resampling import Resampling
from trainer.crossvalidation import fold_text_table
from trainer.crossvalidation import folds as folds_lib
from trainer.crossvalidation import merging

FEW = Resampling(resamples=10)


def test_table_of_the_folds(plans, reference, tmp_path):
  merged = merging.merge(plans, tmp_path, reference, FEW)
  result = atomic_files.replace_nan(merged.to_json())
  lines = fold_text_table.folds_table(merged).splitlines()
  assert lines[0].split()[:3] == ['fold', 'records', 'positive']
  names = [line.split()[0] for line in lines[1:7]]
  assert names == ['2', '5', '7', 'mean', 'std', 'pooled']
  assert lines[1].split()[1:3] == ['30', '6']
  assert lines[6].split()[1:3] == ['90', '18']
  columns = ('pr_auc', 'roc_auc', 'recall', 'precision', 'f1')
  for line, fields in (
    (lines[1], result['folds'][0]),
    (lines[4], result['mean']),
    (lines[5], result['std']),
    (lines[6], result['pooled']),
  ):
    assert line.split()[-5:] == [f'{fields[name]:.4f}' for name in columns]
  froc_lines = lines[-2:]
  assert froc_lines[0] == f'  FROC of all folds: {merged.froc}'
  assert (
    'all 19 nodules that are annotated in the 9 scans, of which 1 ' in froc_lines[1]
  )


def test_without_annotations_the_nodules_that_are_counted_are_named(
  plans, fold_results, tmp_path
):
  for plan, (records, predicted) in zip(plans, fold_results):
    nodule_id = np.where(records.label, 1000 * plan.number + np.arange(30), -1)
    changed = dataclasses.replace(records, nodule_id=nodule_id)
    folds_lib.write_scores(plan.scores_file, changed, predicted)
  merged = merging.merge(plans, tmp_path, None, FEW)
  text = fold_text_table.folds_table(merged)
  assert 'that a candidate reaches in the 9 scans' in text


def test_excluded_findings_have_a_row(plans, fold_results, tmp_path):
  records, predicted = fold_results[0]
  excluded = np.arange(len(records)) % 3 == 0
  changed = dataclasses.replace(records, excluded=excluded)
  folds_lib.write_scores(plans[0].scores_file, changed, predicted)
  merged = merging.merge(plans, tmp_path, None, FEW)
  lines = fold_text_table.folds_table(merged).splitlines()
  (number,) = (n for n, line in enumerate(lines) if line.startswith('pooled'))
  assert lines[number].split()[1] == '80'
  assert lines[number + 1].split()[:2] == ['all', '90']
  assert '10 excluded findings' in lines[number + 2]


def test_metrics_that_are_undefined_are_dashes(plans, first_fold_excluded, tmp_path):
  merged = merging.merge(plans, tmp_path, None, FEW)
  line = fold_text_table.folds_table(merged).splitlines()[1]
  assert line.split() == ['2', '0', '0', *'–––––']
