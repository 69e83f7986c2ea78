import html.parser

from trainer.report import html_renderer


def rendered(section, **options):
  return html_renderer.render('title', 'subtitle', [section], **options)


class Texts(html.parser.HTMLParser):
  """Collects the text in each tag that is open."""

  def __init__(self, page):
    super().__init__()
    self.open, self.found = [], []
    self.feed(page)

  def handle_starttag(self, tag, attrs):
    self.open.append(tag)

  def handle_endtag(self, tag):
    while self.open.pop() != tag:  # tags such as img have no end
      pass

  def handle_data(self, data):
    if data.strip():
      self.found.append((self.open[-1], data.strip()))


def test_text_is_escaped():
  section = html_renderer.Section(
    'a < b',
    'x & y',
    ('<th>',),
    [('<td>', ('"q"', '<small>'))],
    tiles=[('<h>', [html_renderer.Tile('data:,', '<t>', ['<l>'], '<u>')])],
    pictures=[html_renderer.Picture('data:,', '"quoted" <caption>')],
  )
  page = html_renderer.render(
    '<title>',
    '<sub>',
    [section],
    headlines=[html_renderer.Headline('<label>', '<value>', '<interval>')],
    notices=['<notice>'],
  )
  found = [text for _, text in Texts(page).found]
  for text in [
    'a < b',
    'x & y',
    '<th>',
    '<td>',
    '"q"',
    '<small>',
    '<h>',
    '<t>',
    '<l>',
    '<u>',
  ] + ['"quoted" <caption>', '<sub>', '<label>', '<value>', '<interval>', '<notice>']:
    assert text in found
  assert 'alt="&quot;quoted&quot; &lt;caption&gt;"' in page


def test_table_has_a_row_for_each_row():
  section = html_renderer.Section(
    's', header=('name', 'value'), rows=[('a', ('1', '0 … 2')), ('b', ('2', ''))]
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
  ]


def test_a_picture_with_a_dark_version_offers_both():
  picture = html_renderer.Picture('data:light', 'c', dark_uri='data:dark')
  page = rendered(html_renderer.Section('s', pictures=[picture]))
  assert '(prefers-color-scheme: dark)" srcset="data:dark"' in page
  assert '<img src="data:light"' in page
  # One picture for both without it.
  picture = html_renderer.Picture('data:light', 'c')
  page = rendered(html_renderer.Section('s', pictures=[picture]))
  assert '<picture>' not in page


def test_empty_parts_are_left_out():
  page = rendered(html_renderer.Section('alone'))
  body = page[page.index('<body>') :]
  for tag in ('<table', '<figure', '<dl', 'class="notice"'):
    assert tag not in body
  assert '<h2>alone</h2>' in body
