"""Custom layers. Keras can load a saved model that has them once this module is imported.

They are registered under a package name, not under the path of this module, so that the
module can be moved without breaking saved models.
"""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf


@keras.saving.register_keras_serializable(package='luna16_patches')
class HUWindow(keras.layers.Layer):
  """Maps a window of Hounsfield units (HU) to 0..1 and clips values outside.

  It is part of the model, so that a saved model takes unprocessed HU.

  Attributes:
    low_hu: mapped to 0.
    high_hu: mapped to 1.
  """

  def __init__(self, low_hu: float, high_hu: float, **kwargs: Any):
    super().__init__(**kwargs)
    if not low_hu < high_hu:
      raise ValueError(
        f'low_hu must be less than high_hu. Received: {low_hu} and {high_hu}'
      )
    self.low_hu = float(low_hu)
    self.high_hu = float(high_hu)

  def call(self, hu: keras.KerasTensor) -> keras.KerasTensor:
    """Maps HU of any shape; in float32, as bfloat16 has only about 3 digits."""
    hu = keras.ops.cast(hu, 'float32')
    scaled = (hu - self.low_hu) / (self.high_hu - self.low_hu)
    return keras.ops.cast(keras.ops.clip(scaled, 0.0, 1.0), self.compute_dtype)

  def get_config(self) -> dict[str, Any]:
    """Returns the arguments of `__init__`."""
    return {**super().get_config(), 'low_hu': self.low_hu, 'high_hu': self.high_hu}


@keras.saving.register_keras_serializable(package='luna16_patches')
class PriorShift(keras.layers.Layer):
  """Corrects logits for a change of the prior between training and deployment.

  By Bayes' rule the logit changes by the difference of the log odds of the priors
  (Saerens, Latinne & Decaestecker, Neural Computation 14, 2002).

  Attributes:
    trained_prior: fraction of nodules in the batches that trained the model.
    deployed_prior: fraction of nodules where the probabilities are used.
  """

  def __init__(self, trained_prior: float, deployed_prior: float, **kwargs: Any):
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
    """Corrects logits of any shape."""
    log = keras.ops.log
    trained, deployed = self.trained_prior, self.deployed_prior
    shift = log(deployed / (1 - deployed)) - log(trained / (1 - trained))
    return logits + keras.ops.cast(shift, logits.dtype)

  def get_config(self) -> dict[str, Any]:
    """Returns the arguments of `__init__`."""
    return {
      **super().get_config(),
      'trained_prior': self.trained_prior,
      'deployed_prior': self.deployed_prior,
    }


@keras.saving.register_keras_serializable(package='luna16_patches')
class FusedBatchNormalization(keras.layers.Layer):
  """Batch normalisation over all axes but the last, by TensorFlow's fused kernel.

  On a CPU a training step of a small network takes half as long as with Keras's own
  layer. The statistics are float32 for every dtype of the input.

  Attributes:
    momentum: momentum of the moving mean and variance.
    epsilon: added to the variance.
  """

  def __init__(self, momentum: float = 0.99, epsilon: float = 1e-3, **kwargs: Any):
    super().__init__(**kwargs)
    self.momentum = momentum
    self.epsilon = epsilon

  def build(self, input_shape: tuple[int | None, ...]) -> None:
    """Creates gamma, beta and the moving statistics, [channels] each."""

    def weight(name: str, initial: str, trainable: bool) -> keras.Variable:
      """Adds a variable, which is float32 in every precision."""
      return self.add_weight(
        shape=(input_shape[-1],),
        initializer=initial,
        trainable=trainable,
        name=name,
        dtype='float32',
        autocast=False,
      )

    self.gamma = weight('gamma', 'ones', True)
    self.beta = weight('beta', 'zeros', True)
    self.moving_mean = weight('moving_mean', 'zeros', False)
    self.moving_variance = weight('moving_variance', 'ones', False)

  def call(self, x: tf.Tensor, training: bool = False) -> tf.Tensor:
    """Normalises x [batch, ..., channels]."""
    shape = tf.shape(x)
    # The kernel takes images only: the slices of a volume become one tall image, which
    # has the same statistics.
    if x.shape.rank == 5:
      x = tf.reshape(x, (shape[0], shape[1] * shape[2], shape[3], x.shape[-1]))
    arguments = {
      'x': x,
      'scale': tf.convert_to_tensor(self.gamma),
      'offset': tf.convert_to_tensor(self.beta),
      'epsilon': self.epsilon,
    }
    if not training:
      result = tf.raw_ops.FusedBatchNormV3(
        mean=tf.convert_to_tensor(self.moving_mean),
        variance=tf.convert_to_tensor(self.moving_variance),
        is_training=False,
        **arguments,
      )
      return tf.reshape(result.y, shape)
    result = tf.raw_ops.FusedBatchNormV3(
      mean=tf.zeros([0]), variance=tf.zeros([0]), is_training=True, **arguments
    )
    for moving, batch in (
      (self.moving_mean, result.batch_mean),
      (self.moving_variance, result.batch_variance),
    ):
      moving.assign(self.momentum * moving + (1 - self.momentum) * batch)
    return tf.reshape(result.y, shape)

  def compute_output_shape(
    self, input_shape: tuple[int | None, ...]
  ) -> tuple[int | None, ...]:
    """Returns the shape of the input."""
    return input_shape

  def get_config(self) -> dict[str, Any]:
    """Returns the arguments of `__init__`."""
    return {
      **super().get_config(),
      'momentum': self.momentum,
      'epsilon': self.epsilon,
    }


@keras.saving.register_keras_serializable(package='luna16_patches')
class LogitScale(keras.layers.Layer):
  """Calibrates logits: `scale * logit + offset` (Platt scaling).

  Attributes:
    scale: positive, so that the order of records is kept.
    offset: added afterwards.
  """

  def __init__(self, scale: float, offset: float, **kwargs: Any):
    super().__init__(**kwargs)
    if not scale > 0:
      raise ValueError(f'scale must be positive. Received: {scale}')
    self.scale = scale
    self.offset = offset

  def call(self, logits: keras.KerasTensor) -> keras.KerasTensor:
    """Calibrates logits of any shape."""
    return logits * self.scale + self.offset

  def get_config(self) -> dict[str, Any]:
    """Returns the arguments of `__init__`."""
    return {**super().get_config(), 'scale': self.scale, 'offset': self.offset}
