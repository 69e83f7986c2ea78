import csv
import json
import os
import shutil

import numpy as np
import pytest
import SimpleITK as sitk

from luna_tfds.scans import scan as scan_lib
from trainer import predict
from trainer.scoring import inference
from trainer.scoring import scored_records


@pytest.fixture(scope='module')
def scan_path(download):
  return sorted(download.folder.glob('subset*/*.mhd'))[0]


@pytest.fixture(scope='module')
def candidates(download):
  return download.folder / 'candidates.csv'


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


def probabilities_of(path):
  return np.array([float(row['probability']) for row in read(path)])


def test_a_scan_gets_the_probabilities_of_its_stored_records(
  trained, candidates, opened_dataset, scan_path, tmp_path, capsys
):
  output = tmp_path / 'scores.csv'
  assert run(trained, scan_path, candidates, output) == 0
  rows = read(output)
  assert list(rows[0]) == ['seriesuid', 'coordX', 'coordY', 'coordZ', 'probability']
  assert {row['seriesuid'] for row in rows} == {scan_path.stem}
  model = inference.load_model(trained / 'model.keras')
  source = opened_dataset.open_split('train+validation+test')
  records = scored_records.score_split([model], source)
  stored = dict(zip(records.keys, records.probability))
  ids = [
    number
    for number, row in enumerate(read(candidates))
    if row['seriesuid'] == scan_path.stem
  ]
  assert len(rows) == len(ids) > 0
  expected = [stored[f'{scan_path.stem}/{candidate_id}'] for candidate_id in ids]
  # A batch of another size may be summed in another order.
  np.testing.assert_allclose(probabilities_of(output), expected, rtol=1e-2)
  for row in rows:
    assert len(row['probability'].split('e')[0].replace('.', '').lstrip('0')) >= 9
  assert f'{len(rows)} candidates scored: {output}' in capsys.readouterr().err


def test_nifti_gives_the_same_as_mhd(trained, candidates, scan_path, tmp_path):
  nifti = tmp_path / f'{scan_path.stem}.nii.gz'
  sitk.WriteImage(sitk.ReadImage(str(scan_path)), str(nifti))
  assert run(trained, scan_path, candidates, tmp_path / 'a.csv') == 0
  assert run(trained, nifti, candidates, tmp_path / 'b.csv') == 0
  a, b = (probabilities_of(tmp_path / name) for name in ('a.csv', 'b.csv'))
  np.testing.assert_allclose(a, b, rtol=1e-6)


def test_unlabelled_candidates_of_a_single_scan(trained, scan_path, tmp_path, capsys):
  x, y, z = scan_lib.open_scan(scan_path).grid.origin_xyz_mm
  path = tmp_path / 'points.csv'
  path.write_text(f'seriesuid,coordX,coordY,coordZ\nanyone,{x},{y},{z}\n')
  assert run(trained, scan_path, path, tmp_path / 'out.csv', '--tta') == 0
  (row,) = read(tmp_path / 'out.csv')
  assert row['seriesuid'] == 'anyone'
  assert '1 candidate scored' in capsys.readouterr().err


def test_tta_changes_the_probabilities(trained, candidates, scan_path, tmp_path):
  assert run(trained, scan_path, candidates, tmp_path / 'a.csv') == 0
  assert run(trained, scan_path, candidates, tmp_path / 'b.csv', '--tta') == 0
  a, b = (probabilities_of(tmp_path / name) for name in ('a.csv', 'b.csv'))
  assert np.mean(a != b) > 0.9
  # As trained, unless the flag is given.
  workdir = shutil.copytree(trained, tmp_path / 'run')
  fields = json.loads((workdir / 'operating_point.json').read_text())
  (workdir / 'operating_point.json').write_text(json.dumps({**fields, 'tta': True}))
  assert run(workdir, scan_path, candidates, tmp_path / 'c.csv') == 0
  np.testing.assert_array_equal(probabilities_of(tmp_path / 'c.csv'), b)
  assert run(workdir, scan_path, candidates, tmp_path / 'd.csv', '--notta') == 0
  np.testing.assert_array_equal(probabilities_of(tmp_path / 'd.csv'), a)


def test_rows_of_another_scan_are_scored_by_name(
  trained, candidates, scan_path, tmp_path, download
):
  other = next(uid for uid in download.scans if uid != scan_path.stem)
  output = tmp_path / 'out.csv'
  assert run(trained, scan_path, candidates, output, f'--seriesuid={other}') == 0
  assert {row['seriesuid'] for row in read(output)} == {other}


@pytest.mark.parametrize(
  ('changed', 'message'),
  [
    ({'workdir': '{tmp}/none'}, 'luna16-train'),
    ({'workdir': ''}, '--workdir is required'),
    ({'scan': '{tmp}/no.mhd'}, 'no.mhd'),
    ({'scan': ''}, '--scan is required'),
    ({'candidates': '{tmp}/no.csv'}, 'no.csv'),
    ({'candidates': '{tmp}/broken.csv'}, 'broken.csv, row 0'),
    ({'candidates': '{tmp}/columns.csv'}, 'coordZ'),
    ({'candidates': ''}, '--candidates is required'),
    ({'output': '{tmp}/none/out.csv'}, '--output: there is no folder'),
    ({'output': ''}, '--output is required'),
    ({'seriesuid': '1.2.3'}, 'no row of the scan 1.2.3; it names 12 scans'),
  ],
)
def test_a_mistake_is_one_line_and_exit_code_2(
  trained, scan_path, candidates, tmp_path, error_line, changed, message
):
  (tmp_path / 'broken.csv').write_text('seriesuid,coordX,coordY,coordZ\na,1,2,x\n')
  (tmp_path / 'columns.csv').write_text('seriesuid,coordX,coordY\na,1,2\n')
  flags = {
    'workdir': trained,
    'scan': scan_path,
    'candidates': candidates,
    'output': tmp_path / 'out.csv',
    **{name: value.format(tmp=tmp_path) for name, value in changed.items()},
  }
  code = predict.run(['luna16-predict', *(f'--{k}={v}' for k, v in flags.items())])
  assert code == 2
  assert message in error_line()
  assert not (tmp_path / 'out.csv').exists()


def write_points(path, seriesuid, points):
  rows = [f'{seriesuid},{x},{y},{z}' for x, y, z in points]
  path.write_text('\n'.join(['seriesuid,coordX,coordY,coordZ', *rows, '']))
  return path


def test_centres_outside_the_scan_are_warned_of(trained, scan_path, tmp_path, capsys):
  inside = np.array(scan_lib.open_scan(scan_path).grid.origin_xyz_mm)
  points = [inside, inside - 1000, inside, inside + 5000]
  path = write_points(tmp_path / 'points.csv', 'anyone', points)
  assert run(trained, scan_path, path, tmp_path / 'out.csv') == 0
  assert len(read(tmp_path / 'out.csv')) == 4
  warning, _ = capsys.readouterr().err.splitlines()
  assert warning.startswith('luna16-predict: warning: ')
  assert 'the centres of 2 of 4 candidates are outside the scan' in warning
  assert 'the first in row 1 (from 0)' in warning


def test_a_scan_that_holds_no_centre_is_refused(
  trained, scan_path, tmp_path, error_line
):
  inside = np.array(scan_lib.open_scan(scan_path).grid.origin_xyz_mm)
  path = write_points(tmp_path / 'points.csv', 'anyone', [inside - 1000] * 2)
  assert run(trained, scan_path, path, tmp_path / 'out.csv') == 2
  assert f'no centre is inside the scan {scan_path}: 2 candidates' in error_line()


def test_rows_of_another_scan_alone_are_refused(
  trained, scan_path, tmp_path, error_line
):
  inside = scan_lib.open_scan(scan_path).grid.origin_xyz_mm
  path = write_points(tmp_path / 'points.csv', '1.2.3', [inside])
  assert run(trained, scan_path, path, tmp_path / 'out.csv') == 2
  assert f'of the scan 1.2.3, and --scan is {scan_path.stem}' in error_line()
  # Unless the user says that they are of this scan.
  flag = '--seriesuid=1.2.3'
  assert run(trained, scan_path, path, tmp_path / 'out.csv', flag) == 0


def test_output_is_checked_before_anything_is_read(tmp_path, error_line, monkeypatch):
  nowhere = tmp_path / 'nowhere'
  assert run(nowhere, nowhere, nowhere, tmp_path / 'none' / 'out.csv') == 2
  assert '--output: there is no folder' in error_line()
  assert run(nowhere, nowhere, nowhere, tmp_path) == 2
  assert f'--output: {tmp_path} is a folder' in error_line()
  monkeypatch.setattr(predict.os, 'access', lambda path, mode: False)
  assert run(nowhere, nowhere, nowhere, tmp_path / 'out.csv') == 2
  assert f'--output: the folder {tmp_path} cannot be written' in error_line()


def test_output_never_replaces_an_input_or_a_device(tmp_path, error_line):
  # Also as another name of the same file.
  points = write_points(tmp_path / 'points.csv', 'anyone', [(1, 2, 3)])
  before = points.read_bytes()
  scan = tmp_path / 'scan.mhd'
  scan.write_text('')
  link = tmp_path / 'link.csv'
  link.symlink_to(points)
  for output, flag in ((points, 'candidates'), (link, 'candidates'), (scan, 'scan')):
    assert run(tmp_path / 'nowhere', scan, points, output) == 2
    assert f'--output: {output} is the file of --{flag}' in error_line()
  assert points.read_bytes() == before
  os.mkfifo(tmp_path / 'pipe')
  assert run(tmp_path / 'nowhere', scan, points, tmp_path / 'pipe') == 2
  assert f'--output: {tmp_path / "pipe"} is no regular file' in error_line()


def test_a_scan_of_another_model_is_refused(trained, scan_path, candidates, tmp_path):
  """Published patches do not tell how they were cut from their scans."""
  workdir = shutil.copytree(trained, tmp_path / 'run')
  fields = json.loads((workdir / 'config.json').read_text())
  (workdir / 'config.json').write_text(json.dumps({**fields, 'patch': None}))
  assert run(workdir, scan_path, candidates, tmp_path / 'out.csv') == 2
