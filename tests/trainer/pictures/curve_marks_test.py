import math

import numpy as np
import pytest

from trainer.pictures import curve_marks
from trainer.pictures import figures
from trainer.pictures.curve_marks import RatesMark


@pytest.mark.parametrize(
  ('draw', 'expected'),
  [
    (curve_marks.mark_roc, [[0.25], [0.75]]),
    (curve_marks.mark_precision_recall, [[0.75], [0.5]]),
  ],
)
def test_a_point_is_marked_at_its_rates(draw, expected):
  _, axes = figures.new_figure()
  draw(axes, [RatesMark('here', specificity=0.75, recall=0.75, precision=0.5)])
  (line,) = axes.lines
  np.testing.assert_allclose(line.get_data(), expected)
  assert axes.get_legend_handles_labels()[1] == ['here']


def test_a_precision_that_is_undefined_is_not_marked():
  """Nothing is predicted to be a nodule."""
  _, axes = figures.new_figure()
  mark = RatesMark('nowhere', specificity=1.0, recall=0.0, precision=math.nan)
  curve_marks.mark_precision_recall(axes, [mark])
  assert axes.get_legend_handles_labels()[1] == []
