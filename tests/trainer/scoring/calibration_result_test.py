import json
import math

import pytest

from luna_tfds.errors import UsageError
from luna_tfds.files import atomic_files
from trainer.scoring.calibration_result import CalibrationResult
from trainer.scoring.calibration_result import FittedMethod

RESULT = CalibrationResult(
  method='temperature',
  fitted_on='validation',
  records=100,
  nodules=25,
  methods=(
    FittedMethod('prior_shift', 1.0, -1.5, 0.04),
    FittedMethod('temperature', 0.5, -0.75, math.nan),
  ),
)


def test_file_is_read_as_it_was_written(tmp_path):
  path = tmp_path / 'calibration.json'
  atomic_files.write_json(path, RESULT.to_json())
  found = CalibrationResult.read(path)
  assert math.isnan(found.chosen.ece)
  assert found.methods[0] == RESULT.methods[0]
  assert (found.method, found.records, found.nodules) == ('temperature', 100, 25)
  assert (found.chosen.map.scale, found.chosen.map.offset) == (0.5, -0.75)


def test_a_run_of_an_older_version_has_none(tmp_path):
  assert CalibrationResult.read(tmp_path / 'calibration.json') is None


def test_text_lists_the_calibration_errors():
  text = str(RESULT)
  assert text.startswith('calibration: temperature; calibration error (ECE) on validat')
  assert 'prior_shift 0.0400' in text
  none_fitted = CalibrationResult('prior_shift', '', 0, 0, ())
  assert str(none_fitted) == 'calibration: prior_shift'
  assert none_fitted.chosen is None


@pytest.mark.parametrize(
  'content',
  ['', '[]', '{"method": "isotonic", "methods": []}', '{"method": 1, "methods": [2]}'],
)
def test_a_damaged_file_is_a_usage_error(tmp_path, content):
  path = tmp_path / 'calibration.json'
  path.write_text(content)
  with pytest.raises(UsageError, match=r'calibration\.json: cannot be read'):
    CalibrationResult.read(path)


@pytest.mark.parametrize('changes', [{'scale': 0}, {'offset': None}, {'scale': -1}])
def test_a_map_that_is_none_is_refused(tmp_path, changes):
  path = tmp_path / 'calibration.json'
  fields = RESULT.to_json()
  fields['methods'][0].update(changes)
  atomic_files.write_json(path, fields)
  with pytest.raises(UsageError, match=r'cannot be read: (scale|offset) must be'):
    CalibrationResult.read(path)


def test_an_unknown_method_is_refused(tmp_path):
  path = tmp_path / 'calibration.json'
  path.write_text(json.dumps({**RESULT.to_json(), 'methods': [], 'method': 'isotonic'}))
  with pytest.raises(UsageError, match='method must be one of'):
    CalibrationResult.read(path)


@pytest.mark.parametrize('kept', [[], [0]])
def test_a_method_without_its_fit_is_refused(tmp_path, kept):
  path = tmp_path / 'calibration.json'
  fields = RESULT.to_json()
  methods = [fields['methods'][k] for k in kept]
  atomic_files.write_json(path, {**fields, 'method': 'platt', 'methods': methods})
  with pytest.raises(
    UsageError, match='cannot be read: methods has no fit of platt; run the same'
  ):
    CalibrationResult.read(path)
