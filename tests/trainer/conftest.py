"""Fixtures of the trainer's tests: short trainings and their evaluation, made once.

The folders of session-wide runs are shared: a test that writes to one copies it first.
"""

import pathlib

import numpy as np
import pytest

from luna_tfds.command_line import progress

DATASET = 'luna16_patches/axial_50px_all'


@pytest.fixture(autouse=True)
def no_lines_of_progress(monkeypatch):
  """On a slow machine they would be among the lines that tests count."""
  monkeypatch.setattr(progress, '_LINE_SECS', float('inf'))


@pytest.fixture(scope='session')
def train_briefly(data_dir):
  """Returns a function (folder, *flags): trains two steps by luna16-train."""

  def run(folder, *more):
    from trainer import train

    arguments = [
      f'--data_dir={data_dir}',
      f'--dataset={DATASET}',
      f'--workdir={folder}',
      '--epochs=1',
      '--steps_per_epoch=2',
      '--batch_size=8',
    ]
    assert train.run(['luna16-train', *arguments, *more]) == 0
    return folder

  return run


@pytest.fixture(scope='session')
def trained(train_briefly, made_once):
  """The folder of a short training of nodule_net."""
  return made_once('trained', lambda to: train_briefly(to, '--model=nodule_net'))


@pytest.fixture(scope='session')
def other_trained(train_briefly, made_once):
  """The folder of another network, trained on the same splits."""
  flags = '--model=article_cnn', '--seed=1'
  return made_once('other_trained', lambda to: train_briefly(to, *flags))


@pytest.fixture(scope='session')
def trained_on_part(train_briefly, made_once):
  """The folder of a training on a dataset that holds only a part of the candidates."""
  flags = ('--dataset=luna16_patches/axial_50px',)
  return made_once('trained_on_part', lambda to: train_briefly(to, *flags))


@pytest.fixture(scope='session')
def opened_dataset(data_dir):
  """The dataset with every candidate."""
  from trainer.data import dataset as dataset_lib

  return dataset_lib.open_dataset(str(data_dir), DATASET)


@pytest.fixture(scope='session')
def evaluate_folders(opened_dataset):
  """Returns a function: folders of runs -> `steps.Evaluation`, without intervals."""

  def run(*folders: pathlib.Path, split='test', **options):
    from model.metrics.resampling import Resampling
    from trainer.evaluation import steps
    from trainer.evaluation import trained_run

    runs = trained_run.open_runs([str(folder) for folder in folders])
    return steps.evaluate(
      runs, opened_dataset, split, Resampling(resamples=0), **options
    )

  return run


@pytest.fixture
def no_network_pictures(monkeypatch):
  """Leaves the pictures of the network out of reports: they take longest."""
  from trainer.pictures import network_pictures

  monkeypatch.setattr(network_pictures, 'all_pictures', lambda model, image: {})


@pytest.fixture(scope='session')
def small_model():
  """An `InferenceModel` of [4, 4, 1] images; its logit depends on the place."""
  import keras

  from trainer.scoring import inference

  image = keras.Input((4, 4, 1))
  hidden = keras.layers.Flatten()(keras.layers.Rescaling(1 / 1000)(image))
  logit = keras.layers.Dense(1, name='logit')(hidden)
  probability = keras.layers.Activation(
    'sigmoid', dtype='float32', name=inference.PROBABILITY_LAYER
  )(logit)
  model = keras.Model(image, probability)
  kernel = np.random.default_rng(3).normal(size=(16, 1))
  model.get_layer('logit').set_weights([kernel, np.zeros(1)])
  return inference.InferenceModel(model)
