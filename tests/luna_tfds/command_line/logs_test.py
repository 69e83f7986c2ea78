import subprocess
import sys
import warnings

import greet
import pytest

LOG = """
import logging
import sys
from absl import logging as absl_logging
from luna_tfds.command_line import cli

def main(unused):
  logging.warning('of a library')
  logging.getLogger('asyncio').error('of a request')
  absl_logging.info('ours, about what happens')
  absl_logging.warning('ours, for the user')

cli.run('greet', '', main, cli.new_flags(), ['greet', *sys.argv[1:]])
"""


@pytest.mark.parametrize(
  ('level', 'expected'),
  [
    ('error', []),
    ('warning', ['greet: warning: ours, for the user']),
    (
      'info',
      [
        'of a library',
        'of a request',
        'ours, about what happens',
        'ours, for the user',
      ],
    ),
  ],
)
def test_our_warnings_reach_the_user(level, expected):
  # In a new process: pytest installs handlers and levels of its own.
  done = subprocess.run(
    [sys.executable, '-c', LOG, f'--verbosity={level}'],
    capture_output=True,
    text=True,
    check=True,
  )
  lines = done.stderr.splitlines()
  assert [line.rpartition('] ')[2] for line in lines] == expected


@pytest.mark.parametrize('asked', [False, True])
def test_warnings_are_hidden_unless_the_user_asks(asked, monkeypatch):
  def main(unused):
    warnings.warn('a library will change', FutureWarning, stacklevel=1)

  monkeypatch.setattr(sys, 'warnoptions', ['error'] if asked else [])
  with warnings.catch_warnings():
    if asked:
      with pytest.raises(FutureWarning):
        greet.run(main)
    else:
      assert greet.run(main) == 0
