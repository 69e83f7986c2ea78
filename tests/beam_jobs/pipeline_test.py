"""The pipeline itself is tested with the job; this is about what loading costs."""

import subprocess
import sys

import pytest

LAUNCHER = """
import sys
from beam_jobs import extract_patches
code = extract_patches.run(['luna16-extract', *sys.argv[1:]])
print(code, 'apache_beam' in sys.modules)
"""


@pytest.mark.slow
@pytest.mark.parametrize(('num_workers', 'loads_beam'), [(1, True), (2, False)])
def test_the_launcher_of_local_workers_does_not_load_beam(
  num_workers, loads_beam, download, tmp_path
):
  flags = [f'--luna_dir={download.folder}', f'--data_dir={tmp_path}']
  flags += ['--config=axial_50px_all', f'--num_workers={num_workers}']
  done = subprocess.run(
    [sys.executable, '-c', LAUNCHER, *flags], capture_output=True, text=True, check=True
  )
  assert done.stdout.split() == ['0', str(loads_beam)], done.stderr
