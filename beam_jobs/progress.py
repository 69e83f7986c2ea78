"""The progress of the job: scans done, scans per second, remaining time."""

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
def display(folder: JobFolder, num_scans: Mapping[str, int]) -> Iterator[None]:
  """Displays progress on stderr for the duration of a `with` block.

  Workers record their progress in the job's folder, which works with every runner.

  Args:
    folder: the job's folder.
    num_scans: number of scans of each shard, by fingerprint.
  """
  total = sum(num_scans.values())
  if not total:  # the article's patches, which take seconds
    yield
    return

  def done() -> int:
    finished = folder.finished_fingerprints()
    num_finished = sum(num_scans.get(fingerprint, 0) for fingerprint in finished)
    return min(num_finished + folder.num_scans_in_progress(), total)

  bar_or_lines = (_Bar if sys.stderr.isatty() else _Lines)(total, done())
  stop = threading.Event()

  def poll() -> None:
    while not stop.wait(_POLL_SECS):
      bar_or_lines.show(done())

  thread = threading.Thread(target=poll, daemon=True)
  thread.start()
  try:
    yield
    stop.set()
    thread.join()
    bar_or_lines.show(done())
  finally:
    stop.set()
    bar_or_lines.close()


class _Bar:
  """A progress bar, for a terminal."""

  def __init__(self, total: int, done: int):
    import tqdm

    # `initial` excludes the scans of earlier runs from the rate.
    self._bar = tqdm.tqdm(total=total, initial=done, unit=' scans', file=sys.stderr)

  def show(self, done: int) -> None:
    self._bar.update(max(done - self._bar.n, 0))

  def close(self) -> None:
    self._bar.close()


class _Lines:
  """A line of text every few seconds, for a file or a pipe."""

  def __init__(self, total: int, done: int):
    self._total, self._initial = total, done
    self._start = self._shown = time.monotonic()
    self._last = done

  def show(self, done: int) -> None:
    """Prints a line if the last one is old enough, or if all scans are done."""
    now = time.monotonic()
    finished = done == self._total and self._last < done
    if now - self._shown < _LINE_SECS and not finished:
      return
    self._shown, self._last = now, done
    rate = (done - self._initial) / max(now - self._start, 1e-9)
    remaining = (self._total - done) / rate if rate else None
    left = 'no estimate yet' if remaining is None else f'{remaining:.0f} s left'
    print(
      f'{done}/{self._total} scans, {rate:.3g} scans/s, {left}',
      file=sys.stderr,
      flush=True,
    )

  def close(self) -> None:
    pass
