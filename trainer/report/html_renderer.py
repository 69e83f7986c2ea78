"""Renders a report as one HTML file that contains its pictures and style.

The page is readable on a screen, on a phone and in print, in light and in dark mode. Its
templates are in the folder `templates`.
"""

from __future__ import annotations

import re

import jinja2

from trainer.pictures import colors
from trainer.report.content import Page

# The name of a flag, up to its value.
_FLAG = re.compile(r'(--[a-z]\w*=?)')

_TEMPLATES = jinja2.Environment(
  loader=jinja2.PackageLoader('trainer.report'),
  autoescape=True,
  # A name that a template misspells is an error, not an empty text.
  undefined=jinja2.StrictUndefined,
  trim_blocks=True,
  lstrip_blocks=True,
  keep_trailing_newline=True,
)
# Returns [text, flag, text, flag, ..., text].
_TEMPLATES.filters['split_at_flags'] = _FLAG.split


def render(page: Page) -> str:
  """Returns the page as HTML; all its text is escaped."""
  return _TEMPLATES.get_template('page.html').render(
    page=page, light=colors.LIGHT, dark=colors.DARK
  )
