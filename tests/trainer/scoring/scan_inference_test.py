import fake_data
import numpy as np
import pytest

from luna_tfds import patches
from luna_tfds.command_line import progress
from luna_tfds.scans import scan as scan_lib
from trainer.scoring import inference
from trainer.scoring import scan_inference
from trainer.scoring import scored_records

SPEC = patches.PatchSpec(shape_zyx=(1, 4, 4))


@pytest.fixture(scope='module')
def scan(tmp_path_factory):
  path = fake_data.make_scan(3).write(tmp_path_factory.mktemp('scan'))
  return scan_lib.open_scan(path)


@pytest.fixture(scope='module')
def centers_xyz_mm():
  """More points than fit into one batch, some of them outside the scan."""
  shape = np.array(fake_data.SHAPE_ZYX)
  index_zyx = np.random.default_rng(0).uniform(-0.1, 1.1, (300, 3)) * shape
  return np.stack([fake_data.make_scan(3).world(index) for index in index_zyx])


@pytest.mark.parametrize('tta', [False, True])
def test_points_keep_their_order_over_batches(small_model, scan, centers_xyz_mm, tta):
  found = scan_inference.predict_points(
    [small_model], scan, centers_xyz_mm, SPEC, tta=tta
  )
  assert found.shape == (300,)
  assert found.dtype == np.float64
  for k in (0, 255, 256, 299):
    (alone,) = scan_inference.predict_points(
      [small_model], scan, centers_xyz_mm[k : k + 1], SPEC, tta=tta
    )
    assert found[k] == pytest.approx(alone, rel=1e-6)


def test_no_points_give_no_probabilities(small_model, scan):
  found = scan_inference.predict_points(
    [small_model], scan, np.zeros((0, 3)), SPEC, tta=False
  )
  assert found.shape == (0,)


def test_stored_records_get_the_same_from_their_scan(trained, opened_dataset, download):
  """Patches are cut from a scan as the extraction cut those of the dataset."""
  model = inference.load_model(trained / 'model.keras')
  records = scored_records.score_split([model], opened_dataset.open_split('validation'))
  (seriesuid,) = np.unique(records.seriesuid)
  found = scan_inference.predict_points(
    [model],
    scan_lib.open_scan(download.paths[seriesuid]),
    records.center_xyz_mm,
    opened_dataset.metadata.patch,
    tta=False,
  )
  np.testing.assert_allclose(found, records.probability, rtol=1e-5)


def test_progress_is_displayed(small_model, scan, centers_xyz_mm, monkeypatch, capsys):
  monkeypatch.setattr(progress, '_LINE_SECS', 0.0)
  scan_inference.predict_points(
    [small_model], scan, centers_xyz_mm[:3], SPEC, tta=False
  )
  last = capsys.readouterr().err.splitlines()[-1]
  assert last.startswith('scoring: 3/3 candidates, ')
