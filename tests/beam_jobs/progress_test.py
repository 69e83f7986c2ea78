import contextlib
import re
import sys
import threading

import pytest

from beam_jobs import progress
from luna_tfds.files import atomic_files

NUM_SCANS = {'a' * 16: 4, 'b' * 16: 6}


def finish(folder, fingerprint):
  atomic_files.write_json(folder.state_dir / f'{fingerprint}.json', {})


def test_lines_end_with_all_scans(folder, capsys):
  with progress.display(folder, NUM_SCANS):
    folder.record_progress('b' * 16, 2)
    for fingerprint in NUM_SCANS:
      finish(folder, fingerprint)
    (folder.state_dir / f'{"b" * 16}.scans').unlink()
  (line,) = capsys.readouterr().err.splitlines()
  assert re.fullmatch(r'10/10 scans, \S+ scans/s, 0 s left', line)


def test_lines_of_a_failed_job_claim_no_completion(folder, capsys):
  with pytest.raises(ArithmeticError), progress.display(folder, NUM_SCANS):
    folder.record_progress('a' * 16, 1)
    raise ArithmeticError
  assert capsys.readouterr().err == ''


def test_bar_on_a_terminal(folder, capsys, monkeypatch):
  monkeypatch.setattr(sys.stderr, 'isatty', lambda: True)
  finish(folder, 'a' * 16)
  with progress.display(folder, NUM_SCANS):
    finish(folder, 'b' * 16)
  redraws = capsys.readouterr().err.split('\r')
  assert any('4/10' in text for text in redraws)  # the scans of an earlier run
  assert '100%' in redraws[-1]
  assert '10/10' in redraws[-1]
  assert re.search('scans/s|s/ ?scans', redraws[-1])  # below one per second


def test_bar_of_a_failed_job_stays_where_it_was(folder, capsys, monkeypatch):
  monkeypatch.setattr(sys.stderr, 'isatty', lambda: True)
  with pytest.raises(ArithmeticError), progress.display(folder, NUM_SCANS):
    raise ArithmeticError
  assert '10/10' not in capsys.readouterr().err


def test_progress_is_polled_during_the_block(folder, monkeypatch):
  monkeypatch.setattr(type(folder), 'progress_poll_secs', 0.01)
  shown = threading.Event()

  @contextlib.contextmanager
  def displayed(*unused, **unused_options):
    yield lambda done, total: shown.set() if (done, total) == (3, 10) else None

  monkeypatch.setattr(progress.progress, 'displayed', displayed)
  with progress.display(folder, NUM_SCANS):
    folder.record_progress('a' * 16, 3)
    assert shown.wait(timeout=20)


def test_a_shard_that_starts_again_does_not_lower_the_progress(folder, monkeypatch):
  reported = []

  @contextlib.contextmanager
  def displayed(*unused, **unused_options):
    yield lambda done, total: reported.append(done)

  monkeypatch.setattr(progress.progress, 'displayed', displayed)
  monkeypatch.setattr(type(folder), 'progress_poll_secs', 100)
  folder.record_progress('a' * 16, 3)
  with progress.display(folder, NUM_SCANS):
    folder.reset_progress('a' * 16)
  assert reported == [3, 3]


def test_more_scans_than_planned_are_not_displayed(folder, capsys):
  # A retried shard records its scans again.
  with progress.display(folder, NUM_SCANS):
    folder.record_progress('a' * 16, 14)
  assert capsys.readouterr().err.startswith('10/10 scans')


def test_nothing_is_displayed_without_scans(folder, capsys):
  with progress.display(folder, {'a' * 16: 0}):
    folder.record_progress('a' * 16, 0)
  assert capsys.readouterr().err == ''


@pytest.fixture
def wait_for_polls(folder, monkeypatch):
  """A function that waits until the progress was polled some times."""
  polls = threading.Semaphore(0)

  @contextlib.contextmanager
  def displayed(*unused, **unused_options):
    yield lambda done, total: polls.release()

  def wait():
    while polls.acquire(blocking=False):
      pass
    for _ in range(5):
      assert polls.acquire(timeout=60)

  monkeypatch.setattr(type(folder), 'progress_poll_secs', 0.01)
  monkeypatch.setattr(progress.progress, 'displayed', displayed)
  return wait


def warnings(capsys):
  lines = capsys.readouterr().err.splitlines()
  return [line for line in lines if 'warning: no scan was done for' in line]


@pytest.mark.parametrize(('minutes', 'expected'), [(1e-9, 1), (60.0, 0), (0.0, 0)])
def test_a_job_in_which_nothing_happens_warns_once(
  minutes, expected, folder, wait_for_polls, capsys
):
  folder.record_progress('a' * 16, 1)
  with progress.display(folder, NUM_SCANS, minutes):
    wait_for_polls()
  assert len(warnings(capsys)) == expected


def test_a_second_stop_is_reported_again(folder, wait_for_polls, capsys):
  with progress.display(folder, NUM_SCANS, 1e-9):
    wait_for_polls()
    folder.record_progress('a' * 16, 1)
    wait_for_polls()
  assert len(warnings(capsys)) == 2


def test_no_warning_after_the_last_scan(folder, wait_for_polls, capsys):
  # The engine may take time to end the job.
  finish(folder, 'a' * 16)
  finish(folder, 'b' * 16)
  with progress.display(folder, NUM_SCANS, 1e-9):
    wait_for_polls()
  assert warnings(capsys) == []
