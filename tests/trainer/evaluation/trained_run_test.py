import json
import shutil

import numpy as np
import pytest

from luna_tfds.errors import UsageError
from trainer.evaluation import trained_run


def test_a_run_is_opened_with_its_model_and_operating_point(trained):
  (run,) = trained_run.open_runs([str(trained)])
  assert run.workdir.path == trained
  assert run.config.model == 'nodule_net'
  assert run.model.image_shape == (50, 50, 1)
  stored = json.loads((trained / 'operating_point.json').read_text())
  assert run.point.threshold == stored['threshold']
  config = json.loads((trained / 'config.json').read_text())
  assert run.dataset_fingerprint == config['dataset_fingerprint']


def test_members_of_an_ensemble_are_opened_in_order(trained, other_trained):
  first, second = trained_run.open_runs([str(trained), str(other_trained)])
  assert (first.config.model, second.config.model) == ('nodule_net', 'article_cnn')
  images = np.zeros((1, 50, 50, 1), np.int16)
  assert first.model.probabilities(images) != second.model.probabilities(images)


@pytest.mark.parametrize('name', ['train_split', 'validation_split'])
def test_an_ensemble_on_different_splits_is_refused(
  name, trained, other_trained, tmp_path
):
  moved = shutil.copytree(other_trained, tmp_path / 'moved')
  fields = json.loads((moved / 'config.json').read_text())
  fields['config'][name] = 'test'
  (moved / 'config.json').write_text(json.dumps(fields))
  with pytest.raises(UsageError, match=f"moved has {name}='test'.*the same splits"):
    trained_run.open_runs([str(trained), str(moved)])


@pytest.mark.parametrize(
  ('patch', 'is_refused'),
  [
    ({'shape_zyx': [1, 50, 50], 'spacing_mm': 0.5, 'layout': 'axial'}, True),
    ({'shape_zyx': [1, 50, 50], 'spacing_mm': None, 'layout': 'axial'}, False),
    (None, False),
  ],
)
def test_an_ensemble_on_patches_of_different_kinds_is_refused(
  trained, tmp_path, patch, is_refused
):
  other = shutil.copytree(trained, tmp_path / 'other')
  fields = json.loads((other / 'config.json').read_text())
  (other / 'config.json').write_text(json.dumps({**fields, 'patch': patch}))
  paths = [str(trained), str(other)]
  if is_refused:
    with pytest.raises(UsageError, match=r'spacing 0\.5 mm.*spacing of the scan'):
      trained_run.open_runs(paths)
  else:
    assert len(trained_run.open_runs(paths)) == 2


@pytest.mark.parametrize('name', ['model.keras', 'operating_point.json'])
def test_an_unfinished_run_is_refused(name, trained, tmp_path):
  folder = shutil.copytree(trained, tmp_path / 'run')
  (folder / name).unlink()
  message = rf'training has not finished \({name} is missing\).*luna16-train'
  with pytest.raises(UsageError, match=message):
    trained_run.open_runs([str(folder)])


def test_an_ensemble_of_other_calibrations_is_refused(trained, tmp_path):
  other = shutil.copytree(trained, tmp_path / 'other')
  fields = json.loads((other / 'calibration.json').read_text())
  fit = {'method': 'platt', 'scale': 1.0, 'offset': 0.0, 'ece': 0.1}
  changed = {**fields, 'method': 'platt', 'methods': [fit]}
  (other / 'calibration.json').write_text(json.dumps(changed))
  with pytest.raises(UsageError, match=r'calibrated by platt.*one calibration'):
    trained_run.open_runs([trained, other])
  # An older version wrote no such file.
  (other / 'calibration.json').unlink()
  assert trained_run.open_runs([trained, other])[1].calibration is None


def test_an_ensemble_for_other_shares_of_nodules_is_refused(
  trained, trained_on_part, tmp_path
):
  with pytest.raises(UsageError, match=r'prevalence of nodules.*needs one prevalence'):
    trained_run.open_runs([trained, trained_on_part])
  # Of one dataset, other splits have slightly other shares.
  other = shutil.copytree(trained, tmp_path / 'other')
  fields = json.loads((other / 'operating_point.json').read_text())
  fields['deployed_prior'] *= 1.05
  (other / 'operating_point.json').write_text(json.dumps(fields))
  assert len(trained_run.open_runs([trained, other])) == 2


def test_folds_may_have_splits_of_their_own(trained, tmp_path):
  other = shutil.copytree(trained, tmp_path / 'other')
  fields = json.loads((other / 'config.json').read_text())
  fields['config']['train_split'] = 'train[1shard:]'
  (other / 'config.json').write_text(json.dumps(fields))
  with pytest.raises(UsageError, match='same splits'):
    trained_run.open_runs([trained, other])
  assert len(trained_run.open_runs([trained, other], same_splits=False)) == 2
