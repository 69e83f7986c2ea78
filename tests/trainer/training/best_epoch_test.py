import pytest
import small_model

from trainer.training import best_epoch
from trainer.training import checkpoints

NAN = float('nan')


@pytest.mark.parametrize(
  ('values', 'patience', 'expected'),
  [
    ([], 3, False),
    ([0.5, 0.4, 0.3], 3, False),
    ([0.5, 0.4, 0.3, 0.2], 3, True),
    ([0.5, 0.4, 0.6, 0.2], 3, False),
    # An equal value is no rise.
    ([0.5, 0.5, 0.5, 0.5], 3, True),
    ([0.5, 0.4, 0.3, 0.2], 0, False),
  ],
)
def test_should_stop(values, patience, expected):
  assert best_epoch.should_stop(values, patience) == expected


def test_early_stopping_counts_the_epochs_of_earlier_runs():
  history = [{'epoch': i, best_epoch.MONITOR: v} for i, v in enumerate((0.5, 0.4))]
  for earlier, expected in ((history, True), ([], False)):
    callback = small_model.attach(best_epoch.StopEarly(2, earlier), small_model.make())
    callback.model.stop_training = False
    callback.on_epoch_end(2, {best_epoch.MONITOR: 0.45})
    assert callback.model.stop_training == expected


def test_early_stopping_needs_the_metric():
  callback = small_model.attach(best_epoch.StopEarly(1, []), small_model.make())
  callback.model.stop_training = False
  for epoch in range(3):
    callback.on_epoch_end(epoch, {'loss': 1.0})
  assert not callback.model.stop_training


def save_epochs(callback, rows):
  """Ends epochs with some metrics; the bias of the model is the epoch."""
  model = small_model.make()
  small_model.attach(callback, model)
  for epoch, row in enumerate(rows):
    model.layers[0].bias.assign([epoch])
    callback.on_epoch_end(epoch, row)


def monitored(*values):
  return [{} if value is None else {best_epoch.MONITOR: value} for value in values]


@pytest.mark.parametrize(
  ('values', 'best'),
  [
    ([0.3, 0.5, 0.4], 1),
    # The first of equal ones.
    ([0.3, 0.5, 0.5], 1),
    ([0.0, 0.0], 0),
    # Without validation the last.
    ([None, None, None], 2),
  ],
)
def test_best_epoch_is_saved(tmp_path, values, best):
  path = tmp_path / 'best.keras'
  save_epochs(best_epoch.SaveBest(path, []), monitored(*values))
  assert small_model.saved_bias(path) == best
  assert checkpoints.read_note(path).metrics.get(best_epoch.MONITOR) == values[best]


def test_best_epoch_of_an_earlier_run_is_kept(tmp_path):
  path = tmp_path / 'best.keras'
  save_epochs(best_epoch.SaveBest(path, []), monitored(0.6))
  # Neither is the history needed, nor is a row of an epoch trusted that is not saved.
  history = monitored(0.9, 0.2)
  save_epochs(best_epoch.SaveBest(path, history), monitored(0.5, 0.6))
  assert small_model.saved_bias(path) == 0
  save_epochs(best_epoch.SaveBest(path, history), monitored(0.5, 0.7))
  assert small_model.saved_bias(path) == 1


def test_the_loss_chooses_the_epoch_if_validation_has_one_class(tmp_path):
  path = tmp_path / 'best.keras'
  rows = [{best_epoch.MONITOR: 0.0, 'val_loss': loss} for loss in (2.0, 0.5, 0.7)]
  monitor = best_epoch.ONE_CLASS_MONITOR
  save_epochs(best_epoch.SaveBest(path, [], monitor), rows)
  assert small_model.saved_bias(path) == 1
  # In a later run too.
  save_epochs(best_epoch.SaveBest(path, rows, monitor), [{'val_loss': 0.6}])
  assert small_model.saved_bias(path) == 1
  values = best_epoch.monitored_values(rows, monitor)
  assert best_epoch.should_stop(values, patience=1)
  assert not best_epoch.should_stop(values, patience=2)


def test_the_best_value_of_version_1_1_is_that_of_the_history(tmp_path):
  path = tmp_path / 'best.keras'
  checkpoints.save(small_model.make(), path)
  before = path.read_bytes()
  save_epochs(best_epoch.SaveBest(path, monitored(0.6, 0.2)), monitored(0.5))
  assert path.read_bytes() == before
  save_epochs(best_epoch.SaveBest(path, monitored(0.6, 0.2)), monitored(0.7))
  assert path.read_bytes() != before


def test_an_epoch_without_a_finite_validation_loss_is_not_the_best(tmp_path):
  path = tmp_path / 'best.keras'
  rows = [{best_epoch.MONITOR: 0.9, 'val_loss': NAN}, {best_epoch.MONITOR: 0.2}]
  save_epochs(best_epoch.SaveBest(path, []), rows)
  assert small_model.saved_bias(path) == 1
