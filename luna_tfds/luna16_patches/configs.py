"""The configs of `luna16_patches`, built-in and custom."""

from __future__ import annotations

import dataclasses
from typing import Any

import tensorflow_datasets as tfds

from luna_tfds import download as download_lib
from luna_tfds import patches
from luna_tfds import splits

# The default of `negatives_per_positive`, which names do not mention.
_RATIO = 5


@dataclasses.dataclass(eq=False)
class Luna16PatchesConfig(tfds.core.BuilderConfig):
  """A variant of the dataset; name and description are derived from the other fields.

  Attributes:
    spec: shape, spacing and layout of a patch.
    candidate_list: LUNA16's list of candidates, 'V1' or 'V2'.
    negatives_per_positive: negatives kept for each positive, in each subset; None
      keeps all.
    subsets: the subsets used; None uses all that are on disk.
    seed: seed of the hashes that select negatives and order the records of a shard.
    source: 'scans', or 'article' for the article's published JPEG patches.
  """

  name: str = ''
  spec: patches.PatchSpec = dataclasses.field(default_factory=patches.PatchSpec)
  candidate_list: str = 'V1'
  negatives_per_positive: int | None = _RATIO
  subsets: tuple[int, ...] | None = None
  seed: int = 0
  source: str = 'scans'

  def __post_init__(self) -> None:
    if self.candidate_list not in download_lib.CANDIDATE_LISTS:
      raise ValueError(
        f'candidates must be one of {sorted(download_lib.CANDIDATE_LISTS)}. '
        f'Received: {self.candidate_list!r}'
      )
    ratio = self.negatives_per_positive
    if ratio is not None and ratio < 0:
      raise ValueError(f'negatives_per_positive must be 0 or more. Received: {ratio}')
    if self.subsets is not None:
      self.subsets = tuple(sorted(set(self.subsets)))
      if not self.subsets or not set(self.subsets) <= set(range(splits.NUM_SUBSETS)):
        raise ValueError(f'subsets must be in 0..9. Received: {self.subsets}')
    if not -(2**63) <= self.seed < 2**63:
      raise ValueError(f'seed must be a 64-bit integer. Received: {self.seed}')
    if self.source not in ('scans', 'article'):
      raise ValueError(f'unknown source. Received: {self.source!r}')
    self.name = self.name or _name(self)
    self.description: str = self.description or _description(self)

  def fingerprint_fields(self) -> dict[str, Any]:
    """Returns the fields that determine the bytes of a record."""
    return {
      'spec': dataclasses.asdict(self.spec),
      'seed': self.seed,
      'source': self.source,
    }


def _name(config: Luna16PatchesConfig) -> str:
  """Returns e.g. `axial_50px`, `cube_48mm_all`, `stack_5x64px_neg10_seed3`."""
  if config.source == 'article':
    return 'article'
  depth, height, width = config.spec.shape_zyx
  size = str(width) if height == width else f'{height}x{width}'
  if config.spec.layout == 'stack' and depth != 3:
    size = f'{depth}x{size}'
  if config.spec.layout == 'cube' and not depth == height == width:
    size = f'{depth}x{height}x{width}'
  spacing = config.spec.spacing_mm
  unit = 'px' if spacing is None else 'mm' if spacing == 1 else f'at{spacing:g}mm'
  parts = [config.spec.layout, size + unit]
  if config.candidate_list != 'V1':
    parts.append(config.candidate_list.lower())
  if config.negatives_per_positive is None:
    parts.append('all')
  elif config.negatives_per_positive != _RATIO:
    parts.append(f'neg{config.negatives_per_positive}')
  if config.subsets is not None:
    parts.append('subsets' + ''.join(map(str, config.subsets)))
  if config.seed:
    parts.append(f'seed{config.seed}')
  return '_'.join(parts)


def _description(config: Luna16PatchesConfig) -> str:
  if config.source == 'article':
    return (
      "The article's published 50x50 JPEG patches in its own split by candidate, "
      'grey levels undone to HU -1000..400.'
    )
  spec = config.spec
  shape = 'x'.join(
    map(str, spec.shape_zyx[1:] if spec.layout == 'axial' else spec.shape_zyx)
  )
  what = {
    'axial': f'{shape} samples of the axial slice',
    'stack': f'{shape} samples, the neighbouring slices as channels',
    'cube': f'{shape} samples',
  }[spec.layout]
  spacing = (
    "at the scan's own spacing"
    if spec.spacing_mm is None
    else f'{spec.spacing_mm:g} mm apart'
  )
  ratio = config.negatives_per_positive
  which = 'all candidates' if ratio is None else f'{ratio} negatives a positive'
  subsets = '' if config.subsets is None else f', subsets {config.subsets}'
  return (
    f'{what}, {spacing}; {which} of the {config.candidate_list} list{subsets}; '
    f'seed {config.seed}.'
  )


def _configs() -> tuple[Luna16PatchesConfig, ...]:
  cube = patches.PatchSpec((48, 48, 48), 1.0, 'cube')
  return (
    Luna16PatchesConfig(),
    Luna16PatchesConfig(negatives_per_positive=None),
    Luna16PatchesConfig(spec=patches.PatchSpec((1, 50, 50), 1.0)),
    Luna16PatchesConfig(spec=patches.PatchSpec((3, 50, 50), None, 'stack')),
    Luna16PatchesConfig(spec=cube),
    Luna16PatchesConfig(spec=cube, negatives_per_positive=None),
    Luna16PatchesConfig(source='article', negatives_per_positive=None),
  )


# By name; the first is the default.
CONFIGS = {config.name: config for config in _configs()}


def custom_config(
  base: Luna16PatchesConfig,
  *,
  patch_shape: tuple[int, ...] | None = None,
  spacing_mm: float | None = None,
  **changes: Any,
) -> Luna16PatchesConfig:
  """Makes a config from another one by changing some of its fields.

  Args:
    base: e.g. `CONFIGS['axial_50px']`.
    patch_shape: (height, width) or (depth, height, width). A depth makes a cube, or a
      stack if `base` is a stack.
    spacing_mm: distance between samples; 0 keeps the scan's own voxels.
    **changes: other fields of the config.

  Returns:
    The config, with a name derived from its fields; the built-in one, if its fields are
    the same.

  Raises:
    ValueError: a field is out of range, or `base` is `article`, which cannot be changed.
  """
  if base.source == 'article':
    raise ValueError(
      "the config 'article' takes no options: its patches are used as published"
    )
  spec = base.spec
  if patch_shape is not None:
    if len(patch_shape) not in (2, 3) or min(patch_shape) < 1:
      raise ValueError(
        'patch_shape must be height,width or depth,height,width, each 1 or more. '
        f'Received: {",".join(map(str, patch_shape))}'
      )
    flat = len(patch_shape) == 2
    layout = 'axial' if flat else 'stack' if spec.layout == 'stack' else 'cube'
    shape = (1, *patch_shape) if flat else tuple(patch_shape)
    spec = dataclasses.replace(spec, shape_zyx=shape, layout=layout)
  if spacing_mm is not None:
    spec = dataclasses.replace(spec, spacing_mm=spacing_mm or None)
  kept = {
    name: getattr(base, name)
    for name in (
      'candidate_list',
      'negatives_per_positive',
      'subsets',
      'seed',
      'source',
    )
  }
  config = Luna16PatchesConfig(**{**kept, **changes, 'spec': spec})
  # TFDS refuses a custom config with the name of a built-in one.
  same = [c for c in CONFIGS.values() if vars(c) == vars(config)]
  return same[0] if same else config
