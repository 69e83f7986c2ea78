"""The colours of plots and report, for light and for dark pages."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class Palette:
  """Colours by what they are for, as CSS and Matplotlib take them.

  Attributes:
    page: background of the page.
    card: background of plots, tables and tiles.
    text: colour of text on the page and in plots.
    muted_text: small text of the page.
    line: borders and grid lines.
    shade: background of notices.
    model: this model's curves, and headings.
    article: the article's results.
    muted: axes, and curves for comparison.
    shares: Matplotlib colour map for shares from 0 to 1.
  """

  page: str
  card: str
  text: str
  muted_text: str
  line: str
  shade: str
  model: str
  article: str
  muted: str
  shares: str


LIGHT = Palette(
  page='#f6f7f9',
  card='#ffffff',
  text='#1c2026',
  muted_text='#59626f',
  line='#dfe3e9',
  shade='#eaf1f9',
  model='#1f5fa8',
  article='#d9722b',
  muted='#8a93a0',
  shares='Blues',
)
DARK = Palette(
  page='#12151a',
  card='#1a1f26',
  text='#e4e8ee',
  muted_text='#98a3b3',
  line='#2e3640',
  shade='#1d2a3a',
  model='#7db3ee',
  article='#f0a35e',
  muted='#7e8998',
  shares='Blues_r',
)
