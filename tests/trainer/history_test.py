import pytest

from luna_tfds.errors import UsageError
from trainer.history import History


@pytest.fixture
def history(tmp_path):
  return History(tmp_path / 'history.csv')


def test_rows_of_epochs_that_are_not_in_the_checkpoint_are_removed(history):
  assert history.read() == []
  history.truncate(3)
  assert not history.path.exists()
  history.path.write_text('epoch,loss\n0,0.5\n1,0.25\n2,0.125\n')
  history.truncate(2)
  assert history.path.read_text().split() == ['epoch,loss', '0,0.5', '1,0.25']
  assert history.read() == [
    {'epoch': 0.0, 'loss': 0.5},
    {'epoch': 1.0, 'loss': 0.25},
  ]
  history.truncate(0)
  assert not history.path.exists()


def test_metrics_that_an_epoch_does_not_have_are_left_out(history):
  text = 'epoch,loss,val_loss\n0,0.5,NA\n1,0.25,NA\n'
  history.path.write_text(text)
  assert history.read() == [
    {'epoch': 0.0, 'loss': 0.5},
    {'epoch': 1.0, 'loss': 0.25},
  ]
  # Their columns, which release 1.0.0 wrote, are kept.
  history.truncate(1)
  assert history.path.read_text().split() == ['epoch,loss,val_loss', '0,0.5,NA']
  history.append(1, {'loss': 0.25})
  assert history.path.read_text().split()[1:] == ['0,0.5,NA', '1,0.25,NA']


def test_a_row_is_added_for_each_epoch(history):
  history.append(0, {'val_loss': 0.1 + 0.2, 'loss': 0.5})
  history.append(1, {'val_loss': 1 / 3, 'loss': 0.25})
  assert history.path.read_text().split()[0] == 'epoch,loss,val_loss'
  # All digits are kept.
  assert history.read() == [
    {'epoch': 0.0, 'loss': 0.5, 'val_loss': 0.1 + 0.2},
    {'epoch': 1.0, 'loss': 0.25, 'val_loss': 1 / 3},
  ]


@pytest.mark.parametrize(
  'text',
  [
    'loss\n0.5\n',
    'epoch,loss\n0,0.5\nx,0.25\n',
    'epoch,loss\n0,0.5\n1\n',
    'epoch,loss\n0,0.5\n1,2,3\n',
    'epoch,loss\n0,0.5\n1,x\n',
    'epoch,loss\n0,\xff\n',
  ],
)
def test_a_damaged_history_is_rejected(text, history):
  history.path.write_bytes(text.encode('latin-1'))
  for read in (history.read, lambda: history.truncate(1)):
    with pytest.raises(UsageError, match=r'history\.csv, row \d .*restore'):
      read()
