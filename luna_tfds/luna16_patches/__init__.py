"""The TFDS dataset `luna16_patches`."""

from luna_tfds.luna16_patches.configs import CONFIGS
from luna_tfds.luna16_patches.configs import Luna16PatchesConfig
from luna_tfds.luna16_patches.configs import custom_config
from luna_tfds.luna16_patches.luna16_patches_dataset_builder import Builder

__all__ = ['CONFIGS', 'Builder', 'Luna16PatchesConfig', 'custom_config']
