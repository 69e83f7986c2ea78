"""Trains a network on an extracted dataset.

    luna16-train --dataset=luna16_patches/axial_50px --workdir=/tmp/run --model=nodule_net

Run again with the same flags it goes on where it stopped. The workdir gets config.json,
history.csv, checkpoints/, TensorBoard logs, and model.keras, which takes raw HU.
"""

from __future__ import annotations

from collections.abc import Sequence
import dataclasses
import pathlib
import sys
from typing import Any

from absl import flags

from luna_tfds import cli
from luna_tfds.errors import UsageError

FLAGS = cli.new_flags()

_DATA_DIR = flags.DEFINE_string(
  'data_dir', '~/tensorflow_datasets', 'TFDS data folder.', flag_values=FLAGS
)
_DATASET = flags.DEFINE_string(
  'dataset',
  'luna16_patches/axial_50px',
  'luna16_patches/<config>, or the folder of an extracted version.',
  flag_values=FLAGS,
)
_WORKDIR = flags.DEFINE_string('workdir', None, 'Folder of the run.', flag_values=FLAGS)
_MODEL = flags.DEFINE_string(
  'model', 'nodule_net', 'article_cnn or nodule_net.', flag_values=FLAGS
)
_BALANCE = flags.DEFINE_string(
  'balance',
  None,
  'rejection, streams, none, or auto: rejection unless it would read too much.',
  flag_values=FLAGS,
)
_POSITIVE_FRACTION = flags.DEFINE_float(
  'positive_fraction',
  None,
  'Share of nodules in the balanced stream.',
  flag_values=FLAGS,
)
_AUGMENT = flags.DEFINE_string(
  'augment',
  None,
  'none, turns, standard, article or article_turned; default: as the model likes it.',
  flag_values=FLAGS,
)
_AUGMENT_PARTS = {
  name: flags.DEFINE_float(f'augment_{name}', None, text, flag_values=FLAGS)
  for name, text in {
    'rotate_degrees': 'Free rotation up to this angle; 0 for none.',
    'shift_px': 'Shift up to so many pixels.',
    'scale': 'Zoom within 1 +- this.',
    'intensity': 'Contrast within 1 +- this, and brightness likewise.',
    'aspect': 'Stretch of one axis against the other, within 1 +- this.',
    'soften': 'Share of a 3x3 blur mixed in, either sign.',
    'blur_px': 'Gaussian blur of a sigma up to this.',
    'noise_hu': 'Gaussian noise of a sigma up to this.',
  }.items()
}
_AUGMENT_SWITCHES = {
  name: flags.DEFINE_boolean(f'augment_{name}', None, text, flag_values=FLAGS)
  for name, text in {
    'turns': 'The eight quarter turns and mirrors.',
    'mirror': 'Left-right flips.',
  }.items()
}
_EPOCHS = flags.DEFINE_integer('epochs', None, 'Epochs.', flag_values=FLAGS)
_STEPS = flags.DEFINE_integer(
  'steps_per_epoch',
  None,
  'Batches of an epoch; 0 takes one balanced pass over the split.',
  flag_values=FLAGS,
)
_BATCH_SIZE = flags.DEFINE_integer('batch_size', None, 'Batch size.', flag_values=FLAGS)
_SEED = flags.DEFINE_integer('seed', None, 'Seed of everything.', flag_values=FLAGS)
_MEMORY_BUDGET_MB = flags.DEFINE_integer(
  'memory_budget_mb', None, 'Memory for records held by the input.', flag_values=FLAGS
)
_DROP_EXCLUDED = flags.DEFINE_boolean(
  'drop_excluded',
  None,
  'Leave candidates that hit an excluded finding out of training.',
  flag_values=FLAGS,
)
_HARD_NEGATIVES = flags.DEFINE_string(
  'hard_negatives',
  None,
  'predictions.csv of an earlier evaluation of the training split; the non-nodules it '
  'was worst at come more often.',
  flag_values=FLAGS,
)
_HARD_NEGATIVE_FACTOR = flags.DEFINE_float(
  'hard_negative_factor', None, 'How many times as often.', flag_values=FLAGS
)
_OPTIMIZER = flags.DEFINE_string('optimizer', None, 'adam or adamw.', flag_values=FLAGS)
_LEARNING_RATE = flags.DEFINE_float(
  'learning_rate', None, 'At its highest.', flag_values=FLAGS
)
_SCHEDULE = flags.DEFINE_string(
  'schedule', None, 'constant or cosine.', flag_values=FLAGS
)
_WEIGHT_DECAY = flags.DEFINE_float('weight_decay', None, 'Of AdamW.', flag_values=FLAGS)
_EMA = flags.DEFINE_float(
  'ema', None, 'Momentum of the weight average; 0 for none.', flag_values=FLAGS
)
_TRAIN_SPLIT = flags.DEFINE_string(
  'train_split', None, 'TFDS split string to train on.', flag_values=FLAGS
)
_VALIDATION_SPLIT = flags.DEFINE_string(
  'validation_split',
  None,
  "To choose the best epoch and the threshold on; '' for none.",
  flag_values=FLAGS,
)
_THRESHOLD = flags.DEFINE_string(
  'threshold',
  None,
  'max_f1, precision:P, recall:R, specificity:S or a number.',
  flag_values=FLAGS,
)
_TTA = flags.DEFINE_boolean(
  'tta', None, 'Score means over the eight turns and mirrors.', flag_values=FLAGS
)
_DEPLOYED_PRIOR = flags.DEFINE_float(
  'deployed_prior',
  None,
  'Share of nodules where the probabilities are used; 0: as in the training split.',
  flag_values=FLAGS,
)
_PATIENCE = flags.DEFINE_integer(
  'patience', None, 'Epochs without a better PR AUC before it stops.', flag_values=FLAGS
)
_PRECISION = flags.DEFINE_string(
  'precision',
  None,
  'auto, float32, mixed_bfloat16 or mixed_float16.',
  flag_values=FLAGS,
)
_STRATEGY = flags.DEFINE_string(
  'strategy', None, 'none, mirrored or multiworker.', flag_values=FLAGS
)
_JIT = flags.DEFINE_boolean('jit_compile', None, 'Compile with XLA.', flag_values=FLAGS)
_DETERMINISTIC = flags.DEFINE_boolean(
  'deterministic', None, 'Make a rerun equal bit by bit; slower.', flag_values=FLAGS
)


def main(unused: list[str]) -> None:
  """Flags -> config -> train."""
  del unused
  workdir = pathlib.Path(cli.required(_WORKDIR)).expanduser()
  cli.load_tensorflow()
  config = config_from_flags()
  result = train(config, workdir)
  print(result, file=sys.stderr)


def run(argv: Sequence[str] | None = None) -> int:
  """Runs the command; returns its exit code."""
  return cli.run('luna16-train', __doc__, main, FLAGS, argv)


def config_from_flags() -> Any:
  """Builds the config; a flag that was not given leaves the default.

  Raises:
    UsageError: a flag is out of range.
  """
  from model import registry

  if _MODEL.value not in registry.MODELS:
    raise UsageError(
      f'--model={_MODEL.value}: no such model; there are {", ".join(registry.MODELS)}'
    )
  from trainer import config as config_lib

  recipe = cli.checked(
    dataclasses.replace,
    config_lib.RECIPES[_MODEL.value],
    **_given(
      _OPTIMIZER, _LEARNING_RATE, _SCHEDULE, _WEIGHT_DECAY, _EMA, _EPOCHS, _STEPS
    ),
    **({'augment': _AUGMENT.value} if _AUGMENT.value is not None else {}),
  )
  return cli.checked(
    config_lib.TrainConfig,
    dataset=_DATASET.value,
    data_dir=str(pathlib.Path(_DATA_DIR.value).expanduser()),
    model=_MODEL.value,
    recipe=recipe,
    input=_input_config(recipe.augment, config_lib.BATCH_SIZES[_MODEL.value]),
    **_given(
      _TRAIN_SPLIT,
      _VALIDATION_SPLIT,
      _THRESHOLD,
      _TTA,
      _DEPLOYED_PRIOR,
      _PATIENCE,
      _PRECISION,
      _STRATEGY,
      _JIT,
      _DETERMINISTIC,
    ),
  )


def _input_config(augment_recipe: str, batch_size: int) -> Any:
  from trainer import augment
  from trainer import input_pipeline

  if augment_recipe not in augment.RECIPES:
    raise UsageError(
      f'--augment={augment_recipe}: no such recipe; there are '
      f'{", ".join(augment.RECIPES)}'
    )
  parts = {
    name: holder.value
    for name, holder in {**_AUGMENT_PARTS, **_AUGMENT_SWITCHES}.items()
    if holder.value is not None
  }
  varied = cli.checked(dataclasses.replace, augment.RECIPES[augment_recipe], **parts)
  return cli.checked(
    input_pipeline.InputConfig,
    augment=varied,
    **{'batch_size': batch_size, **_given(_BATCH_SIZE)},
    **_given(
      _BALANCE,
      _POSITIVE_FRACTION,
      _SEED,
      _MEMORY_BUDGET_MB,
      _DROP_EXCLUDED,
      _HARD_NEGATIVES,
      _HARD_NEGATIVE_FACTOR,
    ),
  )


def _given(*holders: flags.FlagHolder) -> dict[str, Any]:
  return {h.name: h.value for h in holders if h.value is not None}


def train(config: Any, path: pathlib.Path) -> str:
  """Trains a network, or goes on with it, and delivers model.keras.

  Args:
    config: a `config.TrainConfig`.
    path: folder of the run.

  Returns:
    What to tell the user.

  Raises:
    UsageError: the dataset is missing, or the folder holds another run.
  """
  from trainer import audit
  from trainer import fitting
  from trainer import sources
  from trainer import workdir as workdir_lib

  builder = sources.open_builder(config.data_dir, config.dataset)
  audit.check_metadata(builder)
  source = sources.open_source(builder, config.train_split)
  validation = None
  if config.validation_split and config.validation_split in _splits(builder, config):
    validation = sources.open_source(builder, config.validation_split)
  workdir = workdir_lib.Workdir(path)
  workdir.prepare(config, source.fingerprint, sources.metadata(builder).get('patch'))
  epochs = fitting.fit(config, source, validation, workdir)
  point = fitting.deliver(config, source, validation, workdir)
  return (
    f'{config.model}: {epochs} epochs, threshold {point["threshold"]:.4g} '
    f'({point["chosen_on"]}); model: {workdir.model}'
  )


def _splits(builder: Any, config: Any) -> list[str]:
  """The split strings that may be asked for; a plain name must be there."""
  known = list(builder.info.splits)
  if config.validation_split == 'validation' and 'validation' not in known:
    print(
      f'luna16-train: {builder.info.full_name} has no validation split: the last epoch '
      'is taken, and the threshold is 0.5',
      file=sys.stderr,
    )
    return known
  return [*known, config.validation_split]


if __name__ == '__main__':
  sys.exit(run())
