import numpy as np
import pytest
from scipy import special

from model.metrics import classification
from trainer.scoring import calibration
from trainer.scoring.calibration import LabelledLogits


def sigmoid(z):
  return 1 / (1 + np.exp(-z))


def distorted_records(scale, offset, count=50_000, trained_prior=0.5):
  """Records whose true logit is `scale * logit + offset`."""
  rng = np.random.default_rng(0)
  true_logit = rng.normal(-3, 2, count)
  labels = (rng.random(count) < sigmoid(true_logit)).astype(int)
  return LabelledLogits(labels, (true_logit - offset) / scale, trained_prior)


def ece(records, fitted):
  p = sigmoid(fitted.scale * records.logit + fitted.offset)
  return classification.expected_calibration_error(records.labels, p)


def test_platt_undoes_a_factor_and_a_constant():
  records = distorted_records(0.7, -1.5)
  fitted = calibration.fit('platt', records)
  assert fitted.scale == pytest.approx(0.7, rel=0.03)
  assert fitted.offset == pytest.approx(-1.5, abs=0.05)
  assert ece(records, calibration.LogitCalibration(1, 0)) > 0.02
  assert ece(records, fitted) < 0.005


@pytest.mark.parametrize('trained_prior', [0.5, 0.2])
def test_temperature_undoes_an_overstated_likelihood_ratio(trained_prior):
  # Nodules and others with normal scores: the log likelihood ratio is exactly 2 x.
  rng = np.random.default_rng(1)
  labels = (rng.random(200_000) < 0.1).astype(int)
  ratio = 2 * rng.normal(np.where(labels, 1.0, -1.0))
  overstated = 3 * ratio + special.logit(trained_prior)
  records = LabelledLogits(labels, overstated, trained_prior)
  fitted = calibration.fit('temperature', records)
  assert 1 / fitted.scale == pytest.approx(3, rel=0.02)
  np.testing.assert_allclose(
    fitted.probabilities(overstated),
    sigmoid(fitted.scale * 3 * ratio + special.logit(labels.mean())),
    rtol=1e-9,
  )
  assert ece(records, fitted) < 0.003
  assert ece(records, calibration.fit('prior_shift', records)) > 0.01


def test_temperature_is_the_minimum_of_the_loss():
  records = distorted_records(0.6, -1.0, count=500)
  fitted = calibration.fit('temperature', records)
  prior = special.logit(records.labels.mean())
  nodules = records.labels.sum()
  targets = np.where(
    records.labels, (nodules + 1) / (nodules + 2), 1 / (500 - nodules + 2)
  )

  def loss(scale):
    p = sigmoid(scale * records.logit + prior)
    return -np.mean(targets * np.log(p) + (1 - targets) * np.log1p(-p))

  scales = fitted.scale + np.linspace(-0.05, 0.05, 101)
  assert scales[np.argmin([loss(s) for s in scales])] == pytest.approx(
    fitted.scale, abs=1e-3
  )


def test_prior_shift_replaces_the_odds_of_the_stream():
  labels = np.arange(10) < 2
  fitted = calibration.fit('prior_shift', LabelledLogits(labels, np.zeros(10), 0.5))
  assert fitted.scale == 1
  assert fitted.probabilities(np.zeros(1)) == pytest.approx(0.2)


@pytest.mark.parametrize('method', ['temperature', 'platt'])
def test_separated_classes_have_a_finite_scale(method):
  labels = np.arange(40) % 2
  records = LabelledLogits(labels, np.where(labels, 5.0, -5.0), 0.5)
  fitted = calibration.fit(method, records)
  assert 0 < fitted.scale < 10
  assert fitted.probabilities(np.array([5.0])) == pytest.approx(21 / 22, rel=1e-6)


def test_the_order_is_never_reversed():
  labels = np.arange(40) % 2
  records = LabelledLogits(labels, np.where(labels, -1.0, 1.0), 0.5)
  fitted = calibration.fit('platt', records)
  assert fitted.scale == 1
  assert fitted.offset == pytest.approx(0, abs=1e-6)
  assert calibration.fit('temperature', records).scale == pytest.approx(0.01)


@pytest.mark.parametrize('method', calibration.METHODS)
def test_one_class_is_refused(method):
  with pytest.raises(ValueError, match='both classes'):
    calibration.fit(method, LabelledLogits(np.zeros(3), np.zeros(3), 0.5))


def test_a_stream_of_one_class_has_no_prior_to_shift():
  records = LabelledLogits(np.arange(4) % 2, np.zeros(4), 1.0)
  with pytest.raises(ValueError, match='trained_prior'):
    calibration.fit('temperature', records)


def test_calibration_error_is_measured_on_the_other_half():
  records = distorted_records(0.5, 0.0, count=4000)
  first = np.arange(4000) % 2 == 0
  p = np.zeros(4000)
  p[first] = calibration.fit('platt', records[~first]).probabilities(
    records.logit[first]
  )
  p[~first] = calibration.fit('platt', records[first]).probabilities(
    records.logit[~first]
  )
  expected = classification.expected_calibration_error(records.labels, p)
  assert calibration.cross_fitted_ece('platt', records, first) == expected


def test_calibration_error_of_a_half_without_nodules_is_undefined():
  records = LabelledLogits(np.array([1, 1, 0, 0]), np.zeros(4), 0.5)
  first = np.array([True, True, False, False])
  assert np.isnan(calibration.cross_fitted_ece('platt', records, first))


def test_probabilities_that_were_rounded_have_finite_logits():
  found = calibration.logits(np.array([0.0, 0.25, 1.0]))
  assert np.isfinite(found).all()
  assert found[1] == pytest.approx(-np.log(3))
