"""The progress of the job: scans done, scans a second, time left."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
import contextlib
import sys
import threading
import time

from beam_jobs.job_folder import JobFolder

_POLL_SECS = 0.5
_LINE_SECS = 10.0


@contextlib.contextmanager
def watch(folder: JobFolder, scans_of: Mapping[str, int]) -> Iterator[None]:
  """Shows progress on stderr for the time of a `with` block.

  The workers leave their progress in the job's folder, so that it is seen whatever runs
  them.

  Args:
    folder: of the job.
    scans_of: scans of each shard, by fingerprint.
  """
  total = sum(scans_of.values())
  if not total:  # the article's patches: seconds
    yield
    return

  def done() -> int:
    finished = sum(scans_of.get(name, 0) for name in folder.finished())
    return min(finished + folder.scans_in_progress(), total)

  display = (_Bar if sys.stderr.isatty() else _Lines)(total, done())
  stop = threading.Event()

  def poll() -> None:
    while not stop.wait(_POLL_SECS):
      display.show(done())

  thread = threading.Thread(target=poll, daemon=True)
  thread.start()
  try:
    yield
    stop.set()
    thread.join()
    display.show(done())
  finally:
    stop.set()
    display.close()


class _Bar:
  """A bar that redraws itself."""

  def __init__(self, total: int, done: int):
    import tqdm

    # `initial`: what an earlier run did must not count as this run's speed.
    self._bar = tqdm.tqdm(total=total, initial=done, unit=' scans', file=sys.stderr)

  def show(self, done: int) -> None:
    self._bar.update(max(done - self._bar.n, 0))

  def close(self) -> None:
    self._bar.close()


class _Lines:
  """A plain line now and then, for a file or a pipe."""

  def __init__(self, total: int, done: int):
    self._total, self._initial = total, done
    self._start = self._shown = time.monotonic()
    self._last = done

  def show(self, done: int) -> None:
    """Prints a line if it is time for one, or if all is done."""
    now = time.monotonic()
    finished = done == self._total and self._last < done
    if now - self._shown < _LINE_SECS and not finished:
      return
    self._shown, self._last = now, done
    rate = (done - self._initial) / max(now - self._start, 1e-9)
    left = f'{(self._total - done) / rate:.0f} s left' if rate else 'no estimate yet'
    print(
      f'{done}/{self._total} scans, {rate:.3g} scans/s, {left}',
      file=sys.stderr,
      flush=True,
    )

  def close(self) -> None:
    pass
