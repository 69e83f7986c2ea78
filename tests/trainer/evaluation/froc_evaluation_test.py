import dataclasses

import fake_data
import fake_scores
import numpy as np
import pytest

from luna_tfds.errors import UsageError
from model.metrics.resampling import Resampling
from trainer.evaluation import froc_evaluation
from trainer.scoring import froc_submission

NONE = Resampling(resamples=0)

# Scan a: nodule 7 with two candidates, a false positive, an excluded finding. Scan b: a
# false positive.
RECORDS = fake_scores.make_records(
  [
    {'scan': 'a', 'label': 1, 'nodule_id': 7, 'probability': 0.6},
    {'scan': 'a', 'label': 1, 'nodule_id': 7, 'probability': 0.9},
    {'scan': 'a', 'probability': 0.7, 'center_xyz_mm': (50, 0, 0)},
    {'scan': 'a', 'probability': 0.8, 'center_xyz_mm': (90, 0, 0), 'excluded': True},
    {'scan': 'b', 'probability': 0.95, 'center_xyz_mm': (50, 0, 0)},
  ]
)
RECORDS = dataclasses.replace(
  RECORDS, center_xyz_mm=np.nan_to_num(RECORDS.center_xyz_mm, nan=0.5)
)


def read_reference(folder, nodules, seriesuids=None, excluded=(('a', 90, 0, 0, 5),)):
  scans = None
  if seriesuids:
    scans = folder / 'seriesuids.csv'
    scans.write_text('\n'.join(seriesuids))
  return froc_submission.read_reference(
    fake_data.write_findings(folder / 'annotations.csv', nodules),
    fake_data.write_findings(folder / 'excluded.csv', excluded),
    scans,
  )


def test_nodules_that_candidates_reach_are_counted():
  found = froc_evaluation.evaluate_froc(RECORDS, None, NONE)
  counts = found.counts
  assert (counts.scans, counts.nodules, counts.true_positives) == (2, 1, 1)
  assert (counts.false_positives, counts.ignored_on_excluded) == (2, 1)
  assert counts.ignored_double == 1
  # The nodule is found at half a false positive per scan.
  assert found.curve.sensitivity_at([0.49, 0.51]).tolist() == [0, 1]
  assert found.to_json()['nodules_counted'] == 'reached by candidates'
  text = froc_evaluation.describe_nodules(found)
  assert 'the 1 nodule that a candidate reaches in the 2 scans' in text


def test_with_annotations_all_nodules_are_counted(tmp_path):
  nodules = [('a', 0, 0, 0, 5), ('b', -80, 0, 0, 5), ('c', 0, 0, 0, 5)]
  found = froc_evaluation.evaluate_froc(
    RECORDS, read_reference(tmp_path, nodules), NONE
  )
  counts = found.counts
  assert (counts.scans, counts.nodules, counts.nodules_reachable) == (2, 2, 1)
  assert (counts.false_positives, counts.ignored_on_excluded) == (2, 1)
  assert found.to_json()['nodules_counted'] == 'annotated'
  text = froc_evaluation.describe_nodules(found)
  assert 'all 2 nodules that are annotated in the 2 scans, of which 1 are' in text
  listed = read_reference(tmp_path, nodules, ['a', 'b', 'c'])
  counts = froc_evaluation.evaluate_froc(RECORDS, listed, NONE).counts
  assert (counts.scans, counts.nodules) == (3, 3)


def test_both_ways_agree_if_every_nodule_is_reached(
  evaluate_folders, trained, download
):
  evaluation = evaluate_folders(trained, split='train+validation+test')
  reference = froc_submission.read_reference(None, None, None, download.folder)
  by_ids = evaluation.result.froc
  by_points = froc_evaluation.evaluate_froc(evaluation.scored.records, reference, NONE)
  assert by_ids.counts == by_points.counts
  assert by_ids.counts.nodules == len(download.nodules)
  np.testing.assert_array_equal(by_ids.curve.sensitivity, by_points.curve.sensitivity)
  assert by_ids.warnings == by_points.warnings == ()


def test_without_known_scans_or_nodules_there_is_no_curve(tmp_path):
  of_article = fake_scores.make_records([{'label': 1, 'nodule_id': 3}, {}])
  assert froc_evaluation.evaluate_froc(of_article, None, NONE) is None
  no_ids = dataclasses.replace(RECORDS, nodule_id=np.full(5, -1))
  assert froc_evaluation.evaluate_froc(no_ids, None, NONE) is None
  elsewhere = read_reference(tmp_path, [('z', 0, 0, 0, 5)])
  assert froc_evaluation.evaluate_froc(RECORDS, elsewhere, NONE) is None


def test_a_list_of_other_scans_is_refused(tmp_path):
  reference = read_reference(tmp_path, [('a', 0, 0, 0, 5)], ['y', 'z'])
  with pytest.raises(UsageError, match='lists none of the scored scans'):
    froc_evaluation.evaluate_froc(RECORDS, reference, NONE)


def test_nodule_labels_that_hit_no_nodule_are_warned_of():
  records = dataclasses.replace(RECORDS, nodule_id=np.array([7, -1, -1, -1, -1]))
  found = froc_evaluation.evaluate_froc(records, None, NONE, ['first'])
  assert found.warnings[0] == 'first'
  assert '1 record of the class nodule hit no annotated nodule' in found.warnings[1]
  assert found.counts.false_positives == 3


@pytest.mark.parametrize(
  ('split', 'is_cut'),
  [('test', False), ('train[2shard:4shard]+test', False), ('train[:9]', True)],
)
def test_a_split_that_cuts_shards_is_warned_of(opened_dataset, split, is_cut):
  source = opened_dataset.open_split(split)
  found = froc_evaluation.cut_shards_warnings(opened_dataset, source)
  assert len(found) == is_cut
