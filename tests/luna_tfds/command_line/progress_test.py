import sys

import pytest

from luna_tfds.command_line import progress


@pytest.fixture
def clock(monkeypatch):
  """A clock that the test sets: `clock.now += 5`."""

  class Clock:
    now = 100.0

  monkeypatch.setattr(progress.time, 'monotonic', lambda: Clock.now)
  return Clock


def printed_counts(capsys):
  return [int(s.partition('/')[0]) for s in capsys.readouterr().err.splitlines()]


def test_lines_have_rate_and_remaining_time_of_this_run(clock, capsys):
  with progress.displayed('scans') as report:
    report(10, 50)
    clock.now += 20
    report(20, 50)
  assert capsys.readouterr().err == '20/50 scans, 0.5 scans/s, 60 s left\n'


def test_lines_are_printed_every_ten_seconds(clock, capsys):
  with progress.displayed('scans') as report:
    for done in range(36):
      report(done, 100)
      clock.now += 1
  assert printed_counts(capsys) == [10, 20, 30]


def test_without_progress_there_is_no_estimate(clock, capsys):
  with progress.displayed('scans') as report:
    report(7, 100)
    clock.now += 11
    report(7, 100)
  assert capsys.readouterr().err == '7/100 scans, 0 scans/s, no estimate yet\n'


def test_description_comes_first(clock, capsys):
  with progress.displayed('records', 'scoring test') as report:
    report(0, 100)
    clock.now += 10
    report(50, 100)
  line = 'scoring test: 50/100 records, 5 records/s, 10 s left\n'
  assert capsys.readouterr().err == line


def test_long_work_ends_with_a_line(clock, capsys):
  with progress.displayed('records') as report:
    for done in range(16):
      report(done, 15)
      clock.now += 1
  assert printed_counts(capsys) == [10, 15]


def test_short_work_prints_nothing(clock, capsys):
  with progress.displayed('records') as report:
    report(0, 2)
    clock.now += 9
    report(2, 2)
  assert capsys.readouterr().err == ''


def test_short_work_prints_a_line_without_delay(clock, capsys):
  with progress.displayed('records', delay_secs=0.0) as report:
    report(0, 2)
    clock.now += 2
    report(2, 2)
  assert capsys.readouterr().err == '2/2 records, 1 records/s, 0 s left\n'


@pytest.mark.parametrize('next_work', [(0, 20), (20, 40)])
def test_next_work_has_a_rate_of_its_own(clock, capsys, next_work):
  done, total = next_work
  with progress.displayed('records') as report:
    report(0, 20)
    clock.now += 1000
    report(20, 20)
    report(done, total)
    clock.now += 10
    report(done + 10, total)
  assert ', 1 records/s, ' in capsys.readouterr().err.splitlines()[-1]


def test_bar_on_a_terminal(capsys, monkeypatch):
  monkeypatch.setattr(sys.stderr, 'isatty', lambda: True)
  with progress.displayed('scans', 'reading', delay_secs=0.0) as report:
    report(4, 10)
    report(10, 10)
  redraws = capsys.readouterr().err.split('\r')
  assert any('4/10' in text for text in redraws)
  for text in ('reading', '100%', '10/10', 'scans/s'):
    assert text in redraws[-1]


def test_no_bar_of_short_work(capsys, monkeypatch):
  monkeypatch.setattr(sys.stderr, 'isatty', lambda: True)
  with progress.displayed('scans') as report:
    report(0, 10)
    report(10, 10)
  assert capsys.readouterr().err == ''


def test_bar_of_work_that_fails_ends_its_line(capsys, monkeypatch):
  monkeypatch.setattr(sys.stderr, 'isatty', lambda: True)
  with (
    pytest.raises(ArithmeticError),
    progress.displayed('scans', delay_secs=0.0) as report,
  ):
    report(0, 10)
    report(3, 10)
    raise ArithmeticError
  error = capsys.readouterr().err
  assert error.endswith('\n')
  assert '10/10' not in error


def test_nothing_is_displayed_without_a_report(capsys):
  with progress.displayed('scans', delay_secs=0.0):
    pass
  assert capsys.readouterr().err == ''
