"""The report as a reader meets it: in a browser, and as text."""

import dataclasses
import html
import html.parser
import json
import math
import re
import shutil
import subprocess

import numpy as np
import pytest

from model.metrics.resampling import Resampling
from trainer.data import single_records
from trainer.evaluation import steps
from trainer.evaluation import trained_run
from trainer.pictures import plots
from trainer.report import calibration_section
from trainer.report import curve_section
from trainer.report import formatting
from trainer.report import page as page_lib
from trainer.scoring.calibration_result import CalibrationResult
from trainer.scoring.calibration_result import FittedMethod

CHROMIUM = next(
  filter(None, map(shutil.which, ('chromium', 'chromium-browser', 'google-chrome'))),
  None,
)
PHONE_PX, DESKTOP_PX = 400, 1100

# Put into a copy of the page: tells the page around it what a browser shows.
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

# A window is at least 500 pixels wide; a frame in it can be narrower.
FRAME = """<!doctype html><html style="color-scheme: light dark"><body><pre id="found">
</pre><script>addEventListener('message', e =>
  document.getElementById('found').textContent = JSON.stringify(e.data));</script>
<iframe src="page.html" width="{width}" height="900" style="border: 0"></iframe></body>"""


@pytest.fixture(scope='module')
def open_in_browser(tmp_path_factory):
  """Returns a function: (page, width, dark) -> what the probe found in Chromium."""
  if not CHROMIUM:
    pytest.skip('needs Chromium')

  def run(page, width=DESKTOP_PX, dark=False):
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
def evaluated(other_trained, opened_dataset):
  """An evaluation with predictions of all four outcomes."""
  runs = trained_run.open_runs([str(other_trained)])
  scored = steps.score(runs, opened_dataset, 'train+test', rule='0.5')
  return with_predictions(scored, np.arange(len(scored.records)) % 3 == 0)


def with_predictions(scored, predicted):
  decision = dataclasses.replace(steps.decide(scored), predicted=predicted)
  result = steps.compute_metrics(scored, decision, Resampling(resamples=30))
  return steps.Evaluation(scored, decision, result)


@pytest.fixture(scope='module')
def plots_folder(tmp_path_factory):
  return tmp_path_factory.mktemp('report') / 'plots'


@pytest.fixture(scope='module')
def page(evaluated, plots_folder):
  return page_lib.build_page(evaluated, plots_folder)


@pytest.mark.parametrize('dark', [False, True], ids=['light', 'dark'])
@pytest.mark.parametrize('width', [PHONE_PX, DESKTOP_PX])
def test_page_in_a_browser(open_in_browser, page, width, dark):
  found = open_in_browser(page, width, dark)
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


def test_the_browser_check_finds_what_is_wrong(open_in_browser):
  wrong = (
    '<!doctype html><html><head></head><body><div style="width: 700px">wide</div>'
    '<img src="data:image/png;base64,AAAA"><img src="missing.png">'
    '<script>console.error("told"); undefined_function();</script></body></html>'
  )
  found = open_in_browser(wrong, PHONE_PX)
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


HEADINGS = [
  'Metrics',
  'Confusion matrix and curves',
  'FROC',
  'Operating points',
  'By diameter',
  'By slice thickness',
  'By subset',
  'Most confident errors and correct predictions',
  'What the network computes',
  'Training',
  'Configuration',
]


def test_page_has_all_sections_and_metrics(page, evaluated):
  assert Reader(page).headings == HEADINGS
  result = evaluated.result
  split_metrics = result.split_metrics
  assert f'{split_metrics.classification.pr_auc:.4f}' in page
  assert formatting.interval(split_metrics.intervals['pr_auc']) in page
  assert 'the article' not in page
  assert '(rule 0.5, given)' in page
  total = split_metrics.all_candidates.classification.records
  assert f'{result.records_trained_on} of the {total}' in page
  assert 'article_cnn' in page
  assert f'split train+test: {split_metrics.classification.records} records' in page
  assert 'computed from 11 scans only' in page
  found = result.froc
  assert f'{found.curve.cpm:.3f}' in page
  assert formatting.interval_in_words(found.band.cpm.interval) in page
  assert 'nodules that a candidate reaches in the 11 scans' in page
  everything = split_metrics.all_candidates
  assert f'{split_metrics.num_excluded} records hit an excluded finding' in page
  assert 'with excluded' in page
  assert f'{everything.classification.pr_auc:.4f}' in page
  assert formatting.interval(everything.intervals['pr_auc']) in page


def test_every_plot_is_written_beside_the_page(page, plots_folder):
  names = {path.stem for path in plots_folder.iterdir()}
  assert names >= {
    'confusion_matrix',
    'roc',
    'precision_recall',
    'reliability',
    'froc',
    'by_diameter',
    'false_negatives',
    'false_positives',
    'true_positives',
    'true_negatives',
    'filters',
    'grad_cam',
    'training_loss',
    'training_pr_auc',
  }


@pytest.mark.parametrize('name', ['roc', 'precision_recall'])
def test_the_operating_point_is_marked_in_the_curves(
  name, evaluated, tmp_path, monkeypatch
):
  drawn = {}
  draw = getattr(plots, name)
  monkeypatch.setattr(
    plots, name, lambda *args: drawn.setdefault(name, draw(*args)) and draw(*args)
  )
  curve_section.curve_section(evaluated, tmp_path)
  (axes,) = drawn[name].axes
  mark = axes.lines[-1]
  assert mark.get_label() == 'operating point, threshold 0.5'
  records = evaluated.scored.records.without_excluded
  predicted = evaluated.decision.predicted[~evaluated.scored.records.excluded]
  recall = np.mean(predicted[records.label == 1])
  point = {
    'roc': (np.mean(predicted[records.label == 0]), recall),
    'precision_recall': (recall, np.mean(records.label[predicted])),
  }[name]
  np.testing.assert_allclose(np.ravel(mark.get_data()), point)


def test_most_confident_errors_are_shown_with_scan_and_position(page, evaluated):
  records, predicted = evaluated.scored.records, evaluated.decision.predicted
  missed = np.flatnonzero((records.label == 1) & ~predicted)
  worst = missed[np.argmin(records.probability[missed])]
  (image,) = single_records.read_images(evaluated.scored.source, [int(worst)])
  after = page.index(plots.patch_uri(image))
  caption = page[after : page.index('</figure>', after)]
  assert f'{records.probability[worst]:.3f}' in caption
  assert records.seriesuid[worst] in caption
  x, y, z = records.center_xyz_mm[worst]
  assert f'{x:.1f}, {y:.1f}, {z:.1f} mm' in caption
  assert 'diameter 8.5 mm' in caption
  assert page.index('False negatives') < after < page.index('False positives')


def test_an_evaluation_of_the_articles_patches_shows_its_metrics(
  evaluated, tmp_path, no_network_pictures
):
  result = dataclasses.replace(evaluated.result, dataset='luna16_patches/article/1.0.0')
  of_article = dataclasses.replace(evaluated, result=result)
  text = page_lib.build_page(of_article, tmp_path)
  assert 'the article' in text
  assert '0.893' in text  # its precision


def test_an_outcome_without_records_is_left_out(
  evaluated, tmp_path, no_network_pictures
):
  scored = evaluated.scored
  text = page_lib.build_page(
    with_predictions(scored, scored.records.label == 1), tmp_path
  )
  Reader(text)
  assert 'There are no errors.' in text
  assert 'False negatives' not in text
  assert 'True positives' in text
  assert not (tmp_path / 'false_negatives.png').exists()


def test_a_split_of_one_class_has_no_curves(
  evaluate_folders, other_trained, tmp_path, no_network_pictures
):
  evaluation = evaluate_folders(other_trained, split='test[:1]', rule='0.5')
  text = page_lib.build_page(evaluation, tmp_path)
  assert 'holds one class only' in text
  assert 'scan only' not in text  # there are no intervals
  result = steps.compute_metrics(
    evaluation.scored, evaluation.decision, Resampling(resamples=2)
  )
  with_intervals = dataclasses.replace(evaluation, result=result)
  text = page_lib.build_page(with_intervals, tmp_path)
  assert 'computed from 1 scan only' in text
  assert not {'Operating points', 'By subset'} & set(Reader(text).headings)
  assert (tmp_path / 'confusion_matrix.png').exists()
  assert not (tmp_path / 'roc.png').exists()


def test_an_ensemble_is_named_as_a_mean(
  evaluate_folders, trained, other_trained, tmp_path, no_network_pictures
):
  text = page_lib.build_page(
    evaluate_folders(trained, other_trained, rule='0.5'), tmp_path
  )
  assert 'nodule_net (mean of 2 runs)' in text
  assert str(other_trained) in text


def test_calibration_errors_of_all_methods(evaluated):
  result = CalibrationResult(
    'temperature',
    'validation',
    100,
    25,
    (
      FittedMethod('prior_shift', 1.0, -1.5, 0.0412),
      FittedMethod('temperature', 0.5, -0.75, math.nan),
    ),
  )
  (run,) = evaluated.scored.runs
  scored = dataclasses.replace(
    evaluated.scored, runs=(dataclasses.replace(run, calibration=result),)
  )
  evaluation = dataclasses.replace(evaluated, scored=scored)
  (section,) = calibration_section.calibration_sections(evaluation)
  assert section.rows == [
    ('prior_shift', '1.000', '-1.500', '0.0412'),
    ('temperature (used)', '2.000', '-0.750', '–'),
  ]
  of_old_run = dataclasses.replace(run, calibration=None)
  scored = dataclasses.replace(scored, runs=(of_old_run,))
  evaluation = dataclasses.replace(evaluated, scored=scored)
  assert calibration_section.calibration_sections(evaluation) == []
