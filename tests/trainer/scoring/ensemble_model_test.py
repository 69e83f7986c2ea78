import keras
import numpy as np
import pytest
import tensorflow as tf

from trainer.scoring import ensemble_model
from trainer.scoring import inference


def make_model(shape, seed):
  """An `InferenceModel` whose logit is a weighted sum of the voxels."""
  image = keras.Input(shape)
  hidden = keras.layers.Flatten()(keras.layers.Rescaling(1 / 1000)(image))
  logit = keras.layers.Dense(1, name='logit')(hidden)
  probability = keras.layers.Activation(
    'sigmoid', dtype='float32', name=inference.PROBABILITY_LAYER
  )(logit)
  model = keras.Model(image, probability, name='network')
  kernel = np.random.default_rng(seed).normal(size=(np.prod(shape), 1))
  model.get_layer('logit').set_weights([kernel, np.zeros(1)])
  return inference.InferenceModel(model)


@pytest.mark.parametrize('tta', [False, True])
@pytest.mark.parametrize('members', [1, 3])
@pytest.mark.parametrize('shape', [(4, 4, 1), (4, 6, 1), (3, 4, 4, 1)])
def test_model_is_the_mean_of_inference(shape, members, tta):
  models = [make_model(shape, seed) for seed in range(members)]
  rng = np.random.default_rng(9)
  images = rng.integers(-1000, 400, (5, *shape)).astype(np.int16)
  model = ensemble_model.build_ensemble(models, tta=tta)
  expected = inference.mean_probabilities(models, images, tta=tta)
  assert expected.std() > 0.01
  np.testing.assert_allclose(np.asarray(model(images))[:, 0], expected, rtol=1e-5)
  assert model.output.dtype == 'float32'
  assert model.output.shape == (None, 1)


def test_exported_files(tmp_path):
  models = [make_model((4, 4, 1), seed) for seed in range(2)]
  images = np.random.default_rng(0).normal(0, 500, (3, 4, 4, 1)).astype(np.float32)
  folder = tmp_path / 'exported'
  model = ensemble_model.build_ensemble(models, tta=True)
  ensemble_model.write_export(model, folder, {'a.json': {'b': 1}})
  expected = inference.mean_probabilities(models, images, tta=True)
  loaded = keras.models.load_model(folder / 'model.keras')
  np.testing.assert_allclose(np.asarray(loaded(images))[:, 0], expected, rtol=1e-5)
  served = tf.saved_model.load(str(folder))
  for count in (3, 1):
    np.testing.assert_allclose(
      served.serve(images[:count])[:, 0], expected[:count], rtol=1e-5
    )
  assert (folder / 'a.json').read_text() == '{\n  "b": 1\n}\n'
  assert [path.name for path in tmp_path.iterdir()] == ['exported']


def test_failed_export_leaves_nothing(tmp_path):
  model = ensemble_model.build_ensemble([make_model((4, 4, 1), 0)], tta=False)
  with pytest.raises(TypeError):
    ensemble_model.write_export(model, tmp_path / 'out', {'a.json': object()})
  assert not list(tmp_path.iterdir())
