"""LUNA16 candidate patches as a TFDS dataset.

Importing this package registers `luna16_patches` with TFDS:

    import luna_tfds
    import tensorflow_datasets as tfds

    ds = tfds.load('luna16_patches', split='train')
"""

# ruff: noqa: E402 (the other modules take a second to load)

from luna_tfds.command_line import loading_interruption

loading_interruption.exit_on_interrupt_while_loading()

from luna_tfds.errors import JobError
from luna_tfds.errors import ScanError
from luna_tfds.errors import UsageError
from luna_tfds.example_figure import show_examples
from luna_tfds.files.tfds_stores import read_stores_with_tfds
from luna_tfds.luna16_patches import CONFIGS
from luna_tfds.luna16_patches import Builder
from luna_tfds.luna16_patches import Luna16PatchesConfig
from luna_tfds.luna16_patches import custom_config
from luna_tfds.patches import PatchSpec
from luna_tfds.records import parse_batch
from luna_tfds.splits import fold_splits

__version__ = '1.1.0.dev0'

__all__ = [
  'CONFIGS',
  'Builder',
  'JobError',
  'Luna16PatchesConfig',
  'PatchSpec',
  'ScanError',
  'UsageError',
  'custom_config',
  'fold_splits',
  'parse_batch',
  'read_stores_with_tfds',
  'show_examples',
]
