from absl import logging
import fake_data
import pytest

from luna_tfds import download as download_lib
from luna_tfds import input_checks
from luna_tfds import tables


@pytest.fixture
def fakes():
  return [
    fake_data.make_scan(0, 0),
    fake_data.make_scan(1, 1, flips=(True, True, False)),
  ]


@pytest.fixture
def folder(fakes, tmp_path):
  return fake_data.write_download(tmp_path, fakes, healthy=()).folder


def problems_of(folder):
  return input_checks.find_problems(
    folder,
    download_lib.find_scans(folder),
    tables.read_candidates(folder / 'candidates.csv'),
  )


def change_candidates(folder, change):
  rows = tables.read_candidates(folder / 'candidates.csv')
  fake_data.write_candidates(
    folder / 'candidates.csv',
    [
      change(name, *point, int(label))
      for name, point, label in zip(
        rows.seriesuids, rows.xyz_mm.tolist(), rows.class_labels
      )
    ],
  )


def test_files_that_belong_together(folder):
  assert problems_of(folder) == []


def test_a_partial_download(folder):
  next((folder / 'subset0').glob('*.mhd')).unlink()
  assert problems_of(folder) == []


def test_most_centres_outside(folder):
  # Voxel indices instead of mm.
  change_candidates(folder, lambda name, x, y, z, label: (name, x, y, z + 400, 0))
  (problem,) = problems_of(folder)
  assert problem.startswith(f'{folder}: 28 of 28 candidates lie outside their scans; ')


def test_some_centres_outside(folder):
  change_candidates(
    folder,
    lambda name, x, y, z, label: (name, x, y, z + 400 * name.endswith('.1'), 0),
  )
  # Of 13 and 15 candidates, all of the second scan and 1 of the first are outside.
  (problem,) = problems_of(folder)
  assert problem.startswith(f'{folder}: 16 of 28 candidates lie outside')


def test_positives_that_hit_no_nodule(folder, fakes):
  change_candidates(folder, lambda name, x, y, z, label: (name, x, y, z, 1))
  (problem,) = problems_of(folder)
  assert problem.startswith(
    f'{folder / "annotations.csv"}: 24 of 28 candidates of class 1 hit none of its nodules'
  )


def test_annotations_that_match_no_scan(folder):
  rows = tables.read_findings(folder / 'annotations.csv')
  known = [(n, *p, 8.5) for n, p in zip(rows.seriesuids, rows.xyz_mm.tolist())]
  fake_data.write_findings(
    folder / 'annotations.csv', [*known, ('1.2', 0, 0, 0, 5), ('1.3', 0, 0, 0, 5)]
  )
  (problem,) = problems_of(folder)
  assert '2 of 4 nodules have a seriesuid that is neither a scan on disk' in problem


def test_unreadable_scans_are_left_out(folder):
  path = next((folder / 'subset0').glob('*.mhd'))
  path.unlink()
  path.symlink_to('absent.mhd')
  other = next((folder / 'subset1').glob('*.mhd'))
  fake_data.edit_header(other, 'TransformMatrix', '0 0 0 0 0 0 0 0 0')
  assert problems_of(folder) == []


def test_coordinates_of_any_size(folder):
  change_candidates(folder, lambda name, x, y, z, label: (name, x, 1e300, z, 0))
  (problem,) = problems_of(folder)
  assert '28 of 28 candidates lie outside' in problem


def test_problems_are_logged_as_one_line_each(folder, monkeypatch):
  change_candidates(folder, lambda name, x, y, z, label: (name, x, y, z + 400, 1))
  lines = []
  monkeypatch.setattr(logging, 'warning', lambda text, *args: lines.append(text % args))
  input_checks.log_warnings(
    folder,
    download_lib.find_scans(folder),
    tables.read_candidates(folder / 'candidates.csv'),
  )
  assert lines == problems_of(folder)
  assert len(lines) == 2
  assert not any('\n' in line for line in lines)
