import pytest
import small_model

from luna_tfds.errors import JobError
from trainer.training import not_finite

NAN = float('nan')


def make_nan_callback(start_step):
  asked_for = []

  def keys_of_batch(epoch, step):
    asked_for.append((epoch, step))
    return ['1.2/3', '1.2/5']

  return not_finite.StopOnNaN(keys_of_batch, start_step), asked_for


@pytest.mark.parametrize('loss', [NAN, float('inf')])
def test_a_loss_that_is_not_a_number_stops_and_names_the_records(loss):
  callback, asked_for = make_nan_callback(0)
  callback.on_epoch_begin(1)
  callback.on_train_batch_end(0, {'loss': 0.7})
  with pytest.raises(
    JobError, match=rf'the loss is {loss} in epoch 2, step 4; .*batch: 1\.2/3 1\.2/5'
  ):
    callback.on_train_batch_end(3, {'loss': loss})
  assert asked_for == [(1, 3)]


def test_steps_of_a_resumed_epoch_are_counted_from_its_start():
  callback, asked_for = make_nan_callback(start_step=10)
  callback.on_epoch_begin(1)
  with pytest.raises(JobError, match='epoch 2, step 13;'):
    callback.on_train_batch_end(2, {'loss': NAN})
  callback.on_epoch_begin(2)
  with pytest.raises(JobError, match='epoch 3, step 3;'):
    callback.on_train_batch_end(2, {'loss': NAN})
  assert asked_for == [(1, 12), (2, 2)]


def test_weights_that_are_not_finite_stop_before_validation():
  """The last update of an epoch may spoil the weights although its loss was finite."""
  callback, asked_for = make_nan_callback(0)
  model = small_model.make()
  small_model.attach(callback, model)
  callback.on_epoch_begin(1)
  callback.on_train_batch_end(3, {'loss': 0.7})
  callback.on_test_begin()
  model.layers[0].bias.assign([NAN])
  for end in (callback.on_test_begin, lambda: callback.on_epoch_end(1, {})):
    with pytest.raises(
      not_finite.NotFiniteError, match='the weights are not finite in epoch 2, step 4;'
    ):
      end()
  assert asked_for == 2 * [(1, 3)]
