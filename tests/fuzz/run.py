"""Gives random changes of valid files to the readers of users' files.

    python tests/fuzz/run.py --inputs=200000
    python tests/fuzz/run.py --inputs=200000 --reader=mhd --reader=nifti
    python tests/fuzz/run.py --rerun=/tmp/fuzz-failures/mhd-0123456789ab.input

Each input must be read, or rejected with an error that the commands turn into one line.
Any other exception, a crash of the process, more than 30 seconds of processor time, memory
that does not follow from the size of the files, and a file that is opened outside the
folder of the input are findings. Inputs with findings are saved. Exit code 1 if there are any.
"""

import argparse
import importlib.util
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import time

_ROOT = pathlib.Path(__file__).parents[2]
sys.path[1:1] = [str(_ROOT / 'tests' / 'support'), str(_ROOT)]
os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')
os.environ.setdefault('CUDA_VISIBLE_DEVICES', '-1')

import input_files  # noqa: E402
import readers  # noqa: E402
import sandbox  # noqa: E402

# A reader that crashes again and again is broken.
_MAX_CRASHES = 20

# TFDS keeps about 40 KB of every dataset that a process opens (its log of calls). A new
# process begins long before that fills the memory that the sandbox allows.
_INPUTS_PER_PROCESS = 20_000

# A file system in memory, on which files are written several times faster than on a disk.
_MEMORY_FOLDER = pathlib.Path('/dev/shm')
_MIN_FREE_BYTES = 2**30


def _parse_arguments():
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('--inputs', type=int, default=200_000, help='For each reader.')
  parser.add_argument(
    '--reader', action='append', choices=readers.NAMES, help='Default: all.'
  )
  has_atheris = importlib.util.find_spec('atheris') is not None
  parser.add_argument(
    '--engine',
    choices=('atheris', 'hypothesis'),
    default='atheris' if has_atheris else 'hypothesis',
    help='atheris is guided by the coverage, Hypothesis finds small inputs.',
  )
  parser.add_argument('--seed', type=int, default=0)
  parser.add_argument(
    '--failures',
    type=pathlib.Path,
    default=pathlib.Path(tempfile.gettempdir()) / 'fuzz-failures',
    help='Folder for inputs with findings.',
  )
  parser.add_argument('--rerun', type=pathlib.Path, help='A saved input to read again.')
  parser.add_argument('--worker', help=argparse.SUPPRESS)  # folder of a child process
  return parser.parse_args()


def main():
  """Runs the readers one after the other; returns the exit code."""
  arguments = _parse_arguments()
  arguments.failures.mkdir(parents=True, exist_ok=True)
  if arguments.rerun:
    return _rerun(arguments.rerun)
  if arguments.worker:
    return _work(arguments)
  num_findings = 0
  for name in arguments.reader or readers.NAMES:
    num_findings += _watch(name, arguments)
  return int(num_findings > 0)


def _watch(name, arguments):
  """Runs a reader in one process after the other; returns the number of findings."""
  num_inputs = num_findings = num_crashes = num_processes = 0
  start = time.monotonic()
  (arguments.failures / f'{name}.known').unlink(missing_ok=True)
  with tempfile.TemporaryDirectory(
    prefix=f'fuzz-{name}-', dir=_temporary_root()
  ) as temporary:
    while num_inputs < arguments.inputs and num_crashes < _MAX_CRASHES:
      folder = pathlib.Path(temporary, str(num_processes))
      folder.mkdir()
      code, num_found = _run_process(
        name,
        folder,
        arguments,
        num_inputs=min(arguments.inputs - num_inputs, _INPUTS_PER_PROCESS),
        seed=arguments.seed + num_processes,
      )
      num_processes += 1
      num_inputs += _read_progress(folder)
      num_findings += num_found
      if code:
        num_crashes += 1
        num_findings += 1
        _report_crash(name, code, folder, arguments.failures)
      shutil.rmtree(folder)
  secs = time.monotonic() - start
  print(
    f'{name}: {num_inputs} inputs by {arguments.engine} in {secs:.0f} s '
    f'({num_inputs / secs:.0f}/s), {num_findings} findings',
    flush=True,
  )
  return num_findings


def _run_process(name, folder, arguments, *, num_inputs, seed):
  """Runs a reader in a process; returns its exit code and the findings it printed."""
  num_found = 0
  with (folder / 'log').open('w') as log:
    child = subprocess.Popen(
      [
        *(sys.executable, __file__, f'--worker={folder}', f'--reader={name}'),
        *(f'--engine={arguments.engine}', f'--inputs={num_inputs}', f'--seed={seed}'),
        f'--failures={arguments.failures}',
      ],
      stdout=subprocess.PIPE,
      stderr=log,
      text=True,
    )
    for line in child.stdout:
      num_found += line.startswith('FOUND ')
      print(line, end='', flush=True)
    code = child.wait()
  if code == 1 or (code == 0 and not _read_progress(folder)):
    # An error of the test itself, not of the reader.
    sys.exit(f'{name}: {(folder / "log").read_text(errors="replace")[-3000:]}')
  return code, num_found


def _read_progress(folder):
  """Returns how many inputs the process in a folder has checked."""
  progress = folder / 'progress'
  return int((progress.exists() and progress.read_text()) or 0)


def _temporary_root():
  """Returns where the files of inputs are written; None for the usual folder."""
  if not os.access(_MEMORY_FOLDER, os.W_OK):
    return None
  is_large = shutil.disk_usage(_MEMORY_FOLDER).free >= _MIN_FREE_BYTES
  return _MEMORY_FOLDER if is_large else None


def _report_crash(name, code, folder, failures):
  """Saves the input on which the process ended."""
  import engines

  log = (folder / 'log').read_text(errors='replace')[-3000:]
  cause = f'exit code {code}'
  if code < 0:
    is_slow = -code in sandbox.TIME_SIGNALS
    cause = 'took too long' if is_slow else signal.Signals(-code).name
  files = input_files.read(folder / 'input')
  engines.save(name, files, f'the process ended: {cause}\n{log}', failures)


def _work(arguments):
  import engines

  (name,) = arguments.reader
  session = engines.Session(
    readers.find(name), pathlib.Path(arguments.worker), arguments.failures
  )
  engines.ENGINES[arguments.engine](session, arguments.inputs, arguments.seed)
  return 0


def _rerun(path):
  """Reads a saved input again, and shows the traceback."""
  reader = readers.find(path.name.rpartition('-')[0])
  folder = path.with_suffix('')
  shutil.rmtree(folder, ignore_errors=True)
  folder.mkdir()
  readers.make_seeds(reader, folder)
  input_files.write(input_files.unpack(path.read_bytes()), folder / 'input')
  print(f'the files are in {folder / "input"}')
  try:
    reader.read(folder / 'input')
  except readers.USER_ERRORS as error:
    print(f'rejected: {error}')
  else:
    print('accepted')
  return 0


if __name__ == '__main__':
  sys.exit(main())
