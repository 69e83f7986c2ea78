import base64
import io

import matplotlib
import numpy as np
from PIL import Image
import pytest

from trainer.pictures import colors
from trainer.pictures import figures


def draw():
  figure, axes = figures.new_figure()
  axes.plot([0, 1], [0, 1], color=figures.MODEL_COLOR)
  axes.set_xlabel('x')
  return figure


def pixels(png):
  return np.asarray(Image.open(io.BytesIO(png)).convert('RGB'))


def png_of(uri):
  return base64.b64decode(uri.removeprefix('data:image/png;base64,'))


def rgb(color):
  return np.round(255 * np.array(matplotlib.colors.to_rgb(color)))


@pytest.mark.parametrize('palette', [colors.LIGHT, colors.DARK], ids=['light', 'dark'])
def test_a_theme_sets_the_colours(palette):
  with figures.theme(palette):
    figure = draw()
    (axes,) = figure.axes
    (line,) = axes.lines
    assert matplotlib.colors.same_color(line.get_color(), palette.model)
  assert matplotlib.colors.same_color(axes.xaxis.label.get_color(), palette.text)
  assert matplotlib.colors.same_color(figure.get_facecolor(), palette.card)


def test_a_theme_ends_with_its_block():
  before = dict(matplotlib.rcParams)
  with figures.theme(colors.DARK):
    assert dict(matplotlib.rcParams) != before
  assert dict(matplotlib.rcParams) == before


def test_a_figure_is_saved_for_light_and_dark_pages(tmp_path):
  path = tmp_path / 'plots' / 'line.png'
  light, dark = (png_of(uri) for uri in figures.save_themed(draw, path))
  assert path.read_bytes() == light
  for png, palette in ((light, colors.LIGHT), (dark, colors.DARK)):
    np.testing.assert_array_equal(pixels(png)[0, 0], rgb(palette.card))
    is_curve = (pixels(png) == rgb(palette.model)).all(axis=-1)
    assert is_curve.sum() > 100


def test_the_same_figure_gives_the_same_file(tmp_path):
  first = figures.save(draw(), tmp_path / 'a.png')
  assert figures.save(draw(), tmp_path / 'b.png') == first
  assert (tmp_path / 'a.png').read_bytes() == (tmp_path / 'b.png').read_bytes()
