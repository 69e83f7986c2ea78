import numpy as np
import pytest

from model.metrics import classification
from trainer.scoring import calibration


def sigmoid(z):
  return 1 / (1 + np.exp(-z))


def test_a_known_distortion_is_undone():
  rng = np.random.default_rng(0)
  true_logit = rng.normal(-3, 2, 50_000)
  labels = (rng.random(50_000) < sigmoid(true_logit)).astype(int)
  distorted = (true_logit + 1.5) / 0.7
  fitted = calibration.fit(labels, distorted)
  assert fitted.scale == pytest.approx(0.7, rel=0.03)
  assert fitted.offset == pytest.approx(-1.5, abs=0.05)
  before, after = (
    classification.expected_calibration_error(labels, sigmoid(z))
    for z in (distorted, fitted.scale * distorted + fitted.offset)
  )
  assert before > 0.02
  assert after < 0.005


def test_separated_classes_have_a_finite_scale():
  labels = np.arange(40) % 2
  fitted = calibration.fit(labels, np.where(labels, 5.0, -5.0))
  assert 0 < fitted.scale < 10
  p = sigmoid(fitted.scale * 5 + fitted.offset)
  assert p == pytest.approx(21 / 22, rel=1e-6)


def test_the_order_is_never_reversed():
  labels = np.arange(40) % 2
  fitted = calibration.fit(labels, np.where(labels, -1.0, 1.0))
  assert fitted.scale == 1
  assert fitted.offset == pytest.approx(0, abs=1e-6)


def test_one_class_is_refused():
  with pytest.raises(ValueError, match='both classes'):
    calibration.fit(np.zeros(3), np.zeros(3))


def test_probabilities_that_were_rounded_have_finite_logits():
  found = calibration.logits(np.array([0.0, 0.25, 1.0]))
  assert np.isfinite(found).all()
  assert found[1] == pytest.approx(-np.log(3))
