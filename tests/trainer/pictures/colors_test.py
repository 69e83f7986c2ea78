import matplotlib
import numpy as np
import pytest

from trainer.pictures import colors


def luminance(color):
  """Relative luminance, as WCAG 2 defines it."""
  channels = np.array(matplotlib.colors.to_rgb(color))
  linear = np.where(
    channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4
  )
  return float(linear @ [0.2126, 0.7152, 0.0722])


def contrast(one, other):
  dark, light = sorted((luminance(one), luminance(other)))
  return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize('palette', [colors.LIGHT, colors.DARK], ids=['light', 'dark'])
def test_text_and_curves_are_readable(palette):
  """WCAG 2 asks for a contrast of 4.5 for text and 3 for parts of plots."""
  for background in (palette.page, palette.card, palette.shade):
    assert contrast(palette.text, background) > 7
    assert contrast(palette.muted_text, background) > 4.5
  for color in (palette.model, palette.article, palette.muted):
    assert contrast(color, palette.card) > 3


def test_dark_pages_are_dark():
  for name in ('page', 'card', 'shade'):
    assert luminance(getattr(colors.DARK, name)) < 0.1
    assert luminance(getattr(colors.LIGHT, name)) > 0.7
