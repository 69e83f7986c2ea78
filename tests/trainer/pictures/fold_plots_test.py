import numpy as np
import pytest
from sklearn import metrics as sklearn_metrics

from trainer.pictures import fold_plots
from trainer.pictures.fold_plots import LabelledScores


@pytest.fixture
def folds():
  rng = np.random.default_rng(0)
  labels = [(rng.random(50) < 0.3).astype(int) for _ in range(3)]
  return {
    f'fold {k}': LabelledScores(y, rng.random(50) * 0.6 + 0.4 * y)
    for k, y in enumerate(labels)
  }


def test_roc_of_each_fold_and_of_all(folds):
  (axes,) = fold_plots.roc(folds).axes
  names = [text.get_text() for text in axes.figure.legends[0].get_texts()]
  assert names == ['fold 0', 'fold 1', 'fold 2', 'all folds']
  lines = axes.lines[1:]
  for line, fold in zip(lines, folds.values()):
    fpr, tpr = line.get_data()
    area = np.trapezoid(tpr, fpr)
    assert area == pytest.approx(
      sklearn_metrics.roc_auc_score(fold.labels, fold.probabilities)
    )
  assert len({line.get_color() for line in lines}) == 4
  labels = np.concatenate([fold.labels for fold in folds.values()])
  probabilities = np.concatenate([fold.probabilities for fold in folds.values()])
  fpr, tpr = lines[-1].get_data()
  assert np.trapezoid(tpr, fpr) == pytest.approx(
    sklearn_metrics.roc_auc_score(labels, probabilities)
  )


def test_a_fold_of_one_class_has_no_curve_but_counts(folds):
  zeros = LabelledScores(np.zeros(20, int), np.full(20, 0.7))
  with_zeros = {'zeros': zeros, **folds}
  labels = np.concatenate([fold.labels for fold in with_zeros.values()])
  probabilities = np.concatenate([fold.probabilities for fold in with_zeros.values()])
  for draw in (fold_plots.roc, fold_plots.precision_recall):
    (axes,) = draw(with_zeros).axes
    names = [text.get_text() for text in axes.figure.legends[0].get_texts()]
    assert names == ['fold 0', 'fold 1', 'fold 2', 'all folds']
  recall, precision = axes.lines[-1].get_data()
  assert -np.sum(np.diff(recall) * precision[:-1]) == pytest.approx(
    sklearn_metrics.average_precision_score(labels, probabilities)
  )


def test_precision_recall_of_each_fold_and_of_all(folds):
  (axes,) = fold_plots.precision_recall(folds).axes
  random_guessing, *lines = axes.lines
  labels = np.concatenate([fold.labels for fold in folds.values()])
  assert random_guessing.get_ydata() == pytest.approx([labels.mean()] * 2)
  for line, fold in zip(lines, folds.values()):
    recall, precision = line.get_data()
    assert -np.sum(np.diff(recall) * precision[:-1]) == pytest.approx(
      sklearn_metrics.average_precision_score(fold.labels, fold.probabilities)
    )
  assert len(lines) == 4
