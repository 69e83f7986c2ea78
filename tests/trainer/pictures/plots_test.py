import base64
import io

import matplotlib
import numpy as np
from PIL import Image
import pytest
from sklearn import metrics as sklearn_metrics

from model.metrics import classification
from model.metrics.resampling import Interval
from trainer.pictures import colors
from trainer.pictures import figures
from trainer.pictures import plots
from trainer.pictures.curve_marks import RatesMark


@pytest.fixture(scope='module')
def scored():
  """Labels and probabilities with ties; nodules tend to be more probable."""
  rng = np.random.default_rng(0)
  labels = (rng.random(300) < 0.3).astype(int)
  return labels, np.round(np.clip(rng.random(300) * 0.7 + 0.3 * labels, 0, 1), 2)


MARKS = [
  RatesMark('threshold 0.5', specificity=0.9, recall=0.8, precision=0.7),
  RatesMark('article', 0.982, 0.712, 0.893, figures.ARTICLE_COLOR, 'o'),
]


def axes_of(figure):
  (axes,) = figure.axes
  return axes


def line_of(axes, label):
  (line,) = [line for line in axes.lines if line.get_label() == label]
  return line


def legend_of(axes):
  return [text.get_text() for text in axes.get_legend().get_texts()]


def test_confusion_matrix_shows_counts_and_shares():
  counts = classification.ConfusionMatrix(
    true_positives=3, false_positives=1, false_negatives=2, true_negatives=9
  )
  axes = axes_of(plots.confusion_matrix(counts))
  texts = {text.get_position(): text.get_text() for text in axes.texts}
  # Positions are (predicted class, true class).
  assert texts == {
    (0, 0): '9\n90.0%',
    (1, 0): '1\n10.0%',
    (0, 1): '2\n40.0%',
    (1, 1): '3\n60.0%',
  }
  assert axes.get_xlabel() == 'predicted class'
  assert axes.get_ylabel() == 'true class'
  for labels in (axes.get_xticklabels(), axes.get_yticklabels()):
    assert [label.get_text() for label in labels] == ['non-nodule', 'nodule']
  np.testing.assert_allclose(axes.images[0].get_array(), [[0.9, 0.1], [0.4, 0.6]])


@pytest.mark.parametrize('palette', [colors.LIGHT, colors.DARK], ids=['light', 'dark'])
def test_counts_contrast_with_their_cell(palette):
  counts = classification.ConfusionMatrix(0, 0, 5, 9)
  with figures.theme(palette):
    axes = axes_of(plots.confusion_matrix(counts))
  (image,) = axes.images
  for text in axes.texts:
    column, row = text.get_position()
    cell = np.mean(image.cmap(image.norm(image.get_array()[row, column]))[:3])
    ink = np.mean(matplotlib.colors.to_rgb(text.get_color()))
    assert abs(cell - ink) > 0.5


def test_confusion_matrix_of_one_class_has_no_shares_of_the_other():
  axes = axes_of(plots.confusion_matrix(classification.ConfusionMatrix(2, 0, 0, 0)))
  texts = {text.get_position(): text.get_text() for text in axes.texts}
  assert texts[1, 1] == '2\n100.0%'
  assert texts[0, 0] == '0\n0.0%'


def test_roc_is_that_of_scikit_learn(scored):
  axes = axes_of(plots.roc(*scored, MARKS))
  fpr, tpr, _ = sklearn_metrics.roc_curve(*scored)
  line = line_of(axes, 'this model')
  np.testing.assert_array_equal(line.get_data(), [fpr, tpr])
  points = [line_of(axes, mark.label).get_data() for mark in MARKS]
  np.testing.assert_allclose(points, [[[0.1], [0.8]], [[0.018], [0.712]]])
  assert axes.get_xlabel() == '1 - specificity'
  assert axes.get_ylabel() == 'recall (sensitivity)'
  assert legend_of(axes) == ['this model', 'threshold 0.5', 'article']


def test_precision_recall_curve_is_that_of_scikit_learn(scored):
  labels, probabilities = scored
  axes = axes_of(plots.precision_recall(labels, probabilities, MARKS))
  precision, recall, _ = sklearn_metrics.precision_recall_curve(labels, probabilities)
  line = line_of(axes, 'this model')
  np.testing.assert_array_equal(line.get_data(), [recall, precision])
  points = [line_of(axes, mark.label).get_data() for mark in MARKS]
  np.testing.assert_allclose(points, [[[0.8], [0.7]], [[0.712], [0.893]]])
  (guessing,) = [item for item in axes.lines if item.get_linestyle() == ':']
  assert set(guessing.get_ydata()) == {labels.mean()}
  assert (axes.get_xlabel(), axes.get_ylabel()) == ('recall', 'precision')


def test_area_under_the_drawn_steps_is_the_average_precision(scored):
  """The step between two recalls has the precision that is reached at the higher one."""
  axes = axes_of(plots.precision_recall(*scored, MARKS))
  line = line_of(axes, 'this model')
  assert line.get_drawstyle() == 'steps-post'
  recall, precision = line.get_data()
  # From the highest recall on, each precision holds until the next point.
  area = np.sum(-np.diff(recall) * precision[:-1])
  assert area == pytest.approx(sklearn_metrics.average_precision_score(*scored))


def test_reliability_dots_are_the_bins():
  # Two bins: around 0.1 with a fourth of nodules, around 0.9 with all.
  labels = np.array([0, 0, 0, 1, 1, 1])
  probabilities = np.array([0.08, 0.10, 0.10, 0.12, 0.88, 0.92])
  axes = axes_of(plots.reliability(labels, probabilities))
  (dots,) = axes.collections
  np.testing.assert_allclose(dots.get_offsets(), [[0.1, 0.25], [0.9, 1.0]])
  larger, smaller = dots.get_sizes()
  assert larger > smaller
  # The area without the part that all dots have is in proportion to the records.
  assert (larger - 8) / (smaller - 8) == pytest.approx(4 / 2)
  assert axes.get_xlabel() == 'mean predicted probability'
  assert axes.get_ylabel() == 'fraction of nodules'


HISTORY = [
  {'epoch': 0, 'loss': 0.7, 'val_loss': 0.8},
  {'epoch': 1, 'loss': 0.5, 'val_loss': 0.6},
  {'epoch': 2, 'loss': 0.4, 'val_loss': 0.5},
]


def test_training_curve_counts_epochs_from_one():
  axes = axes_of(plots.training_curve(HISTORY, 'loss', 'loss'))
  assert line_of(axes, 'training').get_xydata().tolist() == [
    [1, 0.7],
    [2, 0.5],
    [3, 0.4],
  ]
  assert line_of(axes, 'validation').get_ydata().tolist() == [0.8, 0.6, 0.5]
  assert (axes.get_xlabel(), axes.get_ylabel()) == ('epoch', 'loss')
  # Epochs are whole numbers.
  assert all(tick == round(tick) for tick in axes.get_xticks())


def test_training_curve_without_validation_and_with_one_epoch():
  history = [{'epoch': 0, 'loss': 0.7}]
  axes = axes_of(plots.training_curve(history, 'loss', 'loss'))
  (line,) = axes.lines
  assert legend_of(axes) == ['training']
  assert line.get_marker() == 'o'  # a line of one point is invisible


def test_shares_have_bars_dots_and_intervals():
  axes = axes_of(
    plots.shares(
      ['small', 'middle', 'large'],
      [0.2, 0.5, 1.0],
      [Interval(0.1, 0.4), None, Interval(np.nan, np.nan)],
      'share of nodules found',
    )
  )
  assert [bar.get_width() for bar in axes.patches] == [0.2, 0.5, 1.0]
  dots, interval = axes.lines
  assert dots.get_xydata().tolist() == [[0.2, 0], [0.5, 1], [1.0, 2]]
  assert interval.get_xydata().tolist() == [[0.1, 0], [0.4, 0]]
  labels = [label.get_text() for label in axes.get_yticklabels()]
  assert labels == ['small', 'middle', 'large']
  bottom, top = axes.get_ylim()
  assert bottom > top  # the first bin is on top
  assert axes.get_xlabel() == 'share of nodules found'


@pytest.mark.parametrize('shape', [(5, 6, 1), (5, 6, 3), (7, 5, 6, 1)])
def test_middle_slice(shape):
  image = np.arange(np.prod(shape)).reshape(shape)
  middle = image[3, :, :, 0] if len(shape) == 4 else image[:, :, shape[2] // 2]
  np.testing.assert_array_equal(plots.middle_slice(image), middle)


def test_patch_is_shown_in_its_window():
  hu = np.array([[-3000, -1000], [-300, 5000]], np.int16)[..., np.newaxis]
  png = base64.b64decode(plots.patch_uri(hu).removeprefix('data:image/png;base64,'))
  np.testing.assert_array_equal(Image.open(io.BytesIO(png)), [[0, 0], [128, 255]])


def test_mosaic_shows_each_patch_with_its_caption():
  images = np.arange(3 * 4 * 4).reshape(3, 4, 4, 1)
  figure = plots.mosaic(images, ['a', 'b', 'c'], columns=2)
  assert len(figure.axes) == 4
  for axes, image, caption in zip(figure.axes, images, 'abc'):
    np.testing.assert_array_equal(axes.images[0].get_array(), image[..., 0])
    assert axes.images[0].get_clim() == (-1000, 400)
    assert axes.get_xlabel() == caption
  assert not figure.axes[3].images


def test_augmented_patches_are_below_the_stored_ones():
  stored = np.arange(3 * 2 * 2).reshape(3, 2, 2, 1)
  figure = plots.before_and_after(stored, -stored, np.array([0, 1, 0]), columns=2)
  captions = [axes.get_xlabel() for axes in figure.axes if axes.images]
  assert captions == [
    'non-nodule, as stored',
    'nodule, as stored',
    'non-nodule, augmented',
    'nodule, augmented',
    'non-nodule, as stored',
    'non-nodule, augmented',
  ]
  shown = [axes.images[0].get_array()[0, 1] for axes in figure.axes if axes.images]
  assert shown == [1, 5, -1, -5, 9, -9]
