"""Gives some thousand changed files to each reader; see CONTRIBUTING.md for more."""

import pathlib
import subprocess
import sys

import pytest

_RUN = pathlib.Path(__file__).with_name('run.py')
# Loading a model takes tens of milliseconds.
_NUM_INPUTS = {'keras': 100, 'checkpoint': 100}


def _fuzz(tmp_path, *arguments):
  """Runs the command in a process, as it limits memory and watches opened files."""
  command = [sys.executable, str(_RUN), f'--failures={tmp_path}', *arguments]
  done = subprocess.run(command, capture_output=True, text=True, check=False)
  return done.returncode, done.stdout + done.stderr


def test_changed_headers_are_read_or_rejected(tmp_path):
  arguments = ('--inputs=100', '--reader=mhd', '--engine=hypothesis')
  code, output = _fuzz(tmp_path, *arguments)
  assert code == 0, output
  assert 'mhd: 100 inputs' in output


@pytest.mark.slow
@pytest.mark.parametrize(
  'reader',
  [
    *('mhd', 'mha', 'nifti', 'dicom', 'download'),
    *('candidates', 'findings', 'submission', 'seriesuids', 'article'),
    *('config', 'operating_point', 'calibration', 'history'),
    *('predictions', 'tfrecord'),
    *('record_index', 'metadata', 'patients', 'fold', 'scores', 'keras', 'checkpoint'),
  ],
)
def test_changed_files_are_read_or_rejected(reader, tmp_path):
  num_inputs = _NUM_INPUTS.get(reader, 1000)
  arguments = (f'--inputs={num_inputs}', f'--reader={reader}', '--engine=hypothesis')
  code, output = _fuzz(tmp_path, *arguments)
  assert code == 0, output
