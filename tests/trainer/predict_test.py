import csv

import numpy as np
import pytest
import SimpleITK as sitk

from luna_tfds import scan as scan_lib
from trainer import predict
from trainer import train


@pytest.fixture(scope='module')
def workdir(data_dir, tmp_path_factory):
  folder = tmp_path_factory.mktemp('run')
  code = train.run(
    [
      'luna16-train',
      f'--data_dir={data_dir}',
      '--dataset=luna16_patches/axial_50px_all',
      f'--workdir={folder}',
      '--epochs=1',
      '--steps_per_epoch=1',
      '--batch_size=8',
    ]
  )
  assert code == 0
  return folder


@pytest.fixture(scope='module')
def scan_path(download):
  return sorted(download.folder.glob('subset*/*.mhd'))[0]


def run(workdir, scan, candidates, output, *more):
  return predict.run(
    [
      'luna16-predict',
      f'--workdir={workdir}',
      f'--scan={scan}',
      f'--candidates={candidates}',
      f'--output={output}',
      *more,
    ]
  )


def read(path):
  with open(path, newline='') as file:
    return list(csv.DictReader(file))


def test_new_scan_gets_what_the_stored_records_get(
  workdir, download, data_dir, scan_path, tmp_path
):
  """Prediction cuts the patches that extraction stored."""
  import keras

  from trainer.data import split_source
  from trainer.scoring import inference

  output = tmp_path / 'scores.csv'
  assert run(workdir, scan_path, download.folder / 'candidates.csv', output) == 0
  rows = read(output)
  assert list(rows[0]) == ['seriesuid', 'coordX', 'coordY', 'coordZ', 'probability']
  assert {row['seriesuid'] for row in rows} == {scan_path.stem}
  model = keras.models.load_model(workdir / 'model.keras', compile=False)
  builder = split_source.open_builder(str(data_dir), 'luna16_patches/axial_50px_all')
  stored = {}
  for split in builder.info.splits:
    scores = inference.score([model], split_source.open_source(builder, split))
    stored.update(zip(scores.keys, scores.probabilities))
  ids = [
    i
    for i, row in enumerate(read(download.folder / 'candidates.csv'))
    if row['seriesuid'] == scan_path.stem
  ]
  assert len(rows) == len(ids) > 0
  for row, candidate_id in zip(rows, ids):
    expected = stored[f'{scan_path.stem}/{candidate_id}']
    # A batch of another size may sum in another order.
    assert float(row['probability']) == pytest.approx(expected, rel=1e-2)
    assert len(row['probability'].split('e')[0].replace('.', '').lstrip('0')) >= 9


def test_nifti_gives_the_same_as_mhd(workdir, download, scan_path, tmp_path):
  image = sitk.ReadImage(str(scan_path))
  sitk.WriteImage(image, str(tmp_path / f'{scan_path.stem}.nii.gz'))
  candidates = download.folder / 'candidates.csv'
  assert run(workdir, scan_path, candidates, tmp_path / 'a.csv') == 0
  nifti = tmp_path / f'{scan_path.stem}.nii.gz'
  assert run(workdir, nifti, candidates, tmp_path / 'b.csv') == 0
  a, b = (
    np.array([float(row['probability']) for row in read(tmp_path / name)])
    for name in ('a.csv', 'b.csv')
  )
  np.testing.assert_allclose(a, b, rtol=1e-6)


def test_unlabelled_candidates_will_do(workdir, scan_path, tmp_path):
  grid = scan_lib.open_scan(scan_path).grid
  x, y, z = grid.origin_xyz_mm
  path = tmp_path / 'points.csv'
  path.write_text(f'seriesuid,coordX,coordY,coordZ\nanyone,{x},{y},{z}\n')
  assert run(workdir, scan_path, path, tmp_path / 'out.csv', '--tta') == 0
  assert len(read(tmp_path / 'out.csv')) == 1


def test_bad_input(workdir, scan_path, download, tmp_path, error_line):
  candidates = download.folder / 'candidates.csv'
  output = tmp_path / 'out.csv'
  assert run(tmp_path / 'none', scan_path, candidates, output) == 2
  assert 'luna16-train' in error_line()
  assert run(workdir, tmp_path / 'no.mhd', candidates, output) == 2
  assert 'no such file' in error_line()
  assert run(workdir, scan_path, candidates, output, '--seriesuid=1.2.3') == 2
  assert '1.2.3' in error_line()
  assert run(workdir, scan_path, tmp_path / 'no.csv', output) == 2
  assert 'no.csv' in error_line()
  assert not output.exists()
