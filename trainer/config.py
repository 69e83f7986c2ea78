"""Everything that decides a training run, in one frozen dataclass, checked once."""

from __future__ import annotations

import dataclasses
import json
import pathlib
from typing import Any

from model import metrics
from model import registry

OPTIMIZERS = ('adam', 'adamw')
SCHEDULES = ('constant', 'cosine')
PRECISIONS = ('float32', 'mixed_bfloat16', 'mixed_float16')


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
  """

  optimizer: str = 'adam'
  learning_rate: float = 1e-3
  schedule: str = 'constant'
  weight_decay: float = 0.0
  ema: float = 0.0
  augment: str = 'article_turned'

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


RECIPES = {
  'article_cnn': Recipe(),
  'nodule_net': Recipe(
    optimizer='adamw',
    learning_rate=2e-3,
    schedule='cosine',
    weight_decay=1e-2,
    ema=0.995,
    augment='standard',
  ),
}


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
    epochs: passes; see `steps_per_epoch`.
    steps_per_epoch: batches of an epoch; 0 takes one balanced pass over the split.
    threshold: rule that chooses the threshold on the validation split.
    tta: whether probabilities are means over the eight quarter turns and mirrors.
    deployed_prior: share of nodules where probabilities are used; 0 takes that of the
      training split.
    patience: epochs without a better PR AUC on validation before it stops; 0 never.
    precision: Keras dtype policy.
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
  epochs: int = 30
  steps_per_epoch: int = 0
  threshold: str = 'max_f1'
  tta: bool = False
  deployed_prior: float = 0.0
  patience: int = 0
  precision: str = 'float32'
  jit_compile: bool = False
  deterministic: bool = False

  def __post_init__(self):
    _one_of('model', self.model, registry.MODELS)
    _one_of('precision', self.precision, PRECISIONS)
    if self.epochs < 1:
      raise ValueError(f'epochs must be at least 1. Received: {self.epochs}')
    if self.steps_per_epoch < 0 or self.patience < 0:
      raise ValueError('steps_per_epoch and patience must be 0 or more')
    if not 0 <= self.deployed_prior < 1:
      raise ValueError(
        f'deployed_prior must lie in 0..1, less than 1. Received: {self.deployed_prior}'
      )
    metrics.parse_threshold_rule(self.threshold)

  def to_json(self) -> dict[str, Any]:
    """Plain values, nested as the fields are."""
    return dataclasses.asdict(self)


def load(path: pathlib.Path) -> TrainConfig:
  """Reads the config a run wrote to its workdir."""
  from trainer import augment
  from trainer import input_pipeline

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
