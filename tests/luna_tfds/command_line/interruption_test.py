import concurrent.futures
import logging
import os
import signal
import subprocess
import sys
import time

import greet
import pytest


@pytest.mark.parametrize(
  ('signum', 'code', 'word'),
  [(signal.SIGINT, 130, 'interrupted'), (signal.SIGTERM, 143, 'terminated')],
)
@pytest.mark.parametrize('wrapped', [False, True])
def test_signals_end_a_command_in_one_line(signum, code, word, wrapped, error_line):
  before = signal.getsignal(signum)

  def main(unused):
    try:
      os.kill(os.getpid(), signum)
    except KeyboardInterrupt as error:
      if not wrapped:
        raise
      logging.getLogger('library').error('lost a bundle')
      raise RuntimeError('a library wraps what it does not know') from error

  assert greet.run(main) == code
  assert error_line() == f'greet: error: {word}'
  assert signal.getsignal(signum) is before


def test_logs_are_back_after_an_interrupted_command(caplog):
  greet.run(lambda unused: os.kill(os.getpid(), signal.SIGINT))
  logging.getLogger('library').error('seen')
  assert 'seen' in caplog.text


def test_an_ignored_signal_stays_ignored():
  before = signal.signal(signal.SIGINT, signal.SIG_IGN)
  try:
    assert greet.run(lambda unused: os.kill(os.getpid(), signal.SIGINT)) == 0
  finally:
    signal.signal(signal.SIGINT, before)


def test_a_command_runs_in_any_thread():
  with concurrent.futures.ThreadPoolExecutor() as pool:
    assert pool.submit(greet.run, lambda unused: 3).result() == 3


# A command that loses the interrupt, as a callback of a library would.
STUBBORN = """
import os, sys, time
from luna_tfds.command_line import cli, interruption
interruption._MAX_SECS_TO_END = float(sys.argv[1])
def main(unused):
  while True:
    try:
      print('ready', flush=True)
      for _ in range(300):  # a signal just before a sleep ends no sleep
        time.sleep(0.2)
    except KeyboardInterrupt:
      pass
cli.run('stubborn', '', main, cli.new_flags(), ['stubborn'])
"""


@pytest.mark.parametrize(('max_secs', 'signals'), [(1, 1), (60, 2)])
def test_a_command_that_loses_the_interrupt_ends(max_secs, signals):
  with subprocess.Popen(
    [sys.executable, '-c', STUBBORN, str(max_secs)],
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
  ) as process:
    for number in range(signals):
      assert process.stdout.readline() == 'ready\n'
      time.sleep(1.5 * number)  # two at once are one request
      process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=30)
  assert (process.returncode, err) == (143, 'stubborn: error: terminated\n')
