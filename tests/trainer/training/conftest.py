"""A short training that the tests of this package share."""

import keras
import numpy as np
import pytest

from trainer import train
from trainer import workdir as workdir_lib

_SHORT = ['--epochs=2', '--steps_per_epoch=2', '--batch_size=8', '--precision=float32']


@pytest.fixture(scope='session')
def short_run(data_dir):
  """Flags of two epochs of two steps; all but --workdir."""
  return [
    f'--data_dir={data_dir}',
    '--dataset=luna16_patches/axial_50px_all',
    '--deterministic',
    *_SHORT,
  ]


@pytest.fixture(scope='session')
def run_train(short_run):
  """Runs luna16-train for the flags of `short_run`; returns its exit code."""

  def run(workdir, *more):
    return train.run(['luna16-train', *short_run, f'--workdir={workdir}', *more])

  return run


@pytest.fixture(scope='session')
def trained(run_train, tmp_path_factory):
  """The workdir of a finished run of two short epochs."""
  folder = tmp_path_factory.mktemp('run')
  assert run_train(folder) == 0
  return workdir_lib.Workdir(folder)


@pytest.fixture(scope='session')
def assert_same_weights():
  """Returns a function: two saved models have the same weights, bit by bit."""

  def compare(path_a, path_b):
    models = [keras.models.load_model(p, compile=False) for p in (path_a, path_b)]
    weights = [model.get_weights() for model in models]
    for a, b in zip(*weights, strict=True):
      np.testing.assert_array_equal(a, b)

  return compare
