import dataclasses

import pytest

from luna_tfds.command_line import cli
from luna_tfds.errors import UsageError
from trainer import config as config_lib
from trainer import train_flags


@pytest.fixture(scope='module')
def flag_values():
  values = cli.new_flags()
  train_flags.define(values)
  return values


@pytest.fixture
def parse(flag_values):
  """Returns a function: from arguments to the config of a run."""
  configs = []

  def main(unused):
    configs.append(train_flags.config_from_flags(flag_values))

  def run(*arguments):
    code = cli.run('train', 'Trains.', main, flag_values, ['train', *arguments])
    assert code == 0
    return configs[-1]

  return run


@pytest.fixture
def refuse(flag_values, error_line):
  """Returns a function: the error of arguments that are refused."""

  def main(unused):
    train_flags.config_from_flags(flag_values)

  def run(*arguments):
    code = cli.run('train', 'Trains.', main, flag_values, ['train', *arguments])
    assert code == 2
    return error_line().removeprefix('train: error: ')

  return run


@pytest.mark.parametrize('model', ['article_cnn', 'nodule_net'])
def test_defaults_are_those_of_the_network(parse, model):
  config = parse(f'--model={model}', '--data_dir=/data')
  recipe = config_lib.TRAINING_RECIPES[model]
  assert config == config_lib.TrainConfig(
    dataset='luna16_patches/axial_50px',
    data_dir='/data',
    model=model,
    recipe=recipe,
    input=config_lib.InputConfig(
      batch_size=config_lib.BATCH_SIZES[model],
      augment=config_lib.AUGMENTATIONS[recipe.augment],
    ),
  )


@pytest.mark.parametrize(
  ('flag', 'path', 'value'),
  [
    ('--dataset=/some/folder', 'dataset', '/some/folder'),
    ('--optimizer=adam', 'recipe.optimizer', 'adam'),
    ('--schedule=constant', 'recipe.schedule', 'constant'),
    ('--learning_rate=0.5', 'recipe.learning_rate', 0.5),
    ('--weight_decay=0', 'recipe.weight_decay', 0),
    ('--ema=0', 'recipe.ema', 0),
    ('--epochs=7', 'recipe.epochs', 7),
    ('--steps_per_epoch=9', 'recipe.steps_per_epoch', 9),
    ('--augment=article', 'recipe.augment', 'article'),
    ('--balance=none', 'input.balance', 'none'),
    ('--positive_fraction=0.25', 'input.positive_fraction', 0.25),
    ('--seed=3', 'input.seed', 3),
    ('--memory_budget_mb=9', 'input.memory_budget_mb', 9),
    ('--drop_excluded', 'input.drop_excluded', True),
    ('--hard_negatives=p.csv', 'input.hard_negatives', 'p.csv'),
    ('--hard_negative_factor=2', 'input.hard_negative_factor', 2),
    ('--batch_size=5', 'input.batch_size', 5),
    ('--train_split=train[:5]', 'train_split', 'train[:5]'),
    ('--validation_split=', 'validation_split', ''),
    ('--threshold=recall:0.9', 'threshold', 'recall:0.9'),
    ('--tta', 'tta', True),
    ('--deployed_prior=0.1', 'deployed_prior', 0.1),
    ('--patience=4', 'patience', 4),
    ('--precision=float32', 'precision', 'float32'),
    ('--strategy=mirrored', 'strategy', 'mirrored'),
    ('--jit_compile', 'jit_compile', True),
    ('--deterministic', 'deterministic', True),
    ('--augment_flips_and_rot90=false', 'input.augment.flips_and_rot90', False),
    ('--noaugment_flips_and_rot90', 'input.augment.flips_and_rot90', False),
    ('--augment_flip_left_right', 'input.augment.flip_left_right', True),
    ('--augment_rotate_degrees=1', 'input.augment.rotate_degrees', 1),
    ('--augment_shift_px=2', 'input.augment.shift_px', 2),
    ('--augment_scale=0.3', 'input.augment.scale', 0.3),
    ('--augment_aspect=0.1', 'input.augment.aspect', 0.1),
    ('--augment_contrast_brightness=0', 'input.augment.contrast_brightness', 0),
    ('--augment_blur_px=1.5', 'input.augment.blur_px', 1.5),
    ('--augment_sharpness=0.2', 'input.augment.sharpness', 0.2),
    ('--augment_noise_hu=0', 'input.augment.noise_hu', 0),
    # Names of release 1.0.0.
    ('--noaugment_turns', 'input.augment.flips_and_rot90', False),
    ('--augment_turns=false', 'input.augment.flips_and_rot90', False),
    ('--augment_mirror', 'input.augment.flip_left_right', True),
    ('--augment_intensity=0.3', 'input.augment.contrast_brightness', 0.3),
    ('--augment_soften=0.2', 'input.augment.sharpness', 0.2),
    ('--augment=turns', 'recipe.augment', 'flips_and_rot90'),
    ('--augment=article_turned', 'recipe.augment', 'article_rot90'),
  ],
)
def test_a_flag_sets_its_field(parse, flag, path, value):
  def field_of(config):
    for name in path.split('.'):
      config = getattr(config, name)
    return config

  assert field_of(parse()) != value
  assert field_of(parse(flag)) == value


def test_every_field_has_a_flag(flag_values):
  fields = [
    *dataclasses.fields(config_lib.TrainConfig),
    *dataclasses.fields(config_lib.Recipe),
    *dataclasses.fields(config_lib.InputConfig),
  ]
  flags = {field.name for field in fields} - {'recipe', 'input'}
  flags |= {f'augment_{f.name}' for f in dataclasses.fields(config_lib.AugmentConfig)}
  assert flags <= train_flags.names()


def test_parts_of_an_augmentation_change_the_one_that_is_named(parse):
  config = parse('--augment=article', '--augment_noise_hu=5', '--augment_turns')
  assert config.input.augment == dataclasses.replace(
    config_lib.AUGMENTATIONS['article'], noise_hu=5.0, flips_and_rot90=True
  )
  config = parse('--augment=turns')
  assert config.input.augment == config_lib.AUGMENTATIONS['flips_and_rot90']


def test_an_old_name_has_no_effect_on_the_next_run(parse):
  arguments = ['--augment=turns', '--augment_soften=0.2', '--augment_mirror']
  first = parse(*arguments)
  assert (first.input.augment.sharpness, first.input.augment.flip_left_right) == (
    0.2,
    True,
  )
  assert parse() == parse('--augment=standard')
  assert parse(*arguments) == first


def test_data_dir_is_expanded(parse, monkeypatch):
  monkeypatch.setenv('HOME', '/home/someone')
  assert parse('--data_dir=~/data').data_dir == '/home/someone/data'


@pytest.mark.parametrize(
  ('flag', 'problem'),
  [
    ('--batch_size=0', '--batch_size must be 1 or more. Received: 0'),
    ('--epochs=0', '--epochs must be 1 or more. Received: 0'),
    (
      '--model=resnet',
      '--model=resnet: value should be one of <article_cnn|nodule_net>',
    ),
    (
      '--augment=crazy',
      '--augment=crazy: value should be one of <none|flips_and_rot90|',
    ),
    ('--balance=often', '--balance=often: value should be one of <auto|rejection|'),
    ('--positive_fraction=1', '--positive_fraction must lie between 0 and 1'),
    ('--threshold=best', '--threshold must be max_f1, precision:P'),
    ('--learning_rate=0', '--learning_rate must be positive'),
    ('--learning_rate=nan', '--learning_rate must be positive'),
    ('--augment_scale=-1', '--augment_scale must be 0 or more. Received: -1.0'),
    ('--augment_noise_hu=nan', '--augment_noise_hu must be 0 or more. Received: nan'),
    ('--augment_soften=1', '--augment_sharpness must be less than 1. Received: 1.0'),
    ('--precision=float8', '--precision=float8: value should be one of <auto|float32|'),
    ('--batch_size=many', '--batch_size=many: must be an integer; see train --help'),
    ('--ema=high', '--ema=high: must be a number; see train --help'),
    ('--seed=-1', '--seed must lie in 0..2**32 - 1. Received: -1'),
    ('--hard_negative_factor=nan', '--hard_negative_factor must be 1 or more.'),
  ],
)
def test_a_bad_value_is_refused_in_a_line_that_starts_with_the_flag(
  refuse, flag, problem
):
  assert refuse(flag).startswith(problem)


def test_errors_are_usage_errors(flag_values):
  cli.run('train', '', lambda unused: 0, flag_values, ['train', '--epochs=0'])
  with pytest.raises(UsageError, match='--epochs'):
    train_flags.config_from_flags(flag_values)
