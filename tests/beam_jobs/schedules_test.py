"""The job's transform under schedules that a runner may choose.

A simulated engine processes the shards of a plan. It duplicates, reorders, retries and
interrupts attempts, and runs two of them at once: each attempt is a thread that waits for
its turn before each record and each rename.
"""

import collections
import os
import random
import threading

import fake_data
import pytest

from beam_jobs import disk_job_folder
from beam_jobs import plan as plan_lib
from beam_jobs import shard_writer
from beam_jobs import transforms
from luna_tfds import CONFIGS
from luna_tfds import shard_contents
from luna_tfds import tfrecord

CONFIG = CONFIGS['axial_50px_all']
SPEC_SHAPE = (50, 50, 1)


class Interrupted(BaseException):
  """Ends an attempt as a killed worker does."""


class Engine:
  """Runs attempts in turns that follow from a seed."""

  def __init__(self, dofn, folder, seed):
    self._dofn = dofn
    self._folder = folder
    self._random = random.Random(seed)
    self._waiting = {}
    self.results = []
    self.num_interrupted = 0

  def turn(self):
    """Called by an attempt before each step: waits until it is its turn."""
    attempt = self._waiting.get(threading.current_thread())
    if attempt is None:
      return
    attempt.stopped.release()
    attempt.go.acquire()
    if attempt.killed:
      raise Interrupted

  def run(self, fingerprints):
    """Runs every shard, some several times, until each has succeeded once."""
    pending = collections.Counter(
      {f: self._random.choice((1, 1, 2, 3)) for f in fingerprints}
    )
    active = []
    while active or +pending:
      if +pending and (len(active) < self._random.randint(1, 4)):
        fingerprint = self._random.choice(sorted(+pending))
        pending[fingerprint] -= 1
        active.append(self._start(fingerprint))
      attempt = self._random.choice(active)
      attempt.killed = self._random.random() < 0.04
      attempt.go.release()
      attempt.stopped.acquire()
      if attempt.done:
        attempt.thread.join()
        active.remove(attempt)
        if attempt.error:
          raise attempt.error
        if attempt.was_interrupted:
          self.num_interrupted += 1
          pending[attempt.fingerprint] += 1

  def _start(self, fingerprint):
    attempt = Attempt(fingerprint)

    def run():
      attempt.go.acquire()
      try:
        self.results += list(self._dofn.process(fingerprint))
      except Interrupted:
        attempt.was_interrupted = True
      except Exception as error:
        attempt.error = error
      attempt.done = True
      attempt.stopped.release()

    attempt.thread = threading.Thread(target=run, daemon=True)
    self._waiting[attempt.thread] = attempt
    attempt.thread.start()
    return attempt


class Attempt:
  """One attempt at a shard."""

  def __init__(self, fingerprint):
    self.fingerprint = fingerprint
    self.go = threading.Semaphore(0)
    self.stopped = threading.Semaphore(0)
    self.killed = self.done = self.was_interrupted = False
    self.error = None


@pytest.fixture(scope='module')
def plan(tmp_path_factory):
  """A plan of three shards with few candidates."""
  scans = [fake_data.make_scan(s, s, shape_zyx=(4, 9, 8)) for s in (0, 8, 9)]
  download = fake_data.write_download(tmp_path_factory.mktemp('luna16'), scans)
  kept = [row for k, row in enumerate(download.candidates) if k % 4 == 0]
  fake_data.write_candidates(download.folder / 'candidates.csv', kept)
  return plan_lib.make_plan(download.folder, CONFIG)


def run_schedule(plan, folder, seed, monkeypatch):
  """Runs the shards of a plan under one schedule; returns the engine."""
  dofn = transforms._WriteShard(CONFIG.spec, CONFIG.seed, folder)
  engine = Engine(dofn, folder, seed)
  replace, extract_scan = os.replace, shard_writer._extract_scan

  def replace_in_turn(source, target):
    engine.turn()
    replace(source, target)

  def extract_in_turn(*arguments):
    for record in extract_scan(*arguments):
      engine.turn()
      yield record

  with monkeypatch.context() as patch:
    patch.setattr(os, 'replace', replace_in_turn)
    # A disk flush takes longer than everything else.
    patch.setattr(os, 'fsync', lambda descriptor: None)
    patch.setattr(shard_writer, '_extract_scan', extract_in_turn)
    engine.run([folder.write_shard_spec(shard) for shard in plan.shards])
  return engine


def check(plan, folder, engine):
  """Asserts that each shard contains exactly the planned records."""
  found = collections.Counter()
  for shard in plan.shards:
    result = folder.result(shard, plan)
    assert result is not None, folder.why_unfinished(shard, plan)
    path = folder.partial_path(shard.fingerprint)
    assert len(list(tfrecord.read_tfrecords(path))) == shard.num_records
    found.update(shard_contents.read_shard(path, SPEC_SHAPE).keys)
    same = [r for r in engine.results if r.fingerprint == shard.fingerprint]
    assert same == [result] * len(same) != []
  planned = collections.Counter(
    key for shard in plan.shards for key in shard.record_keys()
  )
  assert found == planned


def run_schedules(plan, root, seeds, monkeypatch):
  """Runs many schedules; returns the number of attempts and of interruptions."""
  attempts = interrupted = 0
  for seed in seeds:
    folder = disk_job_folder.DiskJobFolder(root / str(seed) / '1.0.0')
    with folder.locked():
      folder.clean(plan)
      engine = run_schedule(plan, folder, seed, monkeypatch)
      check(plan, folder, engine)
      folder.remove_state()
    attempts += len(engine.results)
    interrupted += engine.num_interrupted
  return attempts, interrupted


def test_60_schedules(plan, tmp_path, monkeypatch):
  attempts, interrupted = run_schedules(plan, tmp_path, range(60), monkeypatch)
  assert attempts > 60 * len(plan.shards)
  assert interrupted > 15


@pytest.mark.slow
def test_many_schedules(plan, tmp_path, monkeypatch):
  number = int(os.environ.get('SCHEDULES', '2000'))
  attempts, interrupted = run_schedules(plan, tmp_path, range(number), monkeypatch)
  assert attempts > number * len(plan.shards)
  assert interrupted > number // 4
