"""What a split holds, and how fast training reads it; for `luna16-inspect`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
import dataclasses
import time

import numpy as np

from luna_tfds.text_format import count_text
from trainer import config as config_lib
from trainer.data import input_pipeline
from trainer.data.balance import Balance
from trainer.data.split_source import SplitSource

_FEATURES = ('label', 'subset', 'spacing_xyz_mm', 'excluded')
_MAX_SPACING_RANGES = 5
# Spacings that differ by less are shown as one range.
_SPACING_RESOLUTION_MM = 0.01


@dataclasses.dataclass(frozen=True)
class Examples:
  """Records of a training batch before and after augmentation.

  Attributes:
    stored: [n, *image_shape] HU, as stored.
    augmented: the same after augmentation.
    labels: [n], 1 for nodules.
  """

  stored: np.ndarray
  augmented: np.ndarray
  labels: np.ndarray


def describe(source: SplitSource) -> str:
  """Counts the records of a split by class, subset and spacing, by reading them.

  Returns:
    Lines of text.
  """
  batches = list(input_pipeline.evaluation_batches(source, names=_FEATURES))
  columns = {name: np.concatenate([b[name] for b in batches]) for name in _FEATURES}
  lines = [
    f'{source.split}: {count_text(source.num_records, "record")} '
    f'{source.image_shape}, {count_text(source.label_counts[1], "nodule candidate")} '
    f'({source.nodule_fraction:.2%}), {int(columns["excluded"].sum())} excluded, '
    f'{source.num_bytes / 2**20:.0f} MB in {count_text(len(source.slices), "file")}'
  ]
  for title, groups in _groups(columns):
    lines.append(f'  {title:<12}{"negative":>12}{"positive":>9}')
    for name, members in groups.items():
      counts = np.bincount(columns['label'][members], minlength=2)
      lines.append(f'  {name:<12}{counts[0]:>12}{counts[1]:>9}')
  return '\n'.join(lines)


def measure_rate(
  config: config_lib.InputConfig, balance: Balance, secs: float
) -> float:
  """Draws training batches for some seconds.

  Returns:
    Records per second, balanced and augmented.
  """
  batches = iter(input_pipeline.train_batches(config, balance))
  next(batches)
  count, start = 0, time.perf_counter()
  while time.perf_counter() - start < secs:
    next(batches)
    count += config.batch_size
  return count / (time.perf_counter() - start)


def draw_examples(
  config: config_lib.InputConfig, balance: Balance, count: int
) -> Examples:
  """Draws the first records of the first training batch, with and without augmentation.

  Args:
    config: how batches are made.
    balance: how the classes of the split are balanced; made with this config.
    count: records at most.
  """
  plain = dataclasses.replace(config, augment=config_lib.AUGMENTATIONS['none'])
  # The same seed draws the same records.
  (stored, labels), (augmented, _) = (
    next(iter(input_pipeline.train_batches(each, balance))) for each in (plain, config)
  )
  return Examples(
    stored.numpy()[:count], augmented.numpy()[:count], labels.numpy()[:count]
  )


def _groups(
  columns: Mapping[str, np.ndarray],
) -> Iterator[tuple[str, dict[str, np.ndarray]]]:
  """Yields a title, and by name which records [n] bool belong to each group."""
  subset = columns['subset']
  yield 'subset', {str(s): subset == s for s in np.unique(subset)}
  for title, axis in (('pixel mm', 0), ('slice mm', 2)):
    spacing_mm = columns['spacing_xyz_mm'][:, axis]
    groups = {
      f'{low:.2f}-{high:.2f}': (low <= spacing_mm) & (spacing_mm < high)
      for low, high in _ranges(spacing_mm)
    }
    unknown = np.isnan(spacing_mm)
    if unknown.any():
      groups['unknown'] = unknown
    yield title, groups


def _ranges(spacing_mm: np.ndarray) -> list[tuple[float, float]]:
  """Divides spacings into half-open ranges of equal width."""
  known = spacing_mm[np.isfinite(spacing_mm)]
  if not known.size:
    return []
  low, high = float(known.min()), float(known.max())
  above = float(np.nextafter(np.float32(high), np.float32(np.inf)))
  if high - low < _SPACING_RESOLUTION_MM:
    return [(low, above)]
  edges = np.linspace(low, high, _MAX_SPACING_RANGES + 1)
  edges[-1] = above
  return list(zip(edges[:-1].tolist(), edges[1:].tolist()))
