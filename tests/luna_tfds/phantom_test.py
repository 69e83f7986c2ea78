import itertools
import re

import numpy as np
import oracles
import pytest
import SimpleITK as sitk

from luna_tfds import download as download_lib
from luna_tfds import geometry
from luna_tfds import phantom

NUM_SCANS = 6


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  folder = tmp_path_factory.mktemp('phantom') / 'luna16'
  code = phantom.run(
    ['luna16-phantom', f'--output_dir={folder}', f'--scans={NUM_SCANS}']
  )
  assert code == 0
  return folder


@pytest.fixture(scope='module')
def headers(folder):
  """Returns the text of each scan's header, by subset."""
  return {int(p.parent.name[-1]): p.read_text() for p in folder.glob('subset*/*.mhd')}


@pytest.fixture(scope='module')
def flipped():
  return phantom.make_phantom(2, seed=0)


def rows(folder, name):
  return oracles.read_csv(folder / f'{name}.csv')


def test_layout_of_the_download(folder):
  assert sorted(p.name for p in folder.glob('subset*')) == [
    f'subset{k}' for k in range(10)
  ]
  scans = download_lib.find_scans(folder)
  assert sorted(scan.subset for scan in scans.values()) == list(range(NUM_SCANS))
  names = {'candidates.csv', 'annotations.csv', 'annotations_excluded.csv'}
  assert names <= {p.name for p in folder.iterdir()}


def test_some_scans_are_flipped_and_some_compressed(headers):
  flipped = [k for k, h in headers.items() if 'TransformMatrix = -1 0 0 0 -1 0' in h]
  assert flipped == [2]
  compressed = [k for k, h in headers.items() if 'CompressedData = True' in h]
  assert compressed == [4]


def test_spacing_varies(headers):
  spacings = {re.search('ElementSpacing = (.*)', h)[1] for h in headers.values()}
  assert len(spacings) == NUM_SCANS


def test_scans_hold_hounsfield_units(folder):
  least = set()
  for path in folder.glob('subset*/*.mhd'):
    image = sitk.ReadImage(str(path))
    voxels = sitk.GetArrayFromImage(image)
    assert voxels.dtype == np.int16
    inside = voxels[voxels >= -1100]
    # Lung, soft tissue and bone.
    assert np.quantile(inside, 0.1) < -700
    assert (np.abs(inside) < 150).mean() > 0.05
    assert inside.max() > 300
    least.add(min(voxels.min(), -1100))
  # Some scans mark what is outside the field of view.
  assert least & {-2000, -2048, -3024}


def test_positives_hit_a_nodule_and_negatives_do_not(folder):
  nodules = rows(folder, 'annotations')
  labels = []
  for name, *point, label in rows(folder, 'candidates'):
    assert (oracles.nearest_hit(name, point, nodules) >= 0) == (label == 1)
    labels.append(label)
  assert labels.count(1) >= len(nodules) > 0
  assert labels.count(0) > 10 * NUM_SCANS


def test_candidates_lie_in_their_scans(folder):
  scans = download_lib.find_scans(folder)
  images = {name: oracles.world_image(scan.path) for name, scan in scans.items()}
  for name, *point, _ in rows(folder, 'candidates'):
    center = oracles.center_zyx(images[name], point)
    assert (center > -1).all()
    assert (center < images[name].GetSize()[::-1]).all()


def test_nodules_are_denser_than_the_lung_around(folder):
  scans = download_lib.find_scans(folder)
  for name, *point, diameter in rows(folder, 'annotations'):
    image = oracles.world_image(scans[name].path)
    inside = oracles.mm_block(image, point, (3, 3, 3), diameter / 8)
    assert np.median(inside) > -650  # the lung is at about -860


def test_every_nodule_centre_lies_in_an_excluded_finding(folder):
  excluded = rows(folder, 'annotations_excluded')
  for name, *point, _ in rows(folder, 'annotations'):
    assert oracles.nearest_hit(name, point, excluded) >= 0
  assert any(row[4] == -1 for row in excluded)
  assert any(row[4] > 0 for row in excluded)


def test_one_scan_has_no_nodule(folder):
  scans = download_lib.find_scans(folder)
  with_nodules = {row[0] for row in rows(folder, 'annotations')}
  assert [s.subset for s in scans.values() if s.seriesuid not in with_nodules] == [3]


def test_rows_of_different_scans_are_mixed(folder):
  names = [row[0] for row in rows(folder, 'candidates')]
  assert sum(a != b for a, b in itertools.pairwise(names)) > len(names) / 2


def test_the_same_seed_gives_the_same_bytes(folder, flipped, tmp_path):
  path = phantom.write_scan(tmp_path, flipped)
  expected = folder / 'subset2' / path.name
  assert path.read_bytes() == expected.read_bytes()
  assert (
    path.with_suffix('.raw').read_bytes() == expected.with_suffix('.raw').read_bytes()
  )


def test_another_seed_makes_another_scan(flipped):
  other = phantom.make_phantom(2, seed=1)
  assert other.seriesuid != flipped.seriesuid
  assert other.candidates != flipped.candidates


def test_a_flipped_phantom_is_the_same_scan(flipped, tmp_path):
  image = oracles.world_image(phantom.write_scan(tmp_path, flipped))
  np.testing.assert_array_equal(sitk.GetArrayFromImage(image), flipped.voxels)
  corner = geometry.voxel_to_world([0, 0, 0], flipped.grid)
  np.testing.assert_allclose(image.GetOrigin(), corner)


def test_a_folder_with_scans_is_refused(folder, error_line):
  assert phantom.run(['luna16-phantom', f'--output_dir={folder}']) == 2
  assert 'already contains scans; give an empty --output_dir' in error_line()


@pytest.mark.parametrize(
  ('arguments', 'problem'),
  [
    ([], '--output_dir is required'),
    (['--output_dir=x', '--scans=0'], '--scans=0: 0 is not a positive integer'),
    (['--output_dir=x', '--scans=many'], '--scans=many'),
    (['--output_dir=x', '--seed=-1'], '--seed=-1: -1 is not a non-negative integer'),
    (['--out_dri=x'], 'out_dir'),
  ],
)
def test_invalid_flags(arguments, problem, error_line, tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  assert phantom.run(['luna16-phantom', *arguments]) == 2
  assert problem in error_line()
  assert list(tmp_path.iterdir()) == []


def test_out_dir_is_an_alias(tmp_path, monkeypatch):
  written = []
  monkeypatch.setattr(
    phantom, 'write_download', lambda *arguments: written.append(arguments)
  )
  assert phantom.run(['luna16-phantom', f'--out_dir={tmp_path}', '--scans=3']) == 0
  assert phantom.run(['luna16-phantom', f'--output_dir={tmp_path}', '--seed=5']) == 0
  assert written == [(tmp_path, 3, 0), (tmp_path, 24, 5)]


def test_a_second_run_starts_without_the_alias(tmp_path, monkeypatch, capfd):
  monkeypatch.setattr(phantom, 'write_download', lambda *arguments: None)
  assert phantom.run(['luna16-phantom', f'--out_dir={tmp_path}', '--scans=1']) == 0
  assert capfd.readouterr().err == f'wrote 1 synthetic scan to {tmp_path}\n'
  assert phantom.run(['luna16-phantom']) == 2
  assert '--output_dir is required' in capfd.readouterr().err


def test_a_folder_that_cannot_be_made(tmp_path, error_line):
  (tmp_path / 'link').symlink_to(tmp_path / 'missing')
  arguments = ['luna16-phantom', f'--out_dir={tmp_path / "link"}', '--scans=1']
  assert phantom.run(arguments) == 2
  assert 'link cannot be made: It is a symbolic link to a missing' in error_line()
