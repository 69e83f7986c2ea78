"""Draws inputs by Hypothesis or atheris, and saves those with findings."""

import contextlib
import hashlib
import importlib
import os
import random
import sys
import traceback

import hypothesis
from hypothesis import strategies as st
import input_files
import readers
import sandbox as sandbox_lib

# Hypothesis remembers the inputs of a batch.
_BATCH_INPUTS = 500


class Session:
  """Checks the inputs of a reader and saves those with new findings.

  Attributes:
    reader: the reader.
    seeds: its valid inputs.
    num_inputs: inputs checked so far.
    corpus: folder of the inputs that ran new lines; the next process continues with them.
  """

  def __init__(self, reader, folder, failures):
    """Prepares a reader.

    Args:
      reader: the reader.
      folder: an empty folder for its files.
      failures: folder for the inputs with findings.
    """
    self.reader = reader
    self.num_inputs = 0
    self.corpus = folder.parent / 'corpus'
    self.seeds = readers.make_seeds(reader, folder)
    self._folder = folder
    self._failures = failures
    self._progress = (folder / 'progress').open('w')
    self._known = {line for line in _lines(failures / f'{reader.name}.known')}
    self._sandbox = sandbox_lib.Sandbox(folder / 'input')
    self._sandbox.start()

  def find_problem(self, files):
    """Returns the `Finding` of an input if it is a new one, else None."""
    input_files.write(files, self._folder / 'input')
    finding = self._sandbox.check(self.reader.read, readers.USER_ERRORS)
    return None if finding is None or finding.signature in self._known else finding

  def count(self):
    """Counts an input, also for the process that watches this one."""
    self.num_inputs += 1
    os.pwrite(self._progress.fileno(), f'{self.num_inputs:12}'.encode(), 0)

  def save(self, files, finding):
    """Saves an input; later findings with the same signature are not reported."""
    self._known.add(finding.signature)
    with (self._failures / f'{self.reader.name}.known').open('a') as file:
      file.write(finding.signature + '\n')
    save(self.reader.name, files, finding.text, self._failures)


def save(name, files, text, failures):
  """Writes an input with a finding to a file, and prints its path."""
  packed = input_files.pack(files)
  path = failures / f'{name}-{hashlib.sha256(packed).hexdigest()[:12]}.input'
  path.write_bytes(packed)
  print(f'FOUND {name}: {path}\n{text.rstrip()}', flush=True)


def _lines(path):
  return path.read_text().splitlines() if path.exists() else []


class _FoundError(Exception):
  pass


def run_hypothesis(session, num_inputs, seed):
  """Draws inputs by Hypothesis, which makes the first input of each finding small."""
  batch = 0
  while session.num_inputs < num_inputs:
    count = min(_BATCH_INPUTS, num_inputs - session.num_inputs)
    _run_batch(session, count, f'{seed}-{batch}')
    batch += 1


def _run_batch(session, num_inputs, seed):
  """Draws inputs until one has a new finding, and saves the smallest like it."""
  found = []

  @hypothesis.seed(seed)
  @hypothesis.settings(
    max_examples=num_inputs,
    database=None,
    deadline=None,
    derandomize=False,
    phases=(hypothesis.Phase.generate, hypothesis.Phase.shrink),
    report_multiple_bugs=False,
    suppress_health_check=list(hypothesis.HealthCheck),
    verbosity=hypothesis.Verbosity.quiet,
  )
  @hypothesis.given(st.randoms(use_true_random=False))
  def check(rng):
    files = readers.draw_input(session.reader, session.seeds, rng)
    if not found:
      session.count()
    finding = session.find_problem(files)
    if finding and (not found or finding.signature == found[0][1].signature):
      found[:] = [(files, finding)]
      raise _FoundError

  try:
    check()
  except Exception:
    if not found:
      raise
    session.save(*found[0])


def run_atheris(session, num_inputs, seed):
  """Draws inputs by atheris: those that run new lines are kept and changed further.

  Does not return: libFuzzer ends the process.
  """
  import atheris

  for name in session.reader.modules:
    for value in vars(importlib.import_module(name)).values():
      _instrument(value, name, atheris)
  corpus = session.corpus
  corpus.mkdir(exist_ok=True)
  for number, files in enumerate(session.seeds):
    (corpus / str(number)).write_bytes(input_files.pack(files))

  def check_one_input(packed):
    if len(packed) <= 1:  # what libFuzzer begins with
      return
    with _ended_by_errors():
      files = input_files.unpack(packed)
      session.count()
      finding = session.find_problem(files)
      if finding:
        session.save(files, finding)

  def mutate(packed, max_size, seed):
    with _ended_by_errors():
      rng = random.Random(seed)
      # Half of the inputs are made from valid ones: those that libFuzzer keeps become
      # less and less valid. It also begins with a line end.
      if len(packed) > 1 and rng.random() < 0.5:
        files = session.reader.mutate(input_files.unpack(packed), rng)
      else:
        files = readers.draw_input(session.reader, session.seeds, rng)
      changed = input_files.pack(files)
      return changed if len(changed) <= max_size else packed

  # libFuzzer counts the empty input that it begins with.
  options = (f'-runs={num_inputs + 1}', f'-seed={seed + 1}', '-max_len=2000000')
  # By default the smallest inputs are kept that run the same lines: damaged ones.
  limits = (
    '-reduce_inputs=0',
    '-len_control=0',
    '-rss_limit_mb=0',
    '-timeout=0',
    '-print_final_stats=1',
  )
  arguments = [sys.argv[0], *options, *limits, str(corpus)]
  atheris.Setup(arguments, check_one_input, custom_mutator=mutate)
  atheris.Fuzz()


@contextlib.contextmanager
def _ended_by_errors():
  """Ends the process after an error of the test itself; atheris would wait forever."""
  try:
    yield
  except BaseException:
    traceback.print_exc()
    sys.stderr.flush()
    os._exit(1)


def _instrument(value, module, atheris):
  if getattr(value, '__module__', None) != module:
    return
  if isinstance(value, type):
    for member in vars(value).values():
      function = getattr(member, '__func__', getattr(member, 'fget', member))
      _instrument(function, module, atheris)
  elif hasattr(value, '__code__'):
    atheris.instrument_func(value)


ENGINES = {'hypothesis': run_hypothesis, 'atheris': run_atheris}
