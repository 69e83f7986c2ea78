import json

import evaluate_command
import numpy as np
import pytest
from sklearn import metrics as sklearn_metrics
import tensorflow_datasets as tfds

import luna_tfds  # noqa: F401, registers the dataset
from trainer import froc
from trainer.report import page

DATASET = 'luna16_patches/axial_50px_all'

pytestmark = pytest.mark.usefixtures('no_network_pictures')


@pytest.fixture(scope='module')
def evaluated(trained, tmp_path_factory):
  """The folder of an evaluation of all scans, with the pictures of the network."""
  folder = tmp_path_factory.mktemp('evaluated')
  code = evaluate_command.run(
    f'--workdir={trained}',
    f'--split={evaluate_command.EVERYTHING}',
    f'--output_dir={folder}',
  )
  assert code == 0
  return folder


@pytest.fixture(scope='module')
def predictions(evaluated):
  return evaluate_command.read_predictions(evaluated)


@pytest.fixture(scope='module')
def counted(predictions):
  """The predictions without excluded findings, which the headline metrics leave out."""
  return [row for row in predictions if row['excluded'] == '0']


@pytest.fixture(scope='module')
def metrics(evaluated):
  return evaluate_command.read_metrics(evaluated)


def test_predictions_hold_every_record_once(data_dir, predictions):
  stored = tfds.load(DATASET, data_dir=str(data_dir), split=evaluate_command.EVERYTHING)
  expected = {
    (r['seriesuid'].decode(), int(r['candidate_id'])): r for r in tfds.as_numpy(stored)
  }
  keys = [(row['seriesuid'], int(row['candidate_id'])) for row in predictions]
  assert len(set(keys)) == len(keys)
  assert set(keys) == set(expected)
  for key, row in zip(keys, predictions):
    record = expected[key]
    assert int(row['label']) == record['label']
    assert int(row['nodule_id']) == record['nodule_id']
    center = [float(row[f'coord{axis}']) for axis in 'XYZ']
    np.testing.assert_allclose(center, record['center_xyz_mm'], atol=1e-6)


def test_predictions_have_nine_digits(predictions):
  for row in predictions:
    digits = row['probability'].partition('e')[0].replace('.', '').lstrip('0')
    assert len(digits) >= 9, row


def test_metrics_follow_from_the_predictions(counted, metrics):
  labels, p = (
    evaluate_command.column(counted, 'label', int),
    evaluate_command.column(counted, 'probability'),
  )
  assert metrics['records'] == len(counted)
  assert metrics['nodules'] == labels.sum()
  assert metrics['scans'] == 12
  expected = sklearn_metrics.average_precision_score(labels, p)
  assert metrics['pr_auc'] == pytest.approx(expected)
  assert metrics['roc_auc'] == pytest.approx(sklearn_metrics.roc_auc_score(labels, p))
  assert metrics['brier'] == pytest.approx(sklearn_metrics.brier_score_loss(labels, p))
  row = metrics['operating_points'][-1]
  predicted = p >= row['threshold']
  assert row['target'] == 'recall >= 0.99'
  assert row['recall'] == pytest.approx(sklearn_metrics.recall_score(labels, predicted))
  precision = sklearn_metrics.precision_score(labels, predicted)
  assert row['precision'] == pytest.approx(precision)


def test_metrics_of_all_candidates_include_excluded_findings(predictions, metrics):
  labels, p = (
    evaluate_command.column(predictions, 'label', int),
    evaluate_command.column(predictions, 'probability'),
  )
  found = metrics['all_candidates']
  assert found['records'] == len(predictions)
  excluded = sum(row['excluded'] == '1' for row in predictions)
  assert metrics['excluded_records'] == excluded > 0
  expected = sklearn_metrics.average_precision_score(labels, p)
  assert found['pr_auc'] == pytest.approx(expected)
  assert found['pr_auc'] < metrics['pr_auc']


def test_metrics_by_subset(counted, metrics):
  labels, p = (
    evaluate_command.column(counted, 'label', int),
    evaluate_command.column(counted, 'probability'),
  )
  subsets = evaluate_command.column(counted, 'subset', int)
  rows = metrics['by_subset']
  assert [row['subset'] for row in rows] == list(range(10))
  for row in rows:
    mask = subsets == row['subset']
    assert row['records'] == mask.sum()
    assert row['nodules'] == labels[mask].sum()
    assert row['scans'] == (2 if row['subset'] in (0, 2) else 1)
    expected = sklearn_metrics.average_precision_score(labels[mask], p[mask])
    assert row['pr_auc'] == pytest.approx(expected)


def test_metrics_by_slice_thickness(download, counted, metrics):
  thickness_mm = np.array(
    [download.scans[row['seriesuid']].spacing_xyz_mm[2] for row in counted]
  )
  rows = {row['bin']: row for row in metrics['by_slice_thickness']}
  assert set(rows) == {'below 1 mm', '1.5 to 2 mm', '2 mm and over'}
  assert rows['below 1 mm']['records'] == np.sum(thickness_mm == 0.625)
  assert rows['1.5 to 2 mm']['records'] == np.sum(thickness_mm == 1.5)
  assert rows['2 mm and over']['records'] == np.sum(thickness_mm == 2.5)


def test_metrics_by_diameter_count_each_nodule_once(download, predictions, metrics):
  (row,) = metrics['by_diameter']  # every nodule has a diameter of 8.5 mm
  positives = [r for r in predictions if r['label'] == '1']
  assert row['bin'] == '5 to 10 mm'
  assert row['records'] == len(positives)
  assert row['nodules'] == len(download.nodules)
  p = evaluate_command.column(positives, 'probability')
  assert row['mean_probability'] == pytest.approx(p.mean())


def test_froc_with_annotations_is_that_of_luna16_froc(
  evaluated, trained, download, tmp_path, monkeypatch
):
  monkeypatch.setattr(page, 'build_page', lambda evaluation, folder: '')
  annotations = (
    f'--annotations={download.folder / "annotations.csv"}',
    f'--annotations_excluded={download.folder / "annotations_excluded.csv"}',
  )
  flags = f'--workdir={trained}', f'--split={evaluate_command.EVERYTHING}'
  assert evaluate_command.run(*flags, *annotations, f'--output_dir={tmp_path}') == 0
  found = evaluate_command.read_metrics(tmp_path)['froc']
  assert found['nodules_counted'] == 'annotated'
  listed = sorted(download.scans)
  (tmp_path / 'seriesuids.csv').write_text('\n'.join(listed) + '\n')
  code = froc.run(
    [
      'luna16-froc',
      evaluate_command.QUICK,
      f'--submission={tmp_path / "predictions.csv"}',
      f'--seriesuids={tmp_path / "seriesuids.csv"}',
      f'--output_dir={tmp_path}',
      *annotations,
    ]
  )
  assert code == 0
  assert found == json.loads((tmp_path / 'froc.json').read_text())
  # Every nodule of the fake download is reached by a candidate.
  without = evaluate_command.read_metrics(evaluated)['froc']
  assert without['nodules_counted'] == 'reached by candidates'
  assert without['cpm'] == pytest.approx(found['cpm'])
  # As by --annotations, from the folder of the download.
  flags = *flags, f'--luna_dir={download.folder}', f'--output_dir={tmp_path}'
  assert evaluate_command.run(*flags) == 0
  assert evaluate_command.read_metrics(tmp_path)['froc'] == found
