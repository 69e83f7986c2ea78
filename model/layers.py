"""Layers of our own; importing this module lets Keras load models that hold them."""

from __future__ import annotations

import keras


@keras.saving.register_keras_serializable(package='luna16_patches')
class HUWindow(keras.layers.Layer):
  """Maps a window of Hounsfield units to 0..1 and clips the rest.

  Being part of the model, it lets a saved model take raw HU.

  Attributes:
    low_hu: becomes 0.
    high_hu: becomes 1.
  """

  def __init__(self, low_hu: float = -1000.0, high_hu: float = 400.0, **kwargs):
    super().__init__(**kwargs)
    if not low_hu < high_hu:
      raise ValueError(
        f'low_hu must be less than high_hu. Received: {low_hu} and {high_hu}'
      )
    self.low_hu = low_hu
    self.high_hu = high_hu

  def call(self, hu: keras.KerasTensor) -> keras.KerasTensor:
    """Maps HU of any shape; computes in float32, as bfloat16 has 3 digits only."""
    hu = keras.ops.cast(hu, 'float32')
    scaled = (hu - self.low_hu) / (self.high_hu - self.low_hu)
    return keras.ops.cast(keras.ops.clip(scaled, 0.0, 1.0), self.compute_dtype)

  def get_config(self) -> dict:
    """The arguments of `__init__`."""
    return {**super().get_config(), 'low_hu': self.low_hu, 'high_hu': self.high_hu}


@keras.saving.register_keras_serializable(package='luna16_patches')
class PriorShift(keras.layers.Layer):
  """Moves logits from the prior of the training stream to that of deployment.

  By Bayes' rule a change of prior, all else equal, adds the difference of the priors'
  log odds to the logit (Saerens, Latinne & Decaestecker, Neural Computation 14, 2002).

  Attributes:
    trained_prior: share of nodules in the stream that trained the model.
    deployed_prior: share of nodules where the probabilities are used.
  """

  def __init__(self, trained_prior: float, deployed_prior: float, **kwargs):
    super().__init__(**kwargs)
    for name, prior in (
      ('trained_prior', trained_prior),
      ('deployed_prior', deployed_prior),
    ):
      if not 0 < prior < 1:
        raise ValueError(f'{name} must lie between 0 and 1. Received: {prior}')
    self.trained_prior = trained_prior
    self.deployed_prior = deployed_prior

  def call(self, logits: keras.KerasTensor) -> keras.KerasTensor:
    """Shifts logits of any shape."""
    log = keras.ops.log
    trained, deployed = self.trained_prior, self.deployed_prior
    shift = log(deployed / (1 - deployed)) - log(trained / (1 - trained))
    return logits + keras.ops.cast(shift, logits.dtype)

  def get_config(self) -> dict:
    """The arguments of `__init__`."""
    return {
      **super().get_config(),
      'trained_prior': self.trained_prior,
      'deployed_prior': self.deployed_prior,
    }
