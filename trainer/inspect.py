"""Looks into an extracted dataset: what is in it, how it would be balanced, how fast.

    luna16-inspect --dataset=luna16_patches/axial_50px --split=train
    luna16-inspect --split=train --augment=standard --output_dir=/tmp/look
    luna16-inspect --audit --patients=patients.csv

Prints the counts per class, subset and spacing, the balance that training would choose
and its rate; with --output_dir writes examples.png, each example before and after
augmentation. --audit reads every record of every split and proves that no scan, nodule
or patient lies in two splits, that no record is stored twice, and that all counts are
those of the metadata; it fails otherwise.
"""

from __future__ import annotations

from collections.abc import Sequence
import dataclasses
import pathlib
import sys
import time
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
_SPLIT = flags.DEFINE_string(
  'split', 'train', 'TFDS split string to look into.', flag_values=FLAGS
)
_BALANCE = flags.DEFINE_string(
  'balance', None, 'rejection, streams, none or auto.', flag_values=FLAGS
)
_POSITIVE_FRACTION = flags.DEFINE_float(
  'positive_fraction',
  None,
  'Share of nodules in the balanced stream.',
  flag_values=FLAGS,
)
_BATCH_SIZE = flags.DEFINE_integer('batch_size', None, 'Batch size.', flag_values=FLAGS)
_MEMORY_BUDGET_MB = flags.DEFINE_integer(
  'memory_budget_mb', None, 'Memory for records held by the input.', flag_values=FLAGS
)
_SEED = flags.DEFINE_integer('seed', None, 'Seed of the stream.', flag_values=FLAGS)
_AUGMENT = flags.DEFINE_string(
  'augment',
  'standard',
  'none, turns, standard, article or article_turned.',
  flag_values=FLAGS,
)
_OUTPUT_DIR = flags.DEFINE_string(
  'output_dir',
  None,
  'Where examples.png is written; none without it.',
  flag_values=FLAGS,
)
_SECS = flags.DEFINE_float(
  'secs', 2.0, 'How long the rate is measured; 0 leaves it out.', flag_values=FLAGS
)
_AUDIT = flags.DEFINE_boolean(
  'audit', False, 'Check all splits, record by record.', flag_values=FLAGS
)
_PATIENTS = flags.DEFINE_string(
  'patients',
  None,
  'CSV with the columns seriesuid and patient, for --audit.',
  flag_values=FLAGS,
)

_EXAMPLES = 12


def main(unused: list[str]) -> None:
  """Flags -> tables, picture, audit."""
  del unused
  if _PATIENTS.value and not _AUDIT.value:
    raise UsageError('--patients is for --audit; give both')
  if not _SECS.value >= 0:
    raise UsageError(f'--secs must be 0 or more. Received: {_SECS.value}')
  cli.load_tensorflow()
  from trainer import audit
  from trainer import augment
  from trainer import input_pipeline
  from trainer import sources

  if _AUGMENT.value not in augment.RECIPES:
    raise UsageError(
      f'--augment={_AUGMENT.value}: no such recipe; there are '
      f'{", ".join(augment.RECIPES)}'
    )
  holders = (_BALANCE, _POSITIVE_FRACTION, _BATCH_SIZE, _MEMORY_BUDGET_MB, _SEED)
  config = cli.checked(
    input_pipeline.InputConfig,
    augment=augment.RECIPES[_AUGMENT.value],
    **{h.name: h.value for h in holders if h.value is not None},
  )
  builder = sources.open_builder(_DATA_DIR.value, _DATASET.value)
  if _AUDIT.value:
    print(audit.audit(builder, _PATIENTS.value))
    return
  source = sources.open_source(builder, _SPLIT.value)
  print(describe(source))
  print(cli.checked(input_pipeline.plan_balance, source, config))
  if _SECS.value:
    print(measure(source, config, _SECS.value))
  if _OUTPUT_DIR.value:
    path = pathlib.Path(_OUTPUT_DIR.value).expanduser() / 'examples.png'
    draw_examples(source, config, path)
    print(f'examples: {path}')


def run(argv: Sequence[str] | None = None) -> int:
  """Runs the command; returns its exit code."""
  return cli.run('luna16-inspect', __doc__, main, FLAGS, argv)


def describe(source: Any) -> str:
  """Counts the records of a source per class, subset and spacing, by reading them.

  Returns:
    Lines of text.
  """
  import numpy as np

  from trainer import input_pipeline

  names = ('label', 'subset', 'spacing_xyz_mm', 'excluded')
  batches = list(input_pipeline.evaluation_batches(source, names=names))
  of = {name: np.concatenate([b[name] for b in batches]) for name in names}
  lines = [
    f'{source.split}: {source.num_records} records {source.image_shape}, '
    f'{source.label_counts[1]} nodules ({source.prior:.2%}), '
    f'{int(of["excluded"].sum())} excluded, {source.num_bytes / 2**20:.0f} MB in '
    f'{len(source.pieces)} files'
  ]
  pixel, slice_ = of['spacing_xyz_mm'][:, 0], of['spacing_xyz_mm'][:, 2]
  groups = {'subset': [(str(s), of['subset'] == s) for s in np.unique(of['subset'])]}
  for name, spacing in (('pixel mm', pixel), ('slice mm', slice_)):
    groups[name] = [
      (f'{low:.2f}-{high:.2f}', (low <= spacing) & (spacing < high))
      for low, high in _ranges(spacing)
    ]
    unknown = np.isnan(spacing)
    if unknown.any():
      groups[name].append(('unknown', unknown))
  for name, rows in groups.items():
    lines.append(f'  {name:<12}{"non-nodules":>12}{"nodules":>9}')
    for text, members in rows:
      counts = np.bincount(of['label'][members], minlength=2)
      lines.append(f'  {text:<12}{counts[0]:>12}{counts[1]:>9}')
  return '\n'.join(lines)


def measure(source: Any, config: Any, secs: float) -> str:
  """Draws batches for some seconds and tells the rate."""
  from trainer import input_pipeline

  batches = iter(input_pipeline.train_batches(source, config, announce=False))
  next(batches)
  count, start = 0, time.perf_counter()
  while time.perf_counter() - start < secs:
    next(batches)
    count += config.batch_size
  rate = count / (time.perf_counter() - start)
  return f'input: {rate:,.0f} records/s delivered, balanced and augmented'


def draw_examples(source: Any, config: Any, path: pathlib.Path) -> None:
  """Writes a sheet: examples of a balanced batch above, the same augmented below."""
  import numpy as np

  from trainer import augment
  from trainer import input_pipeline
  from trainer import plots

  plain = dataclasses.replace(config, augment=augment.RECIPES['none'])
  # The same seed draws the same records.
  pairs = [
    next(iter(input_pipeline.train_batches(source, each, announce=False)))
    for each in (plain, config)
  ]
  count = min(_EXAMPLES, config.batch_size)
  columns = min(6, count)
  images, captions = [], []
  for first in range(0, count, columns):
    for which, (image, label) in zip(('as stored', 'augmented'), pairs):
      for k in range(first, min(first + columns, count)):
        images.append(image[k].numpy().astype(np.float32))
        captions.append(f'{"nodule" if label[k] else "non-nodule"}, {which}')
  plots.save(plots.mosaic(np.stack(images), captions, columns), path)


def _ranges(spacing: Any) -> list[tuple[float, float]]:
  """Cuts spacings in mm into at most five ranges of equal width."""
  import numpy as np

  known = spacing[np.isfinite(spacing)]
  if not known.size:
    return []
  low, high = float(known.min()), float(known.max())
  if high - low < 0.01:
    return [(low, np.nextafter(np.float32(high), np.float32(np.inf)))]
  edges = np.linspace(low, high, 6)
  edges[-1] = np.nextafter(np.float32(high), np.float32(np.inf))
  return list(zip(edges[:-1].tolist(), edges[1:].tolist()))


if __name__ == '__main__':
  sys.exit(run())
