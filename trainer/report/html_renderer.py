"""Renders a report as one HTML file that contains its pictures and style.

The page is readable on a screen, on a phone and in print, in light and in dark mode.
"""

from __future__ import annotations

from collections.abc import Sequence
import dataclasses
import html

from trainer.pictures import colors


@dataclasses.dataclass(frozen=True)
class Link:
  """A link in a table.

  Attributes:
    text: that is shown.
    href: a path relative to the page.
  """

  text: str
  href: str


# A cell of a table: text, text and a small line below it, or a link.
Cell = str | tuple[str, str] | Link


def _variables(palette: colors.Palette) -> str:
  """Returns the CSS variables of a palette."""
  return (
    f'--text: {palette.text}; --soft: {palette.muted_text}; --page: {palette.page}; '
    f'--card: {palette.card}; --line: {palette.line}; --accent: {palette.model}; '
    f'--shade: {palette.shade};'
  )


_STYLE = (
  f':root {{ color-scheme: light dark; {_variables(colors.LIGHT)} }}\n'
  '@media (prefers-color-scheme: dark) '
  f'{{ :root {{ {_variables(colors.DARK)} }} }}\n'
  + """* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; }
body { margin: 0 auto; max-width: 62rem; padding: 0.5rem 1rem 3rem; color: var(--text);
  background: var(--page); font: 1rem/1.55 system-ui, -apple-system, "Segoe UI", Roboto,
  "Helvetica Neue", Arial, sans-serif; overflow-wrap: break-word; }
h1 { font-size: 1.7rem; line-height: 1.2; margin: 1.4rem 0 0.3rem; }
h2 { font-size: 1.2rem; margin: 2.4rem 0 0.6rem; }
h2::before { content: ""; display: inline-block; width: 0.3rem; height: 1em;
  margin-right: 0.55rem; border-radius: 2px; background: var(--accent);
  vertical-align: -0.12em; }
p { max-width: 44rem; margin: 0.4rem 0 0.9rem; }
a { color: var(--accent); }
small, .soft, figcaption, footer { color: var(--soft); }
section > p, .soft, footer { font-size: 0.93rem; }
.notice { background: var(--shade); border-left: 3px solid var(--accent);
  padding: 0.6rem 0.9rem; border-radius: 0 8px 8px 0; max-width: none; }
.headlines { display: grid; gap: 0.7rem; margin: 1.2rem 0 0; padding: 0;
  grid-template-columns: repeat(auto-fit, minmax(9.2rem, 1fr)); }
.headlines div { background: var(--card); border: 1px solid var(--line);
  border-radius: 10px; padding: 0.75rem 0.9rem; }
.headlines dt { color: var(--soft); font-size: 0.85rem; }
.headlines dd { margin: 0; font-variant-numeric: tabular-nums; }
.headlines dd.value { font-size: 1.75rem; font-weight: 600; line-height: 1.25; }
.headlines dd.small { color: var(--soft); font-size: 0.8rem; }
.scroll { overflow-x: auto; background: var(--card); border: 1px solid var(--line);
  border-radius: 10px; padding: 0.2rem 0.9rem; }
table { border-collapse: collapse; width: 100%; font-size: 0.93rem;
  font-variant-numeric: tabular-nums; }
th, td { text-align: right; vertical-align: top; padding: 0.38rem 0 0.38rem 1rem;
  border-bottom: 1px solid var(--line); }
th:first-child, td:first-child { text-align: left; padding-left: 0; white-space: nowrap; }
tbody tr:last-child td { border-bottom: 0; }
thead th { color: var(--soft); font-weight: 500; vertical-align: bottom; }
tbody tr.summary td { font-weight: 600; border-top: 2px solid var(--line); }
td small { font-weight: 400; display: block; font-size: 0.78rem; white-space: nowrap; }
table.names th, table.names td { text-align: left; overflow-wrap: anywhere; }
table.names td:first-child { color: var(--soft); min-width: 8rem; white-space: normal; }
.pictures { display: grid; gap: 0.9rem;
  grid-template-columns: repeat(auto-fill, minmax(min(22rem, 100%), 1fr)); }
.pictures + .pictures, .scroll + .pictures { margin-top: 0.9rem; }
figure { margin: 0; min-width: 0; background: var(--card); border-radius: 10px;
  border: 1px solid var(--line); padding: 0.7rem; }
figure.wide { grid-column: 1 / -1; }
figure img { width: 100%; height: auto; border-radius: 4px; display: block; }
figure.wide img { width: auto; max-width: 100%; margin: 0 auto; }
figcaption { margin-top: 0.5rem; font-size: 0.88rem; }
h3 { font-size: 1rem; margin: 1.3rem 0 0.5rem; }
.tiles { display: grid; gap: 0.6rem;
  grid-template-columns: repeat(auto-fill, minmax(8.6rem, 1fr)); }
.tiles figure { padding: 0; overflow: hidden; }
.tiles img { border-radius: 0; image-rendering: pixelated; }
.tiles figcaption { margin: 0; padding: 0.45rem 0.6rem 0.55rem; font-size: 0.8rem;
  line-height: 1.4; font-variant-numeric: tabular-nums; }
.tiles b { color: var(--text); font-size: 0.95rem; }
.tiles code { display: block; font-size: 0.62rem; line-height: 1.25;
  overflow-wrap: anywhere; margin-top: 0.2rem; }
footer { margin-top: 3rem; border-top: 1px solid var(--line); padding-top: 0.6rem; }
@media print {
  :root { --page: #ffffff; --card: #ffffff; }
  body { max-width: none; padding: 0; font-size: 10pt; }
  .scroll { overflow: visible; }
  table { font-size: 8.5pt; } th, td { padding-left: 0.5rem; }
  h2, h3 { break-after: avoid; }
  figure, tr, .headlines div { break-inside: avoid; }
}
"""
)


@dataclasses.dataclass(frozen=True)
class Picture:
  """A picture of the report.

  Attributes:
    uri: a data URI.
    caption: what it shows, also its text alternative.
    wide: whether it takes a whole line.
    dark_uri: the same for dark pages; '' if one will do for both.
  """

  uri: str
  caption: str
  wide: bool = False
  dark_uri: str = ''


@dataclasses.dataclass(frozen=True)
class Tile:
  """A patch and what is known of it.

  Attributes:
    uri: data URI of the patch.
    title: in bold, e.g. its probability.
    lines: below.
    seriesuid: seriesuid of its scan; '' if unknown.
  """

  uri: str
  title: str
  lines: Sequence[str] = ()
  seriesuid: str = ''


@dataclasses.dataclass(frozen=True)
class Headline:
  """A metric that is shown large."""

  label: str
  value: str
  small: str = ''


@dataclasses.dataclass(frozen=True)
class Section:
  """A part of the report: heading, paragraph, table, pictures and patches.

  Attributes:
    title: the heading.
    text: a paragraph.
    header: column headings of the table.
    rows: rows of the table, a cell for each column.
    summary_rows: how many rows at the end of the table summarise the others.
    names: whether the table lists names and values rather than numbers.
    pictures: after the table.
    tiles: groups of patches, each with a heading of its own.
  """

  title: str
  text: str = ''
  header: Sequence[str] = ()
  rows: Sequence[Sequence[Cell]] = ()
  summary_rows: int = 0
  names: bool = False
  pictures: Sequence[Picture] = ()
  tiles: Sequence[tuple[str, Sequence[Tile]]] = ()


def render(
  title: str,
  subtitle: str,
  sections: Sequence[Section],
  *,
  headlines: Sequence[Headline] = (),
  notices: Sequence[str] = (),
) -> str:
  """Returns the page.

  Args:
    title: title of the page.
    subtitle: a line below it.
    sections: in order.
    headlines: metrics shown large, before the sections.
    notices: what the reader must know to judge the metrics.
  """
  body = '\n'.join(
    [
      *(f'<p class="notice">{html.escape(notice)}</p>' for notice in notices),
      _headlines(headlines),
      *(_section(section) for section in sections),
    ]
  )
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


def _headlines(headlines: Sequence[Headline]) -> str:
  if not headlines:
    return ''
  cards = ''.join(
    f'<div><dt>{html.escape(h.label)}</dt><dd class="value">{html.escape(h.value)}</dd>'
    f'<dd class="small">{html.escape(h.small)}</dd></div>'
    for h in headlines
  )
  return f'<dl class="headlines">{cards}</dl>'


def _section(section: Section) -> str:
  parts = [f'<section>\n<h2>{html.escape(section.title)}</h2>']
  if section.text:
    parts.append(f'<p>{html.escape(section.text)}</p>')
  if section.rows:
    parts.append(_table(section))
  if section.pictures:
    inside = '\n'.join(_picture(p) for p in section.pictures)
    parts.append(f'<div class="pictures">\n{inside}\n</div>')
  for heading, tiles in section.tiles:
    inside = '\n'.join(_tile(tile) for tile in tiles)
    parts.append(
      f'<h3>{html.escape(heading)}</h3>\n<div class="tiles">\n{inside}</div>'
    )
  return '\n'.join([*parts, '</section>'])


def _table(section: Section) -> str:
  head = ''
  if section.header:
    cells = ''.join(f'<th scope="col">{html.escape(h)}</th>' for h in section.header)
    head = f'<thead><tr>{cells}</tr></thead>'
  first_summary = len(section.rows) - section.summary_rows
  body = '\n'.join(
    ('<tr class="summary">' if number >= first_summary else '<tr>')
    + ''.join(_cell(cell) for cell in row)
    + '</tr>'
    for number, row in enumerate(section.rows)
  )
  kind = ' class="names"' if section.names else ''
  return (
    f'<div class="scroll"><table{kind}>{head}<tbody>\n{body}\n</tbody></table></div>'
  )


def _cell(cell: Cell) -> str:
  if isinstance(cell, str):
    return f'<td>{html.escape(cell)}</td>'
  if isinstance(cell, Link):
    return f'<td><a href="{html.escape(cell.href)}">{html.escape(cell.text)}</a></td>'
  text, small = cell
  below = f'<small>{html.escape(small)}</small>' if small else ''
  return f'<td>{html.escape(text)}{below}</td>'


def _picture(picture: Picture) -> str:
  wide = ' class="wide"' if picture.wide else ''
  caption = html.escape(picture.caption)
  image = f'<img src="{picture.uri}" alt="{caption}">'
  if picture.dark_uri:
    image = (
      '<picture><source media="screen and (prefers-color-scheme: dark)" '
      f'srcset="{picture.dark_uri}">{image}</picture>'
    )
  return f'<figure{wide}>{image}<figcaption>{caption}</figcaption></figure>'


def _tile(tile: Tile) -> str:
  lines = ''.join(f'<br>{html.escape(line)}' for line in tile.lines)
  uid = f'<code>{html.escape(tile.seriesuid)}</code>' if tile.seriesuid else ''
  title = html.escape(tile.title)
  return (
    f'<figure><img src="{tile.uri}" alt="patch, {title}"><figcaption><b>{title}</b>'
    f'{lines}{uid}</figcaption></figure>'
  )
