import html.parser
import pathlib

import jinja2
import jinja2.meta
import pytest

from trainer.pictures import colors
from trainer.report import html_renderer
from trainer.report.content import Cell
from trainer.report.content import Headline
from trainer.report.content import Page
from trainer.report.content import Picture
from trainer.report.content import Section
from trainer.report.content import Tile
from trainer.report.content import TileGroup

TEMPLATES = {
  path.name: path.read_text(encoding='utf-8')
  for path in (pathlib.Path(html_renderer.__file__).parent / 'templates').iterdir()
}


def rendered(*sections, **options):
  return html_renderer.render(Page('title', 'subtitle', sections, **options))


class Texts(html.parser.HTMLParser):
  """Collects the text in each tag that is open, tags and attributes."""

  def __init__(self, page):
    super().__init__()
    self.open, self.found, self.tags, self.attributes = [], [], set(), {}
    self.feed(page)

  def handle_starttag(self, tag, attrs):
    self.open.append(tag)
    self.tags.add(tag)
    for name, value in attrs:
      self.attributes.setdefault((tag, name), []).append(value)

  def handle_endtag(self, tag):
    while self.open.pop() != tag:  # tags such as img have no end
      pass

  def handle_data(self, data):
    if data.strip():
      self.found.append((self.open[-1], data.strip()))


def hostile(name):
  """A text that would be a script, and would end an attribute."""
  return f"""{name}"'><script>{name}</script>&amp;<!--{{{{ name }}}}"""


def test_text_is_escaped():
  texts = {name: hostile(name) for name in (
    'title', 'subtitle', 'notice', 'label', 'value', 'interval', 'heading', 'text',
    'column', 'string', 'cell', 'small', 'link', 'caption', 'group', 'tile', 'line',
    'seriesuid',
  )}  # fmt: skip
  addresses = {name: hostile(name) for name in ('href', 'light', 'dark', 'patch')}
  section = Section(
    texts['heading'],
    texts['text'],
    [texts['column']],
    [
      [texts['string']],
      [Cell(texts['cell'], texts['small'])],
      [Cell(texts['link'], href=addresses['href'])],
    ],
    pictures=[
      Picture(addresses['light'], texts['caption'], dark_uri=addresses['dark'])
    ],
    tile_groups=[
      TileGroup(
        texts['group'],
        [Tile(addresses['patch'], texts['tile'], [texts['line']], texts['seriesuid'])],
      )
    ],
  )
  page = html_renderer.render(
    Page(
      texts['title'],
      texts['subtitle'],
      [section],
      [Headline(texts['label'], texts['value'], texts['interval'])],
      [texts['notice']],
    )
  )
  read = Texts(page)
  assert set(texts.values()) <= {text for _, text in read.found}
  assert 'script' not in read.tags
  assert read.attributes['a', 'href'] == [addresses['href']]
  assert read.attributes['source', 'srcset'] == [addresses['dark']]
  assert read.attributes['img', 'src'] == [addresses['light'], addresses['patch']]
  assert read.attributes['img', 'alt'] == [
    texts['caption'],
    f'patch, {texts["tile"]}',
  ]


def test_table_has_a_row_for_each_row():
  section = Section(
    's',
    header=('name', 'value'),
    rows=[('a', Cell('1', '0 … 2')), ('b', Cell('2')), ('c', '3')],
  )
  found = Texts(rendered(section)).found
  cells = [item for item in found if item[0] in ('th', 'td', 'small')]
  assert cells == [
    ('th', 'name'),
    ('th', 'value'),
    ('td', 'a'),
    ('td', '1'),
    ('small', '0 … 2'),
    ('td', 'b'),
    ('td', '2'),
    ('td', 'c'),
    ('td', '3'),
  ]


@pytest.mark.parametrize('summary_rows', [0, 1, 2])
def test_the_last_rows_are_the_summary(summary_rows):
  section = Section('s', rows=[['a'], ['b'], ['c']], summary_rows=summary_rows)
  page = rendered(section)
  assert page.count('<tr class="summary">') == summary_rows
  of_summary = page.partition('<tr class="summary">')[2]
  assert [name for name in 'abc' if f'<td>{name}</td>' in of_summary] == list(
    'abc'[3 - summary_rows :]
  )


def test_a_picture_with_a_dark_version_offers_both():
  picture = Picture('data:light', 'c', dark_uri='data:dark')
  page = rendered(Section('s', pictures=[picture]))
  assert '(prefers-color-scheme: dark)" srcset="data:dark"' in page
  assert '<img src="data:light"' in page
  # One picture for both without it.
  page = rendered(Section('s', pictures=[Picture('data:light', 'c')]))
  assert '<picture>' not in page


@pytest.mark.parametrize(
  ('text', 'expected'),
  [
    ('with --luna_dir or --test_dataset=a/b.', 'with {--luna_dir} or {--test_dataset=}a/b.'),
    ('--tta: <b> & --seed', '{--tta}: &lt;b&gt; &amp; {--seed}'),
    ('no -flag -- here, 1--2', 'no -flag -- here, 1--2'),
  ],
)  # fmt: skip
def test_no_line_breaks_inside_the_name_of_a_flag(text, expected):
  page = rendered(Section('s', text), notices=[text])
  for before, after in (('{', '<span class="flag">'), ('}', '</span>')):
    expected = expected.replace(before, after)
  assert f'<p>{expected}</p>' in page
  assert f'<p class="notice">{expected}</p>' in page
  assert '.flag { white-space: nowrap; }' in page


def test_empty_parts_are_left_out():
  # A header without rows is no table.
  page = rendered(Section('alone', header=('name', 'value')))
  body = page[page.index('<body>') :]
  for tag in ('<table', '<figure', '<dl', '<h3', '<div', 'class="notice"', '<p></p>'):
    assert tag not in body
  assert '<h2>alone</h2>' in body


def test_style_has_the_colors_of_both_palettes():
  style = rendered().partition('<style>')[2].partition('</style>')[0]
  light, dark = style.split('@media screen and (prefers-color-scheme: dark)', 1)
  for palette, text in ((colors.LIGHT, light), (colors.DARK, dark)):
    for color in (palette.text, palette.page, palette.card, palette.model):
      assert f': {color};' in text


def test_templates_need_what_the_renderer_gives():
  environment = html_renderer._TEMPLATES
  needed = {
    name: jinja2.meta.find_undeclared_variables(environment.parse(text))
    for name, text in TEMPLATES.items()
  }
  assert needed == {
    'page.html': {'page'},
    'section.html': set(),
    'style.css': {'light', 'dark'},
  }


def test_a_field_that_is_missing_is_an_error_not_an_empty_text():
  class WithoutTitle:
    subtitle = 'subtitle'
    sections = headlines = notices = ()

  with pytest.raises(jinja2.UndefinedError, match='title'):
    html_renderer.render(WithoutTitle())
