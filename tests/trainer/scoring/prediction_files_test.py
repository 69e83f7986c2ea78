import csv

import fake_scores
import numpy as np

from luna_tfds import tables
from trainer.scoring import prediction_files

ROWS = [
  {
    'scan': 's1',
    'label': 1,
    'probability': 0.9999999999,
    'nodule_id': 7,
    'diameter_mm': 4.25,
    'subset': 3,
    'center_xyz_mm': (-102.345678, 10.5, 1 / 3),
  },
  {
    'scan': 's2',
    'probability': 1.2345678912e-7,
    'subset': 9,
    'center_xyz_mm': (0.0, -0.25, 300.0),
    'excluded': True,
  },
]


def test_predictions_have_a_row_for_each_record(tmp_path):
  path = tmp_path / 'predictions.csv'
  records = fake_scores.make_records(ROWS)
  prediction_files.write_predictions(records, path)
  with path.open(newline='') as file:
    first, second = csv.DictReader(file)
  assert first == {
    'seriesuid': 's1',
    'candidate_id': '0',
    'subset': '3',
    'coordX': '-102.345678',
    'coordY': '10.5',
    'coordZ': '0.3333333333',
    'label': '1',
    'probability': '0.9999999999',
    'nodule_id': '7',
    'diameter_mm': '4.25',
    'excluded': '0',
  }
  assert (second['label'], second['nodule_id'], second['excluded']) == ('0', '-1', '1')
  assert float(second['probability']) == 1.234567891e-7


def test_a_submission_is_read_by_the_reader_of_submissions(tmp_path):
  path = tmp_path / 'submission.csv'
  records = fake_scores.make_records(ROWS)
  prediction_files.write_submission(
    path, records.seriesuid, records.center_xyz_mm, records.probability
  )
  assert path.read_text().startswith('seriesuid,coordX,coordY,coordZ,probability\n')
  table = tables.read_table(path, 'probability')
  assert table.seriesuids.tolist() == ['s1', 's2']
  np.testing.assert_allclose(table.xyz_mm, records.center_xyz_mm, atol=1e-6)
  np.testing.assert_allclose(table.probabilities, records.probability, rtol=1e-9)


def test_probabilities_keep_nine_digits():
  for probability in (0.1, 0.25, 3.3e-12, 0.123456789123, 1 - 1e-10):
    text = prediction_files.format_probability(probability)
    assert abs(float(text) - probability) <= 1e-9 * probability


def test_probabilities_close_to_one_stay_different():
  texts = {prediction_files.format_probability(1 - k * 1e-13) for k in range(1, 6)}
  assert len(texts) == 5
