"""Training runs on patches of noise, without an extracted dataset."""

import fake_source
import numpy as np

from trainer import config as config_lib
from trainer import workdir as workdir_lib
from trainer.data.balance import plan_balance
from trainer.training import loop


def make_rows(count, rng, *, scrambled):
  """Patches of noise; those of nodules have a bright ball in the centre.

  Scrambled labels have nothing to do with the ball.
  """
  offsets = np.indices((16, 16)) - 7.5
  ball = 700 * (np.hypot(*offsets) < 4)
  rows = []
  for _ in range(count):
    has_ball = rng.random() < 0.5
    image = rng.normal(-700, 200, (16, 16)) + ball * has_ball
    label = rng.random() < 0.5 if scrambled else has_ball
    rows.append((image.astype(np.int16)[..., np.newaxis], int(label), False))
  return rows


# The shortest run with two epochs of more than one step.
SMALL = {'epochs': 2, 'steps': 2, 'deterministic': True}


def assert_same_run(run, other, assert_same_weights):
  for name in ('last', 'best'):
    assert_same_weights(getattr(run.workdir, name), getattr(other.workdir, name))
  assert run.workdir.history.path.read_text() == other.workdir.history.path.read_text()


def make_run(
  folder,
  *,
  scrambled=False,
  patience=0,
  epochs=3,
  steps=20,
  precision='float32',
  **fields,
):
  rng = np.random.default_rng(5)
  (folder / 'shards').mkdir(parents=True)
  train, validation = (
    fake_source.write_records(
      folder / 'shards', make_rows(count, rng, scrambled=scrambled), 2, split
    )
    for split, count in (('train', 400), ('validation', 200))
  )
  config = config_lib.TrainConfig(
    dataset='fake',
    data_dir='',
    model='nodule_net',
    recipe=config_lib.Recipe(
      optimizer='adamw',
      learning_rate=2e-3,
      schedule='cosine',
      ema=0.9,
      epochs=epochs,
      steps_per_epoch=steps,
    ),
    input=fake_source.input_config(batch_size=32),
    precision=precision,
    patience=patience,
    **fields,
  )
  workdir = workdir_lib.Workdir(folder / 'run')
  workdir.last.parent.mkdir(parents=True)
  balance = plan_balance(train, config.input)
  return loop.TrainingRun(config, train, balance, validation, workdir)
