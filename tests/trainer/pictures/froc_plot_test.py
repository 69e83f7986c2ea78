import matplotlib
import numpy as np
from PIL import Image
import pytest

from model.metrics import froc
from model.metrics.froc_matching import Entries
from model.metrics.resampling import Resampling
from trainer.pictures import colors
from trainer.pictures import froc_plot


@pytest.fixture(scope='module')
def entries():
  rng = np.random.default_rng(0)
  count, scans = 200, 20
  is_nodule = rng.random(count) < 0.2
  return Entries(
    scan=rng.integers(scans, size=count),
    score=np.round(rng.random(count) + 0.3 * is_nodule, 2),
    is_nodule=is_nodule,
    scans=scans,
  )


@pytest.fixture(scope='module')
def curve(entries):
  return froc.froc_curve(entries)


def test_line_passes_through_the_points_of_the_curve(curve):
  (axes,) = froc_plot.draw_froc_curve(curve, None, 'CPM 0.5').axes
  line, dots = axes.lines
  drawn = set(zip(*line.get_data()))
  visible = curve.fps_per_scan >= froc.FPS_PER_SCAN[0]
  assert visible.sum() > 20
  for point in zip(curve.fps_per_scan[visible], curve.sensitivity[visible]):
    assert point in drawn
  x, y = line.get_data()
  assert np.all(np.diff(x) >= 0)
  assert np.all(np.diff(y) >= 0)
  # Between the points the line follows the linear interpolation, on a log axis too.
  np.testing.assert_allclose(
    np.interp(0.3, x, y), curve.sensitivity_at([0.3])[0], atol=0.01
  )
  np.testing.assert_array_equal(dots.get_xdata(), froc.FPS_PER_SCAN)
  np.testing.assert_array_equal(
    dots.get_ydata(), curve.sensitivity_at(froc.FPS_PER_SCAN)
  )


def test_axes_are_those_of_luna16(curve):
  (axes,) = froc_plot.draw_froc_curve(curve, None, 'CPM 0.512').axes
  assert axes.get_xscale() == 'log'
  assert axes.get_xlim() == (0.125, 8)
  labels = [label.get_text() for label in axes.get_xticklabels()]
  assert labels == ['0.125', '0.25', '0.5', '1', '2', '4', '8']
  assert axes.get_xlabel() == 'Average number of false positives per scan'
  assert axes.get_ylabel() == 'Sensitivity'
  assert axes.get_title().endswith('CPM 0.512')


def test_band_lies_between_its_bounds(curve, entries):
  band = froc.confidence_band(entries, Resampling(resamples=30))
  (axes,) = froc_plot.draw_froc_curve(curve, band, '').axes
  (area,) = axes.collections
  corners = {tuple(point) for path in area.get_paths() for point in path.vertices}
  for bound in (band.curve.lower, band.curve.upper):
    assert set(zip(band.curve.fps_per_scan, bound)) <= corners
  texts = [text.get_text() for text in axes.figure.legends[0].get_texts()]
  assert texts == ['FROC', '95 % confidence band']


def test_file_has_the_colours_of_a_light_page(curve, tmp_path):
  froc_plot.save_froc_curve(curve, None, '', tmp_path / 'froc.png')
  pixels = np.asarray(Image.open(tmp_path / 'froc.png').convert('RGB'))
  model = np.round(255 * np.array(matplotlib.colors.to_rgb(colors.LIGHT.model)))
  assert (pixels == model).all(axis=-1).sum() > 100


def test_curves_of_folds_are_drawn_behind(curve):
  folds = {'fold 3': curve, 'fold 5': curve}
  (axes,) = froc_plot.draw_froc_curve(curve, None, '', folds).axes
  texts = [text.get_text() for text in axes.figure.legends[0].get_texts()]
  assert texts == ['fold 3', 'fold 5', 'all folds']
  *of_folds, main, _ = axes.lines
  assert all(line.get_zorder() < main.get_zorder() for line in of_folds)
