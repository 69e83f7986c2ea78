"""report.html: one file with its pictures inside, for a browser, a phone or a printer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import dataclasses
import html
from typing import Any

# What the article reports on its own test list.
ARTICLE = {
  'accuracy': 0.93,
  'precision': 0.893,
  'recall': 0.712,
  'specificity': 0.982,
  'f1': 0.79,
}

_STYLE = """
:root { color-scheme: light dark; --text: #1c1f24; --soft: #5a6270; --page: #ffffff;
  --card: #f4f6f8; --line: #d5dae1; --accent: #1f5fa8; }
@media (prefers-color-scheme: dark) { :root { --text: #e6e9ee; --soft: #9aa4b2;
  --page: #14171b; --card: #1e2329; --line: #343b45; --accent: #7db3ee; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 60rem; padding: 1rem 1.25rem 4rem; color: var(--text);
  background: var(--page); font: 1rem/1.55 system-ui, sans-serif; }
h1 { font-size: 1.6rem; margin: 1.2rem 0 0.2rem; }
h2 { font-size: 1.15rem; margin: 2.2rem 0 0.6rem; border-bottom: 1px solid var(--line);
  padding-bottom: 0.25rem; }
p { max-width: 44rem; }
.soft, figcaption, footer { color: var(--soft); font-size: 0.9rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { text-align: right; padding: 0.28rem 0.9rem 0.28rem 0;
  border-bottom: 1px solid var(--line); }
th:first-child, td:first-child { text-align: left; overflow-wrap: anywhere; }
thead th { color: var(--soft); font-weight: 500; }
.pictures { display: grid; gap: 1rem;
  grid-template-columns: repeat(auto-fill, minmax(min(19rem, 100%), 1fr)); }
figure { margin: 0; min-width: 0; background: var(--card); border-radius: 8px;
  padding: 0.6rem; }
figure.wide { grid-column: 1 / -1; }
figure img { width: 100%; height: auto; border-radius: 4px; background: #fff;
  display: block; }
figcaption { margin-top: 0.4rem; }
@media print { body { max-width: none; } h2 { break-after: avoid; }
  figure { break-inside: avoid; } }
"""


@dataclasses.dataclass(frozen=True)
class Picture:
  """A picture of the report.

  Attributes:
    uri: a data URI.
    caption: what it shows, also its text alternative.
    wide: whether it takes a whole line.
  """

  uri: str
  caption: str
  wide: bool = False


@dataclasses.dataclass(frozen=True)
class Section:
  """A part of the report: a heading, a paragraph, a table, pictures."""

  title: str
  text: str = ''
  header: Sequence[str] = ()
  rows: Sequence[Sequence[str]] = ()
  pictures: Sequence[Picture] = ()


def render(title: str, subtitle: str, sections: Sequence[Section]) -> str:
  """Returns the page."""
  body = '\n'.join(_section(section) for section in sections)
  return (
    '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
    '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
    # Else a browser asks for /favicon.ico.
    '<link rel="icon" href="data:,">\n'
    f'<title>{html.escape(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n'
    f'<h1>{html.escape(title)}</h1>\n<p class="soft">{html.escape(subtitle)}</p>\n'
    f'{body}\n<footer><p>Made by luna16_patches. Not a medical device: for research '
    'only.</p></footer>\n</body>\n</html>\n'
  )


def figures_section(metrics: Mapping[str, Any], note: str) -> Section:
  """The run's figures beside the article's."""
  names = {
    'accuracy': 'accuracy',
    'precision': 'precision',
    'recall': 'recall (sensitivity)',
    'specificity': 'specificity',
    'f1': 'F1',
    'roc_auc': 'ROC AUC',
    'pr_auc': 'PR AUC',
    'brier': 'Brier score',
    'ece': 'calibration error (ECE)',
  }
  intervals = metrics.get('intervals', {})
  rows = [
    (
      label,
      number(metrics.get(name)),
      interval(intervals.get(name)),
      number(ARTICLE.get(name), 3),
    )
    for name, label in names.items()
  ]
  return Section(
    'Figures', note, ('', 'this model', '95 % interval', 'the article'), rows
  )


def number(value: float | None, digits: int = 4) -> str:
  """Formats a figure; a dash for none."""
  return '–' if value is None else f'{value:.{digits}f}'


def interval(bounds: Sequence[float | None] | None) -> str:
  """Formats an interval; nothing for none."""
  if not bounds or bounds[0] is None:
    return ''
  return f'{bounds[0]:.3f} … {bounds[1]:.3f}'


def _section(section: Section) -> str:
  parts = [f'<section>\n<h2>{html.escape(section.title)}</h2>']
  if section.text:
    parts.append(f'<p>{html.escape(section.text)}</p>')
  if section.rows:
    parts.append(_table(section.header, section.rows))
  if section.pictures:
    inside = '\n'.join(_picture(p) for p in section.pictures)
    parts.append(f'<div class="pictures">\n{inside}\n</div>')
  return '\n'.join([*parts, '</section>'])


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
  head = ''
  if header:
    cells = ''.join(f'<th scope="col">{html.escape(h)}</th>' for h in header)
    head = f'<thead><tr>{cells}</tr></thead>'
  body = '\n'.join(
    '<tr>' + ''.join(f'<td>{html.escape(str(c))}</td>' for c in row) + '</tr>'
    for row in rows
  )
  return f'<div class="scroll"><table>{head}<tbody>\n{body}\n</tbody></table></div>'


def _picture(picture: Picture) -> str:
  wide = ' class="wide"' if picture.wide else ''
  caption = html.escape(picture.caption)
  return (
    f'<figure{wide}><img src="{picture.uri}" alt="{caption}">'
    f'<figcaption>{caption}</figcaption></figure>'
  )
