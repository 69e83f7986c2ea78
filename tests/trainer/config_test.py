import dataclasses
import json

from hypothesis import given
from hypothesis import strategies as st
import pytest

from luna_tfds.errors import UsageError
from trainer import config as config_lib
from trainer.config import AugmentConfig
from trainer.config import InputConfig
from trainer.config import Recipe
from trainer.config import TrainConfig

NAN, INF = float('nan'), float('inf')

# As release 1.0.0 wrote it.
CONFIG_OF_1_0_0 = {
  'dataset': 'luna16_patches/axial_50px_all',
  'data_dir': '/data',
  'model': 'article_cnn',
  'recipe': {
    'optimizer': 'adam',
    'learning_rate': 0.001,
    'schedule': 'constant',
    'weight_decay': 0.0,
    'ema': 0.0,
    'augment': 'article_turned',
    'epochs': 30,
    'steps_per_epoch': 0,
  },
  'input': {
    'batch_size': 96,
    'balance': 'auto',
    'positive_fraction': 0.5,
    'augment': {
      'turns': True,
      'mirror': False,
      'rotate_degrees': 25,
      'shift_px': 0.0,
      'scale': 0.0,
      'aspect': 0.0,
      'intensity': 0.1,
      'blur_px': 3.0,
      'soften': 0.2,
      'noise_hu': 0.0,
    },
    'seed': 0,
    'memory_budget_mb': 256,
    'drop_excluded': False,
    'hard_negatives': '',
    'hard_negative_factor': 4.0,
  },
  'train_split': 'train',
  'validation_split': 'validation',
  'threshold': 'max_f1',
  'tta': False,
  'deployed_prior': 0.0,
  'patience': 0,
  'precision': 'auto',
  'strategy': 'none',
  'jit_compile': False,
  'deterministic': False,
}


def input_config(**fields):
  return InputConfig(**{'batch_size': 96, **fields})


def train_config(**fields):
  return TrainConfig(
    **{
      'dataset': 'luna16_patches/axial_50px',
      'data_dir': '/data',
      'model': 'nodule_net',
      'recipe': Recipe(),
      'input': InputConfig(batch_size=96),
      **fields,
    }
  )


@pytest.mark.parametrize(
  ('make', 'field', 'value'),
  [
    (AugmentConfig, 'scale', 1.0),
    (AugmentConfig, 'sharpness', 1.0),
    (AugmentConfig, 'noise_hu', -1),
    (AugmentConfig, 'noise_hu', INF),
    (AugmentConfig, 'rotate_degrees', 181),
    (AugmentConfig, 'blur_px', NAN),
    (input_config, 'batch_size', 0),
    (input_config, 'balance', 'oversample'),
    (input_config, 'positive_fraction', 1.0),
    (input_config, 'positive_fraction', NAN),
    (input_config, 'memory_budget_mb', 0),
    (input_config, 'seed', -1),
    (input_config, 'seed', 2**32),
    (input_config, 'hard_negative_factor', 0.5),
    (input_config, 'hard_negative_factor', NAN),
    (input_config, 'hard_negative_factor', INF),
    (Recipe, 'optimizer', 'sgd'),
    (Recipe, 'schedule', 'linear'),
    (Recipe, 'augment', 'turns'),
    (Recipe, 'learning_rate', 0),
    (Recipe, 'learning_rate', NAN),
    (Recipe, 'learning_rate', INF),
    (Recipe, 'weight_decay', -0.1),
    (Recipe, 'weight_decay', NAN),
    (Recipe, 'weight_decay', INF),
    (Recipe, 'ema', 1),
    (Recipe, 'ema', NAN),
    (Recipe, 'epochs', 0),
    (Recipe, 'steps_per_epoch', -1),
    (Recipe, 'undistorted_share', 1.1),
    (Recipe, 'undistorted_share', NAN),
    (train_config, 'model', 'resnet'),
    (train_config, 'precision', 'float8'),
    (train_config, 'strategy', 'all'),
    (train_config, 'calibration', 'isotonic'),
    (train_config, 'patience', -1),
    (train_config, 'deployed_prior', 1),
    (train_config, 'deployed_prior', NAN),
    (train_config, 'threshold', 'best'),
  ],
)
def test_a_value_out_of_range_is_refused(make, field, value):
  with pytest.raises(ValueError, match=rf'^{field} must .* Received: '):
    make(**{field: value})


@pytest.mark.parametrize('method', ['temperature', 'platt'])
def test_a_fitted_calibration_needs_a_validation_split(method):
  with pytest.raises(ValueError, match=f'^calibration={method} is fitted on the valid'):
    train_config(calibration=method, validation_split='')
  assert train_config(calibration='prior_shift', validation_split='').calibration


def test_only_geometric_parts_interpolate():
  interpolating = {
    field.name
    for field in dataclasses.fields(AugmentConfig)
    if AugmentConfig(**{field.name: 0.5}).interpolates
  }
  assert interpolating == {'rotate_degrees', 'shift_px', 'scale', 'aspect'}


@pytest.mark.parametrize(
  ('name', 'expected'),
  [
    ('standard', AugmentConfig(flips_and_rot90=True)),
    ('article', AugmentConfig(flip_left_right=True)),
    ('none', AugmentConfig()),
  ],
)
def test_undistorted_leaves_flips_and_rotations_by_90_degrees(name, expected):
  assert config_lib.AUGMENTATIONS[name].undistorted == expected


@pytest.mark.parametrize(
  ('epochs', 'share', 'first'),
  [(22, 0.15, 19), (5, 0.15, 4), (3, 0.15, 3), (10, 0.0, 10), (10, 1.0, 0)],
)
def test_the_last_epochs_are_without_distortion(epochs, share, first):
  recipe = Recipe(epochs=epochs, undistorted_share=share)
  assert recipe.undistorted_from_epoch == first


def test_each_network_has_a_recipe_and_a_batch_size():
  models = set(config_lib.model_names.MODELS)
  assert models == set(config_lib.TRAINING_RECIPES) == set(config_lib.BATCH_SIZES)
  assert config_lib.DEFAULT_MODEL in models


@given(
  st.builds(
    AugmentConfig,
    flips_and_rot90=st.booleans(),
    rotate_degrees=st.floats(0, 180),
    sharpness=st.floats(0, 0.99),
  ),
  st.builds(
    Recipe,
    optimizer=st.sampled_from(config_lib.OPTIMIZERS),
    learning_rate=st.floats(1e-9, 10),
    augment=st.sampled_from(sorted(config_lib.AUGMENTATIONS)),
    epochs=st.integers(1, 10**6),
  ),
  st.integers(0, 2**32 - 1),
)
def test_json_holds_the_whole_config(augment, recipe, seed):
  config = train_config(
    recipe=recipe, input=InputConfig(batch_size=96, augment=augment, seed=seed)
  )
  text = json.dumps(config.to_json())
  assert TrainConfig.from_json(json.loads(text)) == config


def test_config_of_version_1_0_0():
  config = TrainConfig.from_json(CONFIG_OF_1_0_0)
  assert config.recipe.augment == 'article_rot90'
  assert config.input.augment == AugmentConfig(
    flips_and_rot90=True,
    rotate_degrees=25,
    contrast_brightness=0.1,
    blur_px=3.0,
    sharpness=0.2,
  )
  # All else has kept its name.
  fields = config.to_json()
  for name, value in CONFIG_OF_1_0_0.items():
    if name not in ('recipe', 'input'):
      assert fields[name] == value


def test_config_is_loaded_from_a_file(tmp_path):
  path = tmp_path / 'config.json'
  path.write_text(json.dumps({'config': CONFIG_OF_1_0_0}))
  assert config_lib.load(path) == TrainConfig.from_json(CONFIG_OF_1_0_0)


@pytest.mark.parametrize('text', ['', '{', '[' * 99_999])
def test_a_damaged_config_is_not_taken_for_that_of_another_version(tmp_path, text):
  path = tmp_path / 'config.json'
  path.write_text(text)
  with pytest.raises(
    UsageError, match=r'config\.json: cannot be read: .*; restore'
  ) as e:
    config_lib.load(path)
  assert 'version' not in str(e.value)


@pytest.mark.parametrize(
  'text',
  [
    '{}',
    json.dumps({'config': {**CONFIG_OF_1_0_0, 'loss': 'focal'}}),
    json.dumps({'config': {**CONFIG_OF_1_0_0, 'model': 'resnet'}}),
    json.dumps({'config': {k: v for k, v in CONFIG_OF_1_0_0.items() if k != 'input'}}),
  ],
)
def test_config_of_an_unknown_version_is_refused(tmp_path, text):
  path = tmp_path / 'config.json'
  path.write_text(text)
  with pytest.raises(
    UsageError, match=r'config\.json: was written by another version .*; train again'
  ):
    config_lib.load(path)


@pytest.mark.parametrize(
  ('part', 'name', 'value'),
  [
    ('recipe', 'epochs', 'x'),
    ('recipe', 'learning_rate', None),
    ('input', 'batch_size', 2.5),
    ('input', 'augment', [1]),
    ('input', 'augment', {'noise_hu': 10**400}),
  ],
)
def test_a_value_of_another_type_is_rejected(part, name, value, tmp_path):
  fields = config_lib.TrainConfig(
    'd',
    '/data',
    'nodule_net',
    config_lib.Recipe(),
    config_lib.InputConfig(batch_size=96),
  ).to_json()
  fields[part][name] = value
  path = tmp_path / 'config.json'
  path.write_text(json.dumps({'config': fields}))
  with pytest.raises(UsageError, match=r'config\.json: was written by another version'):
    config_lib.load(path)
