"""The flags of a training run, for luna16-train and luna16-crossval."""

from __future__ import annotations

from collections.abc import Callable, Iterable
import dataclasses
from typing import Any, TypeVar

from absl import flags

from luna_tfds.command_line import cli
from luna_tfds.command_line import cli_flags
from luna_tfds.files import store_path
from model.metrics.threshold_rule import THRESHOLD_RULES
from model.networks import model_names
from trainer import config as config_lib
from trainer import shared_flags

_T = TypeVar('_T')

_INPUT_NAMES = (
  *shared_flags.INPUT_NAMES,
  'drop_excluded',
  'hard_negatives',
  'hard_negative_factor',
)
_RECIPE_NAMES = (
  'optimizer',
  'learning_rate',
  'schedule',
  'weight_decay',
  'ema',
  'epochs',
  'steps_per_epoch',
  'undistorted_share',
)
_RUN_NAMES = (
  'train_split',
  'validation_split',
  'threshold',
  'tta',
  'deployed_prior',
  'calibration',
  'patience',
  'precision',
  'strategy',
  'jit_compile',
  'deterministic',
)

# The fields of `AugmentConfig` as flags --augment_<field>, with what they were called in
# release 1.0.0, if otherwise.
_AUGMENT_PARTS = {
  'flips_and_rot90': ('Flips and rotations by 90 degrees', 'turns'),
  'flip_left_right': ('Left-right flips', 'mirror'),
  'rotate_degrees': ('Rotation by up to this angle', None),
  'shift_px': ('Shift by up to this many pixels', None),
  'scale': ('Zoom by a factor within 1 +- this', None),
  'aspect': ('Stretch of one axis against the other, within 1 +- this', None),
  'contrast_brightness': ('Contrast and brightness within +- this', 'intensity'),
  'blur_px': ('Gaussian blur with a sigma of up to this, in pixels', None),
  'sharpness': ('Share of a 3x3 blur mixed in, within +- this', 'soften'),
  'noise_hu': ('Gaussian noise with a sigma of up to this, in HU', None),
}


def define(flag_values: flags.FlagValues) -> None:
  """Defines all flags of a training run but --workdir."""
  cli_flags.define_data_dir(flag_values)
  shared_flags.define_dataset(flag_values)
  flags.DEFINE_enum(
    'model',
    config_lib.DEFAULT_MODEL,
    model_names.MODELS,
    'Network to train.',
    flag_values=flag_values,
  )
  _define_run(flag_values)
  _define_recipe(flag_values)
  _define_input(flag_values)
  _define_augment(flag_values)


def names() -> frozenset[str]:
  """Returns the names of the flags that `define` defines."""
  values = flags.FlagValues()
  define(values)
  return frozenset(values)


def config_from_flags(flag_values: flags.FlagValues) -> config_lib.TrainConfig:
  """Builds the config of a run from parsed flags; loads no TensorFlow.

  Raises:
    UsageError: a flag is out of range.
  """
  model = str(flag_values['model'].value)
  recipe = _checked(
    dataclasses.replace,
    config_lib.TRAINING_RECIPES[model],
    **shared_flags.given_values(flag_values, _RECIPE_NAMES),
    **shared_flags.given_values(flag_values, ('augment',)),
  )
  batch_size = flag_values['batch_size'].value
  inputs = _checked(
    config_lib.InputConfig,
    batch_size=config_lib.BATCH_SIZES[model] if batch_size is None else batch_size,
    augment=_augment_config(flag_values, recipe.augment),
    **shared_flags.given_values(flag_values, _INPUT_NAMES),
  )
  return _checked(
    config_lib.TrainConfig,
    dataset=flag_values['dataset'].value,
    data_dir=str(store_path.as_path(str(flag_values['data_dir'].value)).expanduser()),
    model=model,
    recipe=recipe,
    input=inputs,
    **shared_flags.given_values(flag_values, _RUN_NAMES),
  )


def _checked(make: Callable[..., _T], *args: Any, **fields: Any) -> _T:
  # Each field has a flag of its own name.
  return cli.as_usage_error(make, *args, flag_prefix='--', **fields)


def _augment_config(
  flag_values: flags.FlagValues, name: str
) -> config_lib.AugmentConfig:
  """The named augmentation, with the parts that are given."""
  given = {
    part: flag_values[f'augment_{part}'].value
    for part in _AUGMENT_PARTS
    if flag_values[f'augment_{part}'].value is not None
  }
  parts = dataclasses.asdict(config_lib.AUGMENTATIONS[name])
  return cli.as_usage_error(
    config_lib.AugmentConfig, flag_prefix='--augment_', **{**parts, **given}
  )


def _define_run(flag_values: flags.FlagValues) -> None:
  default = config_lib.TrainConfig

  def string(name: str, text: str) -> None:
    flags.DEFINE_string(name, getattr(default, name), text, flag_values=flag_values)

  def boolean(name: str, text: str) -> None:
    flags.DEFINE_boolean(name, getattr(default, name), text, flag_values=flag_values)

  def enum(name: str, choices: Iterable[str], text: str) -> None:
    value = getattr(default, name)
    flags.DEFINE_enum(name, value, choices, text, flag_values=flag_values)

  string('train_split', 'TFDS split string to train on.')
  string(
    'validation_split',
    "To choose the best epoch and the threshold on; '' for none.",
  )
  string('threshold', f'How the threshold is chosen: {THRESHOLD_RULES}.')
  boolean('tta', 'Average over the eight flips and rotations by 90 degrees.')
  flags.DEFINE_float(
    'deployed_prior',
    default.deployed_prior,
    'Prevalence of nodules among the records that will be scored; 0: as in the '
    'training split.',
    flag_values=flag_values,
  )
  flags.DEFINE_integer(
    'patience',
    default.patience,
    'Epochs without a better PR AUC on validation before training stops; 0: never.',
    flag_values=flag_values,
  )
  enum(
    'calibration',
    config_lib.CALIBRATIONS,
    'How logits become probabilities: by undoing the prior of the balanced stream '
    '(prior_shift), besides by a temperature, or by scale and offset (platt), both '
    'fitted on the validation split; auto: platt with --hard_negatives, else '
    'prior_shift.',
  )
  enum('precision', config_lib.PRECISIONS, 'Precision of the computation.')
  enum('strategy', config_lib.STRATEGIES, 'Strategy of tf.distribute.')
  boolean('jit_compile', 'Compile the training step with XLA.')
  boolean('deterministic', 'Make a rerun equal bit by bit; slower.')


def _define_recipe(flag_values: flags.FlagValues) -> None:
  """Flags whose default depends on the model; the help lists the defaults."""

  def text(name: str, start: str) -> str:
    return f'{start} (default: {_by_model(lambda r: getattr(r, name))}).'

  flags.DEFINE_enum(
    'optimizer',
    None,
    config_lib.OPTIMIZERS,
    text('optimizer', 'Optimizer of the weights'),
    flag_values=flag_values,
  )
  flags.DEFINE_enum(
    'schedule',
    None,
    config_lib.SCHEDULES,
    text('schedule', 'Schedule of the learning rate'),
    flag_values=flag_values,
  )
  for name, start in {
    'learning_rate': 'The highest learning rate of the schedule',
    'weight_decay': 'Weight decay of AdamW',
    'ema': 'Momentum of the moving average of the weights, 0 for none',
    'undistorted_share': 'Share of the epochs, at the end, in which images are only '
    'flipped and rotated by 90 degrees',
  }.items():
    flags.DEFINE_float(name, None, text(name, start), flag_values=flag_values)
  for name, start in {
    'epochs': 'Number of epochs',
    'steps_per_epoch': 'Batches of an epoch, 0 for one balanced pass over the split',
  }.items():
    flags.DEFINE_integer(name, None, text(name, start), flag_values=flag_values)


def _define_input(flag_values: flags.FlagValues) -> None:
  default = config_lib.InputConfig
  shared_flags.define_input(
    flag_values, 'Seed of initial weights, order, rejection and augmentation.'
  )
  sizes = ', '.join(f'{n} {size}' for n, size in config_lib.BATCH_SIZES.items())
  flags.DEFINE_integer(
    'batch_size',
    None,
    f'Records of a batch (default: {sizes}).',
    flag_values=flag_values,
  )
  flags.DEFINE_boolean(
    'drop_excluded',
    default.drop_excluded,
    'Leave candidates that hit an excluded finding out of training.',
    flag_values=flag_values,
  )
  flags.DEFINE_string(
    'hard_negatives',
    default.hard_negatives,
    'predictions.csv of an earlier evaluation of the training split; the non-nodules '
    'with the highest probabilities are drawn more often.',
    flag_values=flag_values,
  )
  flags.DEFINE_float(
    'hard_negative_factor',
    default.hard_negative_factor,
    'How many times as often a hard non-nodule is drawn as another one.',
    flag_values=flag_values,
  )


def _define_augment(flag_values: flags.FlagValues) -> None:
  defaults = _by_model(lambda recipe: recipe.augment)
  shared_flags.define_augment(
    flag_values, None, f'How images are varied at random (default: {defaults}).'
  )
  for part, (text, old_name) in _AUGMENT_PARTS.items():
    is_switch = isinstance(getattr(config_lib.AugmentConfig, part), bool)
    kind = flags.DEFINE_boolean if is_switch else flags.DEFINE_float
    text = f'{text} (default: as --augment).'
    kind(f'augment_{part}', None, text, flag_values=flag_values)
    if old_name:
      flags.DEFINE_alias(
        f'augment_{old_name}', f'augment_{part}', flag_values=flag_values
      )


def _by_model(value_of: Callable[[config_lib.Recipe], Any]) -> str:
  """Lists a hyperparameter of each network, e.g. 'article_cnn 30, nodule_net 30'."""
  recipes = config_lib.TRAINING_RECIPES.items()
  return ', '.join(f'{model} {value_of(recipe)}' for model, recipe in recipes)
