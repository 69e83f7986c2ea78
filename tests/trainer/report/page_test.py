import base64
import html
import html.parser
import io
import json
import re
import shutil
import subprocess

import numpy as np
from PIL import Image
import pytest

from trainer import train
from trainer import visualize
from trainer.evaluation import evaluation
from trainer.pictures import plots
from trainer.report import html_renderer
from trainer.scoring import inference

CHROMIUM = next(
  filter(None, map(shutil.which, ('chromium', 'chromium-browser', 'google-chrome'))),
  None,
)
PHONE_PX, DESK_PX = 400, 1100

# Put into a copy of the page: tells the page around it what a reader would meet.
PROBE = """<script>
const errors = [];
addEventListener('error', e => errors.push(String(e.message || e.target.outerHTML)), true);
for (const name of ['error', 'warn'])
  console[name] = (...parts) => errors.push(parts.join(' '));
addEventListener('load', () => setTimeout(() => {
  const style = getComputedStyle(document.body);
  const beyond = [...document.querySelectorAll('body *')].filter(e =>
    e.getBoundingClientRect().right > innerWidth + 1 && !e.closest('.scroll'));
  parent.postMessage({
    errors: errors,
    images: [...document.images].map(i => i.complete ? i.naturalWidth : 0),
    sources: [...document.images].map(i => i.currentSrc.length),
    fallbacks: [...document.images].map(i => i.src.length),
    width: innerWidth,
    scrollWidth: document.documentElement.scrollWidth,
    beyond: beyond.map(e => e.tagName + ' ' + e.textContent.slice(0, 40)),
    dark: matchMedia('(prefers-color-scheme: dark)').matches,
    color: style.color,
    background: style.backgroundColor,
  }, '*');
}, 100));
</script>"""

# A window is at least 500 pixels wide, a frame in it as narrow as it likes.
FRAME = """<!doctype html><html style="color-scheme: light dark"><body><pre id="found">
</pre><script>addEventListener('message', e =>
  document.getElementById('found').textContent = JSON.stringify(e.data));</script>
<iframe src="page.html" width="{width}" height="900" style="border: 0"></iframe></body>"""


@pytest.fixture(scope='module')
def look(tmp_path_factory):
  """A function (page, width, dark) -> what the probe found in headless Chromium."""
  if not CHROMIUM:
    pytest.skip('needs Chromium')

  def run(page, width=DESK_PX, dark=False):
    folder = tmp_path_factory.mktemp('page')
    probed = page.replace('<head>', f'<head>{PROBE}', 1)
    (folder / 'page.html').write_text(probed)
    (folder / 'frame.html').write_text(FRAME.format(width=width))
    command = [
      CHROMIUM,
      '--headless',
      '--no-sandbox',
      '--disable-gpu',
      '--disable-quic',
      '--no-first-run',
      '--disable-background-networking',
      '--disable-component-update',
      '--disable-sync',
      f'--user-data-dir={folder / "profile"}',
      f'--blink-settings=preferredColorScheme={0 if dark else 1}',
      f'--window-size={max(width, 500) + 50},1000',
      '--virtual-time-budget=20000',
      '--dump-dom',
      (folder / 'frame.html').as_uri(),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    found = re.search(r'<pre id="found">(\{.*?\})</pre>', done.stdout, re.DOTALL)
    assert found, done.stdout[-2000:] + done.stderr[-2000:]
    return json.loads(html.unescape(found[1]))

  return run


@pytest.fixture(scope='module')
def evaluated(data_dir, tmp_path_factory):
  """An evaluation of a short run, with its report written."""
  folder = tmp_path_factory.mktemp('run')
  arguments = [
    f'--data_dir={data_dir}',
    '--dataset=luna16_patches/axial_50px_all',
    f'--workdir={folder}',
    '--model=article_cnn',
    '--epochs=2',
    '--steps_per_epoch=2',
    '--batch_size=8',
  ]
  assert train.run(['luna16-train', *arguments]) == 0
  result = evaluation.evaluate(
    [str(folder)], split='train+test', rule='0.5', bootstrap=30
  )
  # Some of each kind, whatever the short training made of it.
  result.decision.called[:] = np.arange(len(result.scores)) % 3 == 0
  evaluation.write(result, folder)
  return result


@pytest.fixture(scope='module')
def page(evaluated):
  return (evaluated.runs[0].workdir.path / 'report.html').read_text()


@pytest.mark.parametrize('dark', [False, True], ids=['light', 'dark'])
@pytest.mark.parametrize('width', [PHONE_PX, DESK_PX])
def test_page_in_a_browser(look, page, width, dark):
  found = look(page, width, dark)
  assert found['errors'] == []
  assert found['width'] == width
  assert found['scrollWidth'] <= width
  assert found['beyond'] == []
  assert len(found['images']) > 20
  assert min(found['images']) > 0
  assert found['dark'] is dark
  assert contrast(found['color'], found['background']) > 7
  assert (luminance(found['background']) < 0.2) is dark
  # On a dark page the curves are drawn light on dark.
  swapped = [a != b for a, b in zip(found['sources'], found['fallbacks'])]
  assert any(swapped) is dark


def luminance(color):
  """Relative luminance of `rgb(r, g, b)`, as WCAG 2 defines it."""
  channels = np.array([int(c) for c in re.findall(r'\d+', color)[:3]]) / 255
  linear = np.where(
    channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4
  )
  return float(linear @ [0.2126, 0.7152, 0.0722])


def contrast(one, other):
  dark, light = sorted((luminance(one), luminance(other)))
  return (light + 0.05) / (dark + 0.05)


def test_the_look_finds_what_is_wrong(look):
  wrong = (
    '<!doctype html><html><head></head><body><div style="width: 700px">wide</div>'
    '<img src="data:image/png;base64,AAAA"><img src="missing.png">'
    '<script>console.error("told"); undefined_function();</script></body></html>'
  )
  found = look(wrong, PHONE_PX)
  assert found['scrollWidth'] > PHONE_PX
  assert found['beyond'] == ['DIV wide']
  assert found['images'] == [0, 0]
  text = ' '.join(found['errors'])
  assert 'told' in text
  assert 'undefined_function' in text
  assert 'missing.png' in text


class Reader(html.parser.HTMLParser):
  """Collects tags and headings, and checks that tags are closed."""

  VOID = ('meta', 'link', 'img', 'br', 'source')

  def __init__(self, text):
    super().__init__()
    self.open, self.tags, self.headings = [], [], []
    self.feed(text)
    assert self.open == []

  def handle_starttag(self, tag, attrs):
    self.tags.append((tag, dict(attrs)))
    if tag not in self.VOID:
      self.open.append(tag)

  def handle_endtag(self, tag):
    assert self.open.pop() == tag

  def handle_data(self, data):
    if self.open and self.open[-1] == 'h2':
      self.headings.append(data)


def test_page_is_one_file_without_scripts(page):
  tags = Reader(page).tags
  assert not [tag for tag, _ in tags if tag in ('script', 'iframe', 'object')]
  for tag, attributes in tags:
    for name in ('src', 'href', 'srcset'):
      if name in attributes:
        assert attributes[name].startswith('data:'), (tag, attributes[name][:60])
    if tag == 'img':
      assert attributes['alt']
  assert '@import' not in page
  assert 'url(' not in page


def test_page_tells_everything(page, evaluated):
  headings = Reader(page).headings
  assert headings == [
    'Figures',
    'Curves',
    'Operating points',
    'By diameter',
    'By slice thickness',
    'By subset',
    'Most confident mistakes, and hits',
    'What the network sees',
    'Training',
    'Configuration',
  ]
  metrics = evaluated.metrics
  assert f'{metrics["pr_auc"]:.4f}' in page
  assert html_renderer.interval(metrics['intervals']['pr_auc']) in page
  assert '0.893' in page  # the article's precision
  assert f'{metrics["records_trained_on"]} of the {metrics["records"]}' in page
  assert 'article_cnn' in page


def test_most_confident_mistakes_are_shown_with_scan_and_position(page, evaluated):
  scores, called = evaluated.scores, evaluated.decision.called
  missed = np.flatnonzero((scores.labels == 1) & ~called)
  worst = missed[np.argmin(scores.probabilities[missed])]
  image = inference.images_at(evaluated.source, [int(worst)])[0]
  after = page.index(plots.patch_uri(image))
  caption = page[after : page.index('</figure>', after)]
  features = scores.features
  assert f'{scores.probabilities[worst]:.3f}' in caption
  assert features['seriesuid'][worst] in caption
  x, y, z = features['center_xyz_mm'][worst]
  assert f'at {x:.1f}, {y:.1f}, {z:.1f} mm' in caption
  assert '8.5 mm across' in caption
  assert page.index('False negatives') < after < page.index('False positives')


def test_page_without_records_of_a_kind(evaluated, tmp_path, monkeypatch):
  monkeypatch.setattr(visualize, 'figures', lambda model, image: {})
  labels = evaluated.scores.labels
  called = evaluated.decision.called
  before = called.copy()
  called[:] = labels == 1
  try:
    text = evaluation.write(evaluated, tmp_path).read_text()
  finally:
    called[:] = before
  Reader(text)
  assert 'There is no mistake.' in text
  assert 'False negatives' not in text
  assert 'True positives' in text


def test_text_is_escaped():
  section = html_renderer.Section(
    'a < b',
    'x & y',
    ('<th>',),
    [('<td>', ('"q"', '<small>'))],
    tiles=[('<h>', [html_renderer.Tile('data:,', '<t>', ['<l>'], '<u>')])],
    pictures=[html_renderer.Picture('data:,', '"quoted" <caption>')],
  )
  text = html_renderer.render('<title>', '<sub>', [section], notices=['<notice>'])
  Reader(text)
  for part in ('<td>"', '<th><', '<l>', '<u>', '<notice>', '<sub>', '<caption>'):
    assert part not in text
  assert 'alt="&quot;quoted&quot; &lt;caption&gt;"' in text


def test_undefined_figures_are_dashes():
  assert html_renderer.number(None) == html_renderer.DASH
  assert html_renderer.number(0.12345, 3) == '0.123'
  assert html_renderer.interval([None, None]) == html_renderer.interval(None) == ''
  assert html_renderer.interval([0.1, 0.25]) == '0.100 … 0.250'


def test_patch_is_shown_in_its_window():
  hu = np.array([[-3000, -1000], [-300, 5000]], np.int16)[..., np.newaxis]
  uri = plots.patch_uri(hu)
  png = base64.b64decode(uri.removeprefix('data:image/png;base64,'))
  np.testing.assert_array_equal(Image.open(io.BytesIO(png)), [[0, 0], [128, 255]])


@pytest.mark.parametrize('shape', [(5, 6, 1), (5, 6, 3), (7, 5, 6, 1)])
def test_middle_slice(shape):
  image = np.arange(np.prod(shape)).reshape(shape)
  middle = image[3, :, :, 0] if len(shape) == 4 else image[:, :, shape[2] // 2]
  np.testing.assert_array_equal(plots.middle_slice(image), middle)


def test_pictures_differ_between_light_and_dark(tmp_path):
  counts = {
    'true_positives': 3,
    'false_positives': 1,
    'false_negatives': 2,
    'true_negatives': 9,
  }
  light, dark = plots.save_themed(
    lambda: plots.confusion_matrix(counts), tmp_path / 'p.png'
  )
  assert light != dark
  assert light == plots_uri(tmp_path / 'p.png')


def plots_uri(path):
  return 'data:image/png;base64,' + base64.b64encode(path.read_bytes()).decode()
