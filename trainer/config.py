"""Everything that decides a training run, in one frozen dataclass, checked once."""

from __future__ import annotations

import dataclasses
import json
import pathlib
import re
from typing import Any

from luna_tfds.errors import UsageError
from model import metrics
from model import registry

OPTIMIZERS = ('adam', 'adamw')
SCHEDULES = ('constant', 'cosine')
STRATEGIES = ('none', 'mirrored', 'multiworker')
PRECISIONS = ('auto', 'float32', 'mixed_bfloat16', 'mixed_float16')


def _one_of(name: str, value: str, choices: tuple[str, ...]) -> None:
  if value not in choices:
    raise ValueError(f'{name} must be one of {", ".join(choices)}. Received: {value!r}')


@dataclasses.dataclass(frozen=True)
class Recipe:
  """How a network likes to be trained.

  Attributes:
    optimizer: 'adam' or 'adamw'.
    learning_rate: at its highest.
    schedule: 'constant', or 'cosine' down to 0 after a warm-up of a twentieth.
    weight_decay: of AdamW.
    ema: momentum of the weight average that is evaluated and saved; 0 for none.
    augment: name of the augmentation recipe.
    epochs: how many.
    steps_per_epoch: batches of an epoch; 0 takes one balanced pass over the split.
  """

  optimizer: str = 'adam'
  learning_rate: float = 1e-3
  schedule: str = 'constant'
  weight_decay: float = 0.0
  ema: float = 0.0
  augment: str = 'article_turned'
  epochs: int = 30
  steps_per_epoch: int = 0

  def __post_init__(self):
    _one_of('optimizer', self.optimizer, OPTIMIZERS)
    _one_of('schedule', self.schedule, SCHEDULES)
    if not self.learning_rate > 0:
      raise ValueError(
        f'learning_rate must be positive. Received: {self.learning_rate}'
      )
    if not self.weight_decay >= 0:
      raise ValueError(f'weight_decay must be 0 or more. Received: {self.weight_decay}')
    if not 0 <= self.ema < 1:
      raise ValueError(f'ema must lie in 0..1, less than 1. Received: {self.ema}')
    if self.epochs < 1:
      raise ValueError(f'epochs must be at least 1. Received: {self.epochs}')
    if self.steps_per_epoch < 0:
      raise ValueError(
        f'steps_per_epoch must be 0 or more. Received: {self.steps_per_epoch}'
      )


RECIPES = {
  'article_cnn': Recipe(),
  'nodule_net': Recipe(
    optimizer='adamw',
    learning_rate=2e-3,
    schedule='cosine',
    weight_decay=0.05,
    ema=0.995,
    augment='standard',
    epochs=30,
    steps_per_epoch=200,
  ),
}


# The article's, and what suits the recipe above.
BATCH_SIZES = {'article_cnn': 96, 'nodule_net': 128}


@dataclasses.dataclass(frozen=True)
class TrainConfig:
  """A training run.

  Attributes:
    dataset: `luna16_patches/<config>`, or the folder of an extracted version.
    data_dir: TFDS data folder.
    model: name of the network.
    recipe: optimiser and schedule.
    input: how batches are made, an `input_pipeline.InputConfig`.
    train_split: TFDS split string to train on.
    validation_split: to choose the best epoch and the threshold on; '' for none.
    threshold: rule that chooses the threshold on the validation split.
    tta: whether probabilities are means over the eight quarter turns and mirrors.
    deployed_prior: share of nodules where probabilities are used; 0 takes that of the
      training split.
    patience: epochs without a better PR AUC on validation before it stops; 0 never.
    precision: Keras dtype policy, or 'auto': mixed_bfloat16 where this machine computes
      in it, else float32.
    strategy: 'none', or a `tf.distribute` strategy: 'mirrored' over the GPUs of this
      machine; 'multiworker' is refused with the reason.
    jit_compile: whether XLA compiles the step.
    deterministic: whether ops are chosen so that a rerun is equal bit by bit.
  """

  dataset: str
  data_dir: str
  model: str
  recipe: Recipe
  input: Any
  train_split: str = 'train'
  validation_split: str = 'validation'
  threshold: str = 'max_f1'
  tta: bool = False
  deployed_prior: float = 0.0
  patience: int = 0
  precision: str = 'auto'
  strategy: str = 'none'
  jit_compile: bool = False
  deterministic: bool = False

  def __post_init__(self):
    _one_of('model', self.model, registry.MODELS)
    _one_of('precision', self.precision, PRECISIONS)
    _one_of('strategy', self.strategy, STRATEGIES)
    if self.patience < 0:
      raise ValueError(f'patience must be 0 or more. Received: {self.patience}')
    if not 0 <= self.deployed_prior < 1:
      raise ValueError(
        f'deployed_prior must lie in 0..1, less than 1. Received: {self.deployed_prior}'
      )
    metrics.parse_threshold_rule(self.threshold)

  def to_json(self) -> dict[str, Any]:
    """Plain values, nested as the fields are."""
    return dataclasses.asdict(self)


def resolve_precision(precision: str) -> str:
  """Returns a Keras dtype policy for 'auto'; any other name as it is.

  bfloat16 doubles the speed of convolutions on CPUs that compute in it, and on GPUs of
  compute capability 8 and above; on others it is emulated, and slow.
  """
  if precision != 'auto':
    return precision
  import tensorflow as tf

  gpus = tf.config.list_physical_devices('GPU')
  if gpus:
    capability = tf.config.experimental.get_device_details(gpus[0]).get(
      'compute_capability', (0, 0)
    )
    return 'mixed_bfloat16' if capability >= (8, 0) else 'float32'
  cpuinfo = pathlib.Path('/proc/cpuinfo')
  flags = cpuinfo.read_text() if cpuinfo.exists() else ''
  return 'mixed_bfloat16' if re.search(r'avx512_bf16|amx_bf16', flags) else 'float32'


def load(path: pathlib.Path) -> TrainConfig:
  """Reads the config a run wrote to its workdir.

  Raises:
    UsageError: another version of the project wrote it.
  """
  from trainer import augment
  from trainer import input_pipeline

  try:
    fields = json.loads(path.read_text())['config']
    inputs = dict(fields['input'])
    inputs['augment'] = augment.AugmentConfig(**inputs['augment'])
    return TrainConfig(
      **{
        **fields,
        'recipe': Recipe(**fields['recipe']),
        'input': input_pipeline.InputConfig(**inputs),
      }
    )
  except (KeyError, TypeError, ValueError) as error:
    raise UsageError(
      f'{path}: was written by another version of this project ({error}); train again'
    ) from error
