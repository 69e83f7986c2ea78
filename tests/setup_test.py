"""What setup.py installs."""

import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).parents[1]
PACKAGES = ('luna_tfds', 'beam_jobs', 'model', 'trainer')


def files_in(folder):
  return {
    path.relative_to(folder).as_posix()
    for package in PACKAGES
    for path in (folder / package).rglob('*')
    if path.is_file() and '__pycache__' not in path.parts
  }


def test_a_wheel_holds_all_files_of_the_packages(tmp_path):
  """The step of a wheel build that collects the files."""
  command = [sys.executable, 'setup.py', '-q', 'build_py', '--build-lib', tmp_path]
  subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=120)
  built = files_in(tmp_path)
  assert 'trainer/report/templates/page.html' in built
  assert built == files_in(ROOT)
