"""The settings of a training run, in frozen dataclasses that check themselves.

Imports no TensorFlow, so that a command rejects an invalid flag at once. Each default,
each bound and each list of choices stands here and nowhere else.
"""

from __future__ import annotations

from collections.abc import Mapping
import dataclasses
import math
import pathlib
from typing import Any

from luna_tfds import dataclass_json
from luna_tfds.errors import UsageError
from luna_tfds.files import atomic_files
from luna_tfds.text_format import error_text
from model.metrics.threshold_rule import ThresholdRule
from model.networks import model_names

BALANCES = ('auto', 'rejection', 'streams', 'none')
OPTIMIZERS = ('adam', 'adamw')
SCHEDULES = ('constant', 'cosine')
STRATEGIES = ('none', 'mirrored', 'multiworker')
PRECISIONS = ('auto', 'float32', 'mixed_bfloat16', 'mixed_float16')
CALIBRATION_METHODS = ('prior_shift', 'temperature', 'platt')
CALIBRATIONS = ('auto', *CALIBRATION_METHODS)

# Names in the config.json of release 1.0.0, and what they are called now.
_RENAMED_AUGMENT_FIELDS = {
  'turns': 'flips_and_rot90',
  'mirror': 'flip_left_right',
  'intensity': 'contrast_brightness',
  'soften': 'sharpness',
}
RENAMED_AUGMENTATIONS = {'turns': 'flips_and_rot90', 'article_turned': 'article_rot90'}


def _check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
  if value not in choices:
    raise ValueError(f'{name} must be one of {", ".join(choices)}. Received: {value!r}')


def _check_at_least(name: str, value: float, least: float) -> None:
  if not value >= least:
    raise ValueError(f'{name} must be {least} or more. Received: {value}')


@dataclasses.dataclass(frozen=True)
class AugmentConfig:
  """What is varied at random, and how far. Zero or False turns a part off.

  Attributes:
    flips_and_rot90: the eight combinations of flips and rotations by 90 degrees, each as
      likely; of stacks and cubes the order of slices is reversed too.
    flip_left_right: left-right flips alone (`flips_and_rot90` has them already).
    rotate_degrees: rotation by up to this angle, either way.
    shift_px: shift by up to this many pixels on each axis.
    scale: zoom by a factor between 1 / (1 + scale) and 1 + scale.
    aspect: stretch of one axis against the other, by a factor within 1 +- aspect.
    contrast_brightness: contrast by a factor within 1 +- this about air, and a shift by
      as much of half the HU window, either way.
    blur_px: Gaussian blur with a sigma of up to this.
    sharpness: share of a 3x3 blur mixed in, within +- this; a negative share sharpens.
    noise_hu: Gaussian noise with a sigma of up to this.
  """

  flips_and_rot90: bool = False
  flip_left_right: bool = False
  rotate_degrees: float = 0.0
  shift_px: float = 0.0
  scale: float = 0.0
  aspect: float = 0.0
  contrast_brightness: float = 0.0
  blur_px: float = 0.0
  sharpness: float = 0.0
  noise_hu: float = 0.0

  def __post_init__(self) -> None:
    for field in dataclasses.fields(self):
      value = getattr(self, field.name)
      if not math.isfinite(value) or value < 0:
        raise ValueError(f'{field.name} must be 0 or more. Received: {value}')
    for name in ('scale', 'aspect', 'contrast_brightness', 'sharpness'):
      if getattr(self, name) >= 1:
        raise ValueError(f'{name} must be less than 1. Received: {getattr(self, name)}')
    if self.rotate_degrees > 180:
      raise ValueError(
        f'rotate_degrees must be at most 180. Received: {self.rotate_degrees}'
      )

  @property
  def interpolates(self) -> bool:
    """Whether pixels have to be interpolated."""
    return bool(self.rotate_degrees or self.shift_px or self.scale or self.aspect)

  @property
  def undistorted(self) -> AugmentConfig:
    """The flips and rotations by 90 degrees alone, which change no value of a pixel."""
    return AugmentConfig(self.flips_and_rot90, self.flip_left_right)


AUGMENTATIONS = {
  'none': AugmentConfig(),
  'flips_and_rot90': AugmentConfig(flips_and_rot90=True),
  'standard': AugmentConfig(
    flips_and_rot90=True,
    rotate_degrees=45,
    shift_px=4,
    scale=0.2,
    aspect=0.05,
    contrast_brightness=0.12,
    sharpness=0.5,
    noise_hu=42,
  ),
  # The article's: a left-right flip, rotation within 25 degrees, blur.
  'article': AugmentConfig(flip_left_right=True, rotate_degrees=25, blur_px=3.0),
  # With its copies of the nodules, rotated by 90 and 180 degrees beforehand.
  'article_rot90': AugmentConfig(flips_and_rot90=True, rotate_degrees=25, blur_px=3.0),
}


@dataclasses.dataclass(frozen=True)
class InputConfig:
  """How training batches are made.

  Attributes:
    batch_size: records of a batch.
    balance: 'rejection' keeps each record with the probability of its class; 'streams'
      draws the classes from streams of their own; 'none' leaves the classes as they
      are; 'auto' takes rejection unless it would read too much for what it keeps.
    positive_fraction: fraction of nodules in the balanced stream.
    augment: what is varied.
    seed: seed of the order, of the rejection and of the augmentation.
    memory_budget_mb: for records held in memory. A split that fits is held whole; else
      shuffle buffer, blocks, readers and prefetched batches follow from it.
    drop_excluded: whether candidates that hit an excluded finding are left out.
    hard_negatives: predictions.csv of an earlier evaluation; the non-nodules with the
      highest probabilities there are drawn more often, see
      `hard_negatives.read_hard_negatives`. '' for none.
    hard_negative_factor: how many times as often as another non-nodule.
  """

  batch_size: int
  balance: str = 'auto'
  positive_fraction: float = 0.5
  augment: AugmentConfig = AUGMENTATIONS['none']
  seed: int = 0
  memory_budget_mb: int = 256
  drop_excluded: bool = False
  hard_negatives: str = ''
  hard_negative_factor: float = 4.0

  def __post_init__(self) -> None:
    _check_at_least('batch_size', self.batch_size, 1)
    _check_choice('balance', self.balance, BALANCES)
    if not 0 < self.positive_fraction < 1:
      raise ValueError(
        'positive_fraction must lie between 0 and 1. Received: '
        f'{self.positive_fraction}'
      )
    # NumPy's limit.
    if not 0 <= self.seed < 2**32:
      raise ValueError(f'seed must lie in 0..2**32 - 1. Received: {self.seed}')
    _check_at_least('memory_budget_mb', self.memory_budget_mb, 1)
    if not 1 <= self.hard_negative_factor < math.inf:
      raise ValueError(
        f'hard_negative_factor must be 1 or more. Received: {self.hard_negative_factor}'
      )


@dataclasses.dataclass(frozen=True)
class Recipe:
  """Default hyperparameters of a network.

  Attributes:
    optimizer: 'adam' or 'adamw'.
    learning_rate: the highest of the schedule.
    schedule: 'constant', or 'cosine': after a linear warm-up over a twentieth of the
      steps it falls to 0.
    weight_decay: weight decay of AdamW, 0 or more.
    ema: momentum of the exponential moving average of the weights, which is evaluated
      and saved; 0 for none.
    augment: name in `AUGMENTATIONS`.
    epochs: how many.
    steps_per_epoch: batches of an epoch; 0 takes one balanced pass over the split.
    undistorted_share: share of the epochs, at the end, in which images are only flipped
      and rotated by 90 degrees, as far as the augmentation does that; so training ends
      on images like those that are scored.
  """

  optimizer: str = 'adam'
  learning_rate: float = 1e-3
  schedule: str = 'constant'
  weight_decay: float = 0.0
  ema: float = 0.0
  augment: str = 'article_rot90'
  epochs: int = 30
  steps_per_epoch: int = 0
  undistorted_share: float = 0.0

  def __post_init__(self) -> None:
    _check_choice('optimizer', self.optimizer, OPTIMIZERS)
    _check_choice('schedule', self.schedule, SCHEDULES)
    _check_choice('augment', self.augment, tuple(AUGMENTATIONS))
    if not 0 < self.learning_rate < math.inf:
      raise ValueError(
        f'learning_rate must be positive and finite. Received: {self.learning_rate}'
      )
    if not 0 <= self.weight_decay < math.inf:
      raise ValueError(f'weight_decay must be 0 or more. Received: {self.weight_decay}')
    if not 0 <= self.ema < 1:
      raise ValueError(f'ema must lie in 0..1, less than 1. Received: {self.ema}')
    _check_at_least('epochs', self.epochs, 1)
    _check_at_least('steps_per_epoch', self.steps_per_epoch, 0)
    if not 0 <= self.undistorted_share <= 1:
      raise ValueError(
        f'undistorted_share must lie in 0..1. Received: {self.undistorted_share}'
      )

  @property
  def undistorted_from_epoch(self) -> int:
    """The first epoch, from 0, of those of `undistorted_share`."""
    return self.epochs - round(self.epochs * self.undistorted_share)


TRAINING_RECIPES = {
  'article_cnn': Recipe(),
  'nodule_net': Recipe(
    optimizer='adamw',
    learning_rate=2e-3,
    schedule='cosine',
    weight_decay=0.05,
    ema=0.995,
    augment='standard',
    epochs=22,
    steps_per_epoch=200,
    undistorted_share=0.15,
  ),
}

# Records of a batch: the article's number, and the one that fits the recipe above.
BATCH_SIZES = {'article_cnn': 96, 'nodule_net': 64}

DEFAULT_MODEL = 'nodule_net'


@dataclasses.dataclass(frozen=True)
class TrainConfig:
  """A training run.

  Attributes:
    dataset: `luna16_patches/<config>`, or the folder of an extracted version.
    data_dir: TFDS data folder.
    model: name of the network.
    recipe: optimizer and schedule.
    input: how batches are made.
    train_split: TFDS split string to train on.
    validation_split: the split that chooses the best epoch and the threshold; '' for none.
    threshold: rule that chooses the threshold on the validation split.
    tta: whether probabilities are means over the eight flips and rotations by 90
      degrees (test-time augmentation).
    deployed_prior: prevalence of nodules where probabilities are used; 0 takes that of
      the training split without excluded findings.
    calibration: how logits become probabilities, see `scoring.calibration`; 'auto' takes
      'platt' with hard negatives, else 'prior_shift'.
    patience: epochs without a better PR AUC on validation before it stops; 0 never.
    precision: Keras dtype policy, or 'auto': mixed_bfloat16 where this machine has
      matrix units for it, else float32.
    strategy: 'none', or a `tf.distribute` strategy: 'mirrored' over the GPUs of this
      machine; 'multiworker' is refused with the reason.
    jit_compile: whether XLA compiles the step.
    deterministic: whether ops and the number of threads are chosen so that a rerun is
      equal bit by bit, on any number of cores.
  """

  dataset: str
  data_dir: str
  model: str
  recipe: Recipe
  input: InputConfig
  train_split: str = 'train'
  validation_split: str = 'validation'
  threshold: str = 'max_f1'
  tta: bool = False
  deployed_prior: float = 0.0
  calibration: str = 'auto'
  patience: int = 0
  precision: str = 'auto'
  strategy: str = 'none'
  jit_compile: bool = False
  deterministic: bool = False

  def __post_init__(self) -> None:
    _check_choice('model', self.model, model_names.MODELS)
    _check_choice('precision', self.precision, PRECISIONS)
    _check_choice('strategy', self.strategy, STRATEGIES)
    _check_choice('calibration', self.calibration, CALIBRATIONS)
    if self.calibration in ('temperature', 'platt') and not self.validation_split:
      raise ValueError(
        f'calibration={self.calibration} is fitted on the validation split; give a '
        'validation_split'
      )
    _check_at_least('patience', self.patience, 0)
    if not 0 <= self.deployed_prior < 1:
      raise ValueError(
        f'deployed_prior must lie in 0..1, less than 1. Received: {self.deployed_prior}'
      )
    ThresholdRule.parse(self.threshold)

  def to_json(self) -> dict[str, Any]:
    """Returns plain values, nested as the fields are."""
    return dataclasses.asdict(self)

  @classmethod
  def from_json(cls, fields: Mapping[str, Any]) -> TrainConfig:
    """Inverse of `to_json`; takes the names of release 1.0.0 too.

    Raises:
      KeyError, TypeError, ValueError: another version of the project wrote the fields.
    """
    recipe, inputs = dict(fields['recipe']), dict(fields['input'])
    recipe['augment'] = RENAMED_AUGMENTATIONS.get(recipe['augment'], recipe['augment'])
    augment = dict(inputs['augment']).items()
    inputs['augment'] = dataclass_json.make(
      AugmentConfig, {_RENAMED_AUGMENT_FIELDS.get(k, k): v for k, v in augment}
    )
    return dataclass_json.make(
      cls,
      {
        **fields,
        'recipe': dataclass_json.make(Recipe, recipe),
        'input': dataclass_json.make(InputConfig, inputs),
      },
    )


def load(path: pathlib.Path) -> TrainConfig:
  """Reads the config a run wrote to its workdir.

  Raises:
    UsageError: the file is damaged, or another version of the project wrote it.
  """
  try:
    fields = atomic_files.read_json(path)
  except ValueError as error:
    raise UsageError(
      f'{path}: cannot be read: {error_text(error)}; restore the file, or train again in '
      'another --workdir'
    ) from error
  try:
    return TrainConfig.from_json(fields['config'])
  except (AttributeError, KeyError, TypeError, ValueError) as error:
    raise UsageError(
      f'{path}: was written by another version of this project ({error_text(error)}); train '
      'again in another --workdir'
    ) from error
