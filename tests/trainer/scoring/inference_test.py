import keras
import numpy as np
import pytest

from luna_tfds.errors import UsageError
from trainer.scoring import inference


@pytest.fixture
def images():
  return np.random.default_rng(0).integers(-1000, 400, (6, 4, 4, 1)).astype(np.int16)


def test_probabilities_are_those_of_the_keras_model(small_model, images):
  assert small_model.image_shape == (4, 4, 1)
  found = small_model.probabilities(images)
  assert found.dtype == np.float64
  expected = small_model.keras_model.predict(images, verbose=0)[:, 0]
  np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_high_probabilities_do_not_tie(small_model, images):
  """In float32 the sigmoid of each logit above 17 is 1."""
  keras_model = keras.models.clone_model(small_model.keras_model)
  keras_model.get_layer('logit').set_weights([np.full((16, 1), 0.01), np.full(1, 25.0)])
  in_float32 = keras_model.predict(images, verbose=0)
  assert len(np.unique(in_float32)) == 1
  found = inference.InferenceModel(keras_model).probabilities(images)
  assert len(np.unique(found)) == len(images)


def test_a_saved_model_is_loaded(small_model, images, tmp_path):
  small_model.keras_model.save(tmp_path / 'model.keras')
  loaded = inference.load_model(tmp_path / 'model.keras')
  np.testing.assert_array_equal(
    loaded.probabilities(images), small_model.probabilities(images)
  )


def test_a_damaged_model_is_refused(tmp_path):
  path = tmp_path / 'model.keras'
  path.write_bytes(b'PK no archive')
  with pytest.raises(
    UsageError, match=r'model\.keras: cannot be loaded.*train it again'
  ):
    inference.load_model(path)


def test_mean_over_models_and_over_the_eight_flips_and_rotations(small_model, images):
  other = keras.models.clone_model(small_model.keras_model)
  other.get_layer('logit').set_weights([np.ones((16, 1)), np.ones(1)])
  models = [small_model, inference.InferenceModel(other)]

  def over_models(views):
    return np.mean([m.probabilities(v) for m in models for v in views], axis=0)

  found = inference.mean_probabilities(models, images)
  np.testing.assert_allclose(found, over_models([images]))
  rotated = [np.rot90(images, k, (1, 2)) for k in range(4)]
  flipped = [view[:, :, ::-1] for view in rotated]
  found = inference.mean_probabilities(models, images, tta=True)
  np.testing.assert_allclose(found, over_models([*rotated, *flipped]))
